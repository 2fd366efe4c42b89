"""The examples of the library's README run, and give what it says."""

import doctest
from pathlib import Path

import batching

README = Path(batching.__file__).parent / "README.md"


def test_examples():
    """Each of them."""
    failed, attempted = doctest.testfile(str(README), module_relative=False)
    assert attempted > 20
    assert failed == 0
