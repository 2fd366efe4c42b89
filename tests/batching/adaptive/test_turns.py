"""Whose turn it is, and how fast items come and go."""

import random

import pytest

from batching.adaptive.tuning import TUNING
from batching.adaptive.turns import DecayingRate, Turns


def test_before_the_first_item_there_is_no_rate():
    """Nothing is made up."""
    assert DecayingRate().per_second(5.0) == 0.0


@pytest.mark.parametrize("start", [0.0, 1000.0])
def test_a_steady_rate_is_found(start):
    """Items in even steps give their rate, from a fraction of the window on, on any clock."""
    rate = DecayingRate(2.0)
    for number in range(401):
        now = start + number / 20
        rate.add(3, now)
        if number > 40:
            assert rate.per_second(now) == pytest.approx(60.0, rel=0.1)
    assert rate.per_second(now) == pytest.approx(60.0, rel=0.03)


def test_what_is_long_ago_hardly_counts():
    """A window after the last item a third of the rate is left; after many nothing."""
    rate = DecayingRate(2.0)
    for number in range(401):
        rate.add(3, number / 20)
    assert rate.per_second(22.0) == pytest.approx(60.0 * 0.368, rel=0.05)
    assert rate.per_second(100.0) < 1e-9


def test_the_first_items_are_not_a_flood():
    """At the very moment of the first item, it is taken for one in a twentieth of the window."""
    rate = DecayingRate(2.0)
    rate.add(1, 7.0)
    assert rate.per_second(7.0) == pytest.approx(10.0)
    assert rate.per_second(9.0) == pytest.approx(0.368 / (2 * 0.632), rel=0.01)


def test_the_window_is_that_of_the_tuning_unless_told():
    """The default is the time constant of arrivals."""
    rate, told = DecayingRate(), DecayingRate(TUNING.rate_window_s)
    for one in (rate, told):
        one.add(5, 1.0)
    assert rate.per_second(3.0) == told.per_second(3.0)


def use(turns, key, *, size=1, service_s=1.0, now=0.0, known=True):
    turns.used(key, size, service_s, now, known=known)


def next_of(turns, keys):
    return min(keys, key=turns.of)


def test_costs_are_shared_not_calls():
    """Where a's calls take three times as long as b's, b has three times as many of them."""
    turns, seconds, served = Turns(), {"a": 3.0, "b": 1.0}, []
    for _ in range(400):
        key = next_of(turns, "ab")
        served.append(key)
        use(turns, key, service_s=seconds[key])
    assert served.count("b") == pytest.approx(300, abs=2)


def test_whoever_is_new_goes_before_who_floods_but_has_no_credit():
    """After a hundred calls of a, b is first; from then on they take turns."""
    turns = Turns()
    for _ in range(100):
        use(turns, "a")
    served = []
    for _ in range(6):
        served.append(next_of(turns, "ab"))
        use(turns, served[-1])
    assert served[0] == "b"
    assert served.count("a") >= 2


def test_whoever_was_idle_has_no_credit():
    """A key that was away for a hundred calls of another is not given a hundred in a row."""
    turns = Turns()
    use(turns, "b")
    for _ in range(100):
        use(turns, "a")
    row = 0
    while next_of(turns, "ab") == "b":
        use(turns, "b")
        row += 1
    assert 1 <= row <= 2


def test_whoever_is_new_does_not_go_before_who_was_idle():
    """A key that was never seen starts now; one that has used little has waited for longer."""
    turns = Turns()
    use(turns, "idle")
    for _ in range(10):
        use(turns, "busy")
    assert turns.of("idle") < turns.of("new") < turns.of("busy")


def test_a_rate_needs_two_calls():
    """Nothing is known of a key before its second call, nor of one that was never seen."""
    turns = Turns()
    assert turns.rate("a") is None
    use(turns, "a", size=4, now=1.0)
    assert turns.rate("a") is None
    use(turns, "a", size=4, now=1.5)
    assert turns.rate("a") == pytest.approx(8.0)


def test_rates_are_those_of_late():
    """After a change of pace the rate is the new one, while other keys keep theirs."""
    turns, now = Turns(), 0.0
    for pause, size in ((1.0, 4), (0.5, 10)):
        for _ in range(40):
            now += pause
            use(turns, "a", size=size, now=now)
    use(turns, "b", size=1, now=0.0)
    use(turns, "b", size=1, now=2.0)
    assert turns.rate("a") == pytest.approx(20.0, rel=0.01)
    assert turns.rate("b") == pytest.approx(0.5)


def test_a_long_pause_tells_nothing_of_a_rate():
    """Nobody asked meanwhile: it counts as four times a call's time."""
    turns = Turns()
    use(turns, "a", size=8, now=0.0)
    use(turns, "a", size=8, now=3600.0)
    assert turns.rate("a") == pytest.approx(2.0)


def test_calls_of_unknown_cost_tell_no_rate():
    """What is not known to be a call's time is no measure of a pause."""
    turns = Turns()
    for number in range(5):
        use(turns, "a", now=float(number), known=False)
    assert turns.rate("a") is None


def test_calls_at_the_same_time_tell_no_rate():
    """No time has passed between them: nothing is divided by it."""
    turns = Turns()
    use(turns, "a", now=1.0)
    use(turns, "a", now=1.0)
    assert turns.rate("a") is None


def test_keys_that_were_unused_for_longest_are_forgotten():
    """However many keys there are, so many are remembered: the last ones that were used."""
    turns, luck = Turns(), random.Random(1)
    keys = list(range(TUNING.kinds))
    luck.shuffle(keys)
    for key in keys:
        use(turns, key, now=0.0)
        use(turns, key, now=1.0)
    use(turns, keys[0], now=2.0)
    use(turns, "one more", now=2.0)
    assert turns.rate(keys[1]) is None
    assert all(turns.rate(key) is not None for key in (keys[0], keys[2], keys[-1]))
