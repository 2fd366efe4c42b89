"""The fuzzer finds what it is made to find; and some thousand of its inputs find nothing."""

from functools import partial

import pytest

from bench import fuzz, mutations
from gateway.errors import InvalidRequestError
from gateway.imaging import open_picture


@pytest.mark.parametrize("name", mutations.pictures())
def test_samples_are_sound(name):
    """Every kind of picture that is damaged can be read whole, but for the one kind that is not."""
    picture = open_picture(mutations.pictures()[name], max_pixels=10_000)
    if name == "run-length.bmp":
        with pytest.raises(InvalidRequestError, match="run-length"):
            picture.to_rgb()
    else:
        assert picture.to_rgb().shape == (picture.height, picture.width, 3)


def test_an_input_can_be_made_again():
    """The same seed and number give the same body, and others another; most are damaged."""
    bodies = {mutations.body(1, number)[1] for number in range(300)}
    assert len(bodies) > 280
    assert bodies == {mutations.body(1, number)[1] for number in range(300)}
    assert len(bodies & {mutations.body(2, number)[1] for number in range(300)}) < 20


def test_a_crash_a_defect_and_a_slow_input_are_found():
    """Each is reported with its number, and the inputs after it are still run."""
    slow = (  # however fast the machine is
        "any(now() > end for now in [__import__('time').process_time] for end in [now() + 1.1]"
        " for _ in iter(int, 1)) and 'slow'"
    )
    inputs = [
        ("a", b"'fine'"),
        ("a", b"__import__('ctypes').string_at(0)"),
        ("b", b"1 / 0"),
        ("b", slow.encode()),
        ("b", b"'fine'"),
    ]
    report = fuzz.watch(eval, inputs.__getitem__, len(inputs))
    numbers, defects = zip(*report.defects, strict=True)
    assert numbers == (1, 2, 3)
    assert "ended the process" in defects[0]
    assert defects[1] == "ZeroDivisionError: division by zero"
    assert "s of CPU" in defects[2]
    assert report.count == 5
    assert report.outcomes["a"]["fine"] == report.outcomes["b"]["fine"] == 1
    assert "3 defects" in report.text("a run")


def test_whatever_comes_is_read_or_refused():
    """Of damaged pictures and bodies only errors come out that a client is told of."""
    report = fuzz.watch(fuzz.read, partial(mutations.body, 3), 4000)
    assert report.defects == []
    assert report.outcomes.keys() == {"jpeg", "png", "webp", "gif", "bmp", "json"}
    for kind, row in report.outcomes.items():
        assert row["read"] > 0, f"no {kind} was left readable"
        assert sum(row.values()) > row["read"] + 20, f"hardly a {kind} was damaged"
    assert report.last_rss - report.first_rss < 32 << 20


def test_whatever_is_posted_is_answered():
    """Over HTTP nothing is answered with 5xx, and a sound request beside it always with 200."""
    report = fuzz.over_http(partial(mutations.body, 4), 400)
    assert report.defects == []
    assert report.count == 400
