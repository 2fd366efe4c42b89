"""The door: who is counted, and what is given back."""

import contextlib
from concurrent.futures import CancelledError

import pytest

from gateway.admission import Admission
from gateway.errors import OverloadedError, ShuttingDownError


async def test_places_are_given_back_however_a_request_ends():
    """Leaving frees the place, the wait and the bytes, also after an error."""
    house = Admission(max_queue_size=2, max_pending_bytes=100)
    with contextlib.suppress(ZeroDivisionError), house.enter(10) as place:
        place.hold(60)
        assert (house.inside, house.waiting, house.pending_bytes) == (1, 1, 60)
        raise ZeroDivisionError
    assert (house.inside, house.waiting, house.pending_bytes) == (0, 0, 0)
    await house.emptied()


async def test_what_is_sent_waits_no_longer():
    """A picture that is with TensorFlow Serving leaves room for another that waits; once."""
    house = Admission(max_queue_size=1, max_pending_bytes=100)
    with house.enter(1) as place:
        with pytest.raises(OverloadedError) as caught:
            house.enter(1)
        assert caught.value.reason == "max_queue_size"
        place.sent()
        place.sent()
        assert house.waiting == 0
        with house.enter(1):
            assert (house.inside, house.waiting) == (2, 1)
    assert house.waiting == 0


async def test_bytes_have_a_limit_of_their_own():
    """Bytes over the limit are refused and not counted; alone, a request may hold any number."""
    house = Admission(max_queue_size=9, max_pending_bytes=100)
    with house.enter(200, "high") as large:
        with pytest.raises(OverloadedError) as caught:
            house.enter(1, "high")
        assert caught.value.reason == "max_pending_bytes"
        assert (house.inside, house.pending_bytes) == (1, 200)
        large.hold(50)
        with house.enter(50, "high") as small:
            with pytest.raises(OverloadedError):
                small.hold(51)
            assert house.pending_bytes == 100
            small.hold(10)
            assert house.pending_bytes == 60


@pytest.mark.parametrize(("priority", "places"), [("low", 5), ("normal", 9), ("high", 10)])
async def test_low_priority_is_refused_first(priority, places):
    """As the house fills, low goes first, then normal; of the bytes as of the places."""
    house = Admission(max_queue_size=10, max_pending_bytes=100)
    with contextlib.ExitStack() as inside:
        for _ in range(places):
            inside.enter_context(house.enter(1, priority))
        with pytest.raises(OverloadedError):
            house.enter(1, priority)
    with house.enter(1, "high"), house.enter(1, priority) as place:
        place.hold(10 * places - 1)
        with pytest.raises(OverloadedError):
            place.hold(10 * places)


async def test_who_waits_for_which_model():
    """Counted once from when the model is named until the picture is sent or has left."""
    house = Admission(max_queue_size=10, max_pending_bytes=100)
    with house.enter(1) as first, house.enter(1) as second:
        first.waits_for("a")
        second.waits_for("a")
        second.waits_for("a")
        assert house.waiting_for == {"a": 2}
        first.sent()
        first.waits_for("a")
        assert house.waiting_for == {"a": 1}
    assert not house.waiting_for


async def test_a_thread_that_is_late_is_told_so():
    """After its request has left, a thread's bytes are not counted any more: it is told to stop."""
    house = Admission(max_queue_size=9, max_pending_bytes=100)
    with house.enter(10) as place:
        pass
    with pytest.raises(CancelledError):
        place.hold(50)
    assert house.pending_bytes == 0


async def test_closed():
    """After close nobody enters; those inside are waited for."""
    house = Admission(max_queue_size=9, max_pending_bytes=100)
    with house.enter(10):
        house.close()
        assert house.closed
        with pytest.raises(ShuttingDownError):
            house.enter(10)
    await house.emptied()
