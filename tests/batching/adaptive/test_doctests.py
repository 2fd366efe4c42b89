"""The examples in the adaptive code are right."""

import doctest
import importlib
from pathlib import Path

import pytest

from batching.adaptive import tuning

MODULES = sorted(path.stem for path in Path(tuning.__file__).parent.glob("[!_]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    """What a docstring shows is what comes out."""
    assert doctest.testmod(importlib.import_module(f"batching.adaptive.{name}")).failed == 0


def test_there_are_examples():
    """Of the modules that show what they do by an example, each is looked at."""
    found = {
        name
        for name in MODULES
        for one in doctest.DocTestFinder().find(
            importlib.import_module(f"batching.adaptive.{name}")
        )
        if one.examples
    }
    assert {"changes", "coalescing", "device"} <= found
