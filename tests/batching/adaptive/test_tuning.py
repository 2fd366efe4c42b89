"""The numbers make sense together."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from batching.adaptive import tuning
from batching.adaptive.tuning import TUNING, Tuning

NAMES = [field.name for field in dataclasses.fields(Tuning)]
PAUSES = [name for name in NAMES if re.fullmatch(r"probe_.*_s", name)]


def test_no_number_can_be_changed():
    """Whoever has the numbers cannot change them for all others."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        TUNING.margin = 0.5


def test_a_variant_is_the_same_but_for_what_was_said():
    """An experiment replaces single numbers."""
    other = dataclasses.replace(TUNING, margin=0.5)
    assert (other.margin, other.idle_sure) == (0.5, TUNING.idle_sure)
    assert dataclasses.replace(other, margin=TUNING.margin) == TUNING


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_positive_and_used(name):
    """None is zero or below, and each is read somewhere outside of its module."""
    value = getattr(TUNING, name)
    assert min(value if isinstance(value, tuple) else (value,)) > 0
    sources = Path(tuning.__file__).parent.glob("*.py")
    assert any(re.search(rf"\bTUNING\.{name}\b", source.read_text()) for source in sources)


def test_every_number_or_pair_of_numbers_is_explained():
    """A number has a docstring, unless it shares the one of the number after it."""
    body = ast.parse(inspect.getsource(Tuning)).body[0].body
    undocumented = [
        one.target.id
        for one, after, then in zip(body, body[1:], [*body[2:], None], strict=False)
        if isinstance(one, ast.AnnAssign)
        and not isinstance(after, ast.Expr)
        and not isinstance(then, ast.Expr)
    ]
    assert undocumented == []
    assert isinstance(body[-1], ast.Expr)


@pytest.mark.parametrize("name", PAUSES)
def test_pauses_have_a_shortest_and_a_longest(name):
    """The limits of a pause are in order."""
    shortest, longest = getattr(TUNING, name)
    assert shortest < longest


def test_one_call_alone_is_no_change():
    """However wrong, one call or two do not raise an alarm; the errors of many may."""
    most = TUNING.cusum_clip - TUNING.cusum_slack
    assert 0 < 2 * most < TUNING.cusum_alarm < TUNING.window_calls * most
