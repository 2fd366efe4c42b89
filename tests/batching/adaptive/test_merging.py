"""Servers that make one call of those that wait are told from those that do not."""

import math
from dataclasses import dataclass

import pytest

from batching.adaptive.merging import MergingDetector

BURST = (0.0, 0.3, 0.6)


@dataclass(eq=False)
class Sent:
    sent: float
    end: float = math.inf


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


def replay(detector, calls):
    """Tell the detector of all ends in their order."""
    for call in sorted(calls, key=lambda call: (call.end, call.sent)):
        others = [one for one in calls if one.sent < call.end and one is not call]
        in_flight = [one for one in others if (one.end, one.sent) > (call.end, call.sent)]
        detector.ended(call, in_flight, call.end, transport_s=0.0, service_s=1.0)


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
    replay(detector, run(bursts(30)))
    assert not detector.merges


def test_a_few_occasions_are_too_few():
    """Two or three times may be chance; a handful is not."""
    seen = []
    for count in range(1, 8):
        detector = MergingDetector()
        replay(detector, merged(bursts(count)))
        seen.append(detector.merges)
    assert seen[:3] == [False] * 3
    assert seen[-1]
    assert seen == sorted(seen)


def test_calls_that_were_sent_together_tell_nothing():
    """Two that arrive at once may end at once on any device that shares its time."""
    detector = MergingDetector()
    replay(detector, merged(bursts(30, (0.0, 0.5, 0.55))))
    assert not detector.merges


def test_a_call_that_was_on_its_way_did_not_wait():
    """With a transport of half a second, what was sent 0.4 before a call began was not there."""
    calls = merged(bursts(30, (0.0, 0.3, 0.6)))
    detector = MergingDetector()
    for call in sorted(calls, key=lambda call: (call.end, call.sent)):
        in_flight = [one for one in calls if one.sent < call.end <= one.end and one is not call]
        detector.ended(call, in_flight, call.end, transport_s=0.5, service_s=1.0)
    assert not detector.merges


def test_a_server_that_merges_no_more_is_recognised():
    """What was seen is forgotten bit by bit."""
    detector = MergingDetector()
    replay(detector, merged(bursts(10)))
    assert detector.merges
    replay(detector, queued(bursts(10, first=1000.0)))
    assert not detector.merges


def test_of_another_server_nothing_is_known():
    """All occasions, and who waited, are forgotten."""
    detector = MergingDetector()
    replay(detector, merged(bursts(10)))
    detector.forget()
    assert not detector.merges
    replay(detector, merged(bursts(2, first=1000.0)))
    assert not detector.merges
    replay(detector, merged(bursts(8, first=2000.0)))
    assert detector.merges
