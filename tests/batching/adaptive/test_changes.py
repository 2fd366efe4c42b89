"""When errors are a change, and when they are not."""

import random

import pytest

from batching.adaptive.changes import CusumDetector


def detector(sign=1.0, window=96):
    return CusumDetector(sign, slack=1.0, alarm=8.0, clip=4.0, window=window)


def test_a_shift_is_seen_from_where_it_began():
    """The observations since the sum was last zero are given back, in order."""
    found = detector()
    assert [
        found.update(name, error) for name, error in zip("abcde", [0, -3, 5, 5, 5], strict=True)
    ] == [
        *4 * [[]],
        ["c", "d", "e"],
    ]


def test_one_huge_error_counts_no_more_than_the_clip():
    """Two errors of any size are no alarm: twice four less one is below eight."""
    found = detector()
    assert found.update("a", 1e9) == []
    assert found.update("b", 1e9) == []


def test_what_one_side_looks_for_the_other_does_not():
    """A detector of smaller values never minds larger ones, and the other way round."""
    lower, upper = detector(-1.0), detector(1.0)
    assert not any(lower.update(n, 5.0) for n in range(50))
    assert not any(upper.update(n, -5.0) for n in range(50))
    assert [bool(lower.update(n, -5.0)) for n in range(3)] == [False, False, True]


def test_errors_within_the_slack_never_add_up():
    """As much as each may have is no change, for however long."""
    found = detector()
    assert not any(found.update(n, 1.0) for n in range(1000))


def test_a_few_that_err_are_no_change():
    """Where most observations are as expected, the sum begins anew without an alarm."""
    found, errors = detector(), [4.0, 0.9, 0.9, 4.0, 0.9, 0.9, 4.0, 0.9, 0.9]
    assert not any(found.update(n, error) for n, error in enumerate(errors))
    assert [found.update(n, 4.0) for n in range(3)] == [[], [], [0, 1, 2]]


def test_after_an_alarm_all_begins_anew():
    """The next alarm needs as much evidence as the first, and tells only what came since."""
    found = detector()
    alarms = [found.update(n, 5.0) for n in range(6)]
    assert alarms == [[], [], [0, 1, 2], [], [], [3, 4, 5]]


def test_what_is_cleared_is_forgotten():
    """Errors before a clearing neither count nor come back."""
    found = detector()
    found.update("a", 5.0)
    found.update("b", 5.0)
    found.clear()
    assert [found.update(name, 5.0) for name in "cde"] == [[], [], ["c", "d", "e"]]


def test_no_more_is_given_back_than_the_window():
    """A slow drift is learnt from its last observations."""
    found = detector(window=4)
    alarms = [alarm for n in range(20) if (alarm := found.update(n, 1.5))]
    assert alarms == [[13, 14, 15, 16]]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_noise_is_no_change(sign):
    """In thousands of observations that vary as is usual, chance raises no alarm by default."""
    numbers, found = random.Random(1), CusumDetector[int](sign)
    assert not any(found.update(n, numbers.gauss(0.0, 1.0)) for n in range(5000))
