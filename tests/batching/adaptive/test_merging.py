"""Servers that make one call of those that wait are told from those that do not."""

import math
from dataclasses import dataclass, replace

import pytest

from batching.adaptive.cost import CostModel
from batching.adaptive.merging import MergingDetector

BURST = (0.0, 0.3, 0.6)


@dataclass(eq=False)
class Sent:
    sent: float
    end: float = math.inf
    size: int = 1
    largest: int = 32


def merged(starts):
    """Calls of one second each; all that wait while one runs end together after it."""
    calls, free = [Sent(start) for start in starts], 0.0
    waiting = list(calls)
    while waiting:
        begin = max(free, waiting[0].sent)
        batch = [call for call in waiting if call.sent <= begin]
        free = begin + 1.0
        for call in batch:
            call.end = free
        waiting = waiting[len(batch) :]
    return calls


def queued(starts):
    """Calls of one second each, one after the other."""
    calls, free = [Sent(start) for start in starts], 0.0
    for call in calls:
        free = call.end = max(free, call.sent) + 1.0
    return calls


def shared(starts):
    """Three calls of one second each at 0, 0.3, and 0.6, that share a device evenly."""
    return [
        Sent(start, start // 10 * 10 + (2.25, 2.85, 3.0)[place % 3])
        for place, start in enumerate(starts)
    ]


ONE_SECOND = CostModel(fixed_s=1.0, per_item_s=0.0, transport_s=0.0, noise=0.01)


def replay(detector, calls, cost=ONE_SECOND):
    """Tell the detector of all ends in their order; return what it says to each."""
    answers = []
    for call in sorted(calls, key=lambda call: (call.end, call.sent)):
        others = [one for one in calls if one.sent < call.end and one is not call]
        in_flight = [one for one in others if (one.end, one.sent) > (call.end, call.sent)]
        answers.append(detector.ended(call, in_flight, call.end, cost))
    return answers


def bursts(count, burst=BURST, first=0.0):
    return [first + 10.0 * number + start for number in range(count) for start in burst]


def test_a_server_that_merges_is_recognised():
    """Calls that were sent apart and waited together end together, burst after burst."""
    detector = MergingDetector()
    assert not detector.merges
    replay(detector, merged(bursts(6)))
    assert detector.merges


@pytest.mark.parametrize("run", [queued, shared])
def test_other_devices_do_not_merge(run):
    """Where calls queue, or share a device, they end apart."""
    detector = MergingDetector()
    assert not any(replay(detector, run(bursts(30))))
    assert detector.known
    assert not detector.merges


@pytest.mark.parametrize(("seconds", "merges"), [(1.5, True), (1.65, True), (1.75, False)])
def test_what_ends_together_but_not_as_soon_as_one_call_would_was_none(seconds, merges):
    """Calls that share a device may end together by chance, but after the time of two. One call of
    two items takes 1.5 s here; two would take half a second more, and 0.2 s of that are allowed."""
    cost = CostModel(fixed_s=0.5, per_item_s=0.5, transport_s=0.0, noise=0.01)
    calls = [
        Sent(start, start // 10 * 10 + (1.0 if start % 10 == 0 else 1.0 + seconds))
        for start in bursts(10)
    ]
    detector = MergingDetector()
    replay(detector, calls, cost)
    assert detector.known
    assert detector.merges == merges


def test_the_larger_the_calls_the_longer_one_of_them_all_takes():
    """What counts are the items of all that waited."""
    cost = CostModel(fixed_s=0.5, per_item_s=0.5, transport_s=0.0, noise=0.01)
    for size in (1, 4):
        calls = [
            Sent(start, start // 10 * 10 + (1.0 if start % 10 == 0 else 5.5), size)
            for start in bursts(10)
        ]
        detector = MergingDetector()
        replay(detector, calls, cost)
        assert detector.merges == (size == 4)


@pytest.mark.parametrize(("size", "merges"), [(8, True), (16, True), (17, False)])
def test_only_what_one_call_has_room_for_is_expected_to_end_together(size, merges):
    """Where two of three that wait fill a call, the third ends later, and a server that does so
    merges them; where two are too many for one call, nothing can be seen."""
    calls = []
    for number in range(10):
        ends = (1.0, 2.0, 2.0, 2.0 if size == 8 else 3.0)
        calls += [
            Sent(10.0 * number + 0.2 * place, 10.0 * number + end, size)
            for place, end in enumerate(ends)
        ]
    detector = MergingDetector()
    replay(detector, calls)
    assert detector.known == merges
    assert detector.merges == merges


def test_only_what_was_sent_apart_and_ended_together_is_told():
    """The second of a pair, unless both left at about the same time."""
    assert replay(MergingDetector(), merged(bursts(2))) == [False, False, True] * 2
    assert not any(replay(MergingDetector(), merged(bursts(2, (0.0, 0.3, 0.39)))))


def test_a_few_occasions_are_too_few():
    """Two or three times may be chance; a handful is not."""
    seen = []
    for count in range(1, 8):
        detector = MergingDetector()
        replay(detector, merged(bursts(count)))
        assert detector.known == detector.merges
        seen.append(detector.merges)
    assert seen[:3] == [False] * 3
    assert seen[-1]
    assert seen == sorted(seen)


def test_calls_that_were_sent_together_tell_nothing():
    """Two that arrive at once may end at once on any device that shares its time."""
    detector = MergingDetector()
    replay(detector, merged(bursts(30, (0.0, 0.5, 0.54))))
    assert not detector.known
    assert not detector.merges


def test_a_call_that_was_on_its_way_did_not_wait():
    """With a transport of half a second, what was sent 0.4 before a call began was not there."""
    detector = MergingDetector()
    replay(detector, merged(bursts(30)), replace(ONE_SECOND, transport_s=0.5))
    assert not detector.known
    assert not detector.merges


def test_a_server_that_merges_no_more_is_recognised():
    """What was seen is forgotten bit by bit."""
    detector = MergingDetector()
    replay(detector, merged(bursts(10)))
    assert detector.merges
    replay(detector, queued(bursts(10, first=1000.0)))
    assert detector.known
    assert not detector.merges
