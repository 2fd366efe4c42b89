"""When a batch leaves for a server at work, by costs that the test has made up."""

import math
from itertools import pairwise

import pytest

from batching import CostModel
from batching.adaptive.departure import Waiting, _extra, departure, idle_enough, leave_at
from batching.adaptive.device import DeviceKind
from batching.adaptive.probing import Probe, pause_s
from batching.adaptive.server import Server
from batching.adaptive.tuning import TUNING

LATER = 1e9


def knowing(*, parallelism=1, curious=False, tried=True, **cost):
    """A server with calls of one second after half a second of transport, which has tried all of
    late and has met more calls than are best as often as it cares to."""
    server = Server()
    known = {"fixed_s": 1.0, "per_item_s": 0.0, "transport_s": 0.5, "noise": 0.01} | cost
    server._kind("k").estimator.restart(CostModel(**known))
    server._kind("k").met_calls = [] if curious else [9] * TUNING.probe_more_new
    server.parallelism = parallelism
    if parallelism > 1:
        server.device = DeviceKind(parallelism, queues=True)
    if tried:
        for probe in Probe:
            server.probes.done(probe, LATER, 0.0)
    return server


def send(server, now, size=1):
    return server.send("k", "k", size, 32, now)


def leaves(server, now, items=1, rate=1.0, largest=32):
    return departure(server, "k", Waiting(items, largest, rate), server.free_at(), now)


def test_the_next_batch_leaves_ahead_of_the_end():
    """It leaves so that it arrives, by what overlaps, about when the call before it ends."""
    server = knowing()
    send(server, 0.0)
    assert 0.8 < leaves(server, 0.1)[1] <= 1.0
    send(server, 1.0)  # to end a second after the first
    assert 1.8 < leaves(server, 1.1)[1] <= 2.1


def test_a_free_place_is_used_at_once():
    """On a device of two places a second call need not wait for the first, but a third must."""
    server = knowing(parallelism=2)
    send(server, 0.0)
    assert leaves(server, 0.1) == (None, 0.1)
    send(server, 0.1)
    assert 0.7 < leaves(server, 0.2)[1] <= 1.0


def test_a_call_that_is_overdue_holds_nobody_up():
    """Long after a call should have ended more leave, but not for ever."""
    server = knowing()
    send(server, 0.0)
    for now in range(5, 50, 5):
        at = leaves(server, now)[1]
        if at > now:
            break
        send(server, now)
    assert at == math.inf
    assert len(server.calls) == 3


def test_without_lead_it_waits_for_the_end():
    """A device that takes nothing in advance gets, when it is time to try being late, the next
    call when the last has ended."""
    server = knowing(transport_s=0.0)
    server.probes.done(Probe.LATE, -LATER, 0.0)
    send(server, 0.0)
    assert leaves(server, 0.5) == (Probe.LATE, math.inf)


def test_a_full_batch_is_never_late():
    """Nobody could join it, so that nothing is tried at its expense."""
    server = knowing()
    server.probes.done(Probe.LATE, -LATER, 0.0)
    server.probes.done(Probe.EARLY, -LATER, 0.0)
    send(server, 0.0)
    probe, at = leaves(server, 0.1, items=32)
    assert probe is None
    assert 0.8 < at < 1.0


def test_a_nearly_full_batch_is_not_late_either():
    """With little room left there is little to gain."""
    server = knowing()
    server.probes.done(Probe.LATE, -LATER, 0.0)
    send(server, 0.0)
    assert leaves(server, 0.1, items=31)[0] is None
    assert leaves(server, 0.1, items=2)[0] is Probe.LATE


def test_an_early_call_leaves_before_its_time():
    """To see whether there is more transport than is believed."""
    server = knowing()
    send(server, 0.0)
    usual = leaves(server, 0.1)[1]
    server.probes.done(Probe.EARLY, -LATER, 0.0)
    probe, at = leaves(server, 0.1)
    assert probe is Probe.EARLY
    assert usual - 0.3 < at < usual - 0.1


def test_a_call_that_is_to_be_alone_is_let_be():
    """Nothing leaves before it has ended."""
    server = knowing()
    send(server, 0.0).alone = True
    assert leaves(server, 100.0) == (None, math.inf)


def test_a_server_that_merges_gets_all_at_once():
    """It makes one call of what waits, and does so better than anybody who guesses."""
    server = knowing()
    server.merging._together = server.merging._occasions = 9.0
    send(server, 100.0)
    assert leaves(server, 100.1) == (None, 100.1)


def test_what_was_to_be_merged_and_is_overdue_lets_no_more_leave():
    """Each call waits for one at most and is in the next; else the server has become another."""
    server = knowing()
    server.merging._together = server.merging._occasions = 9.0
    send(server, 100.0)
    overdue = 0.5 + TUNING.merging_longest
    assert leaves(server, 100.0 + overdue - 0.01) == (None, 100.0 + overdue - 0.01)
    assert leaves(server, 100.0 + overdue) == (None, math.inf)


def test_no_more_than_twice_as_many_leave_as_ended_well():
    """However long the calls are overdue: it might hang."""
    server = knowing(transport_s=5.0)
    send(server, 0.0)
    for _ in range(3):
        assert leaves(server, 100.0) == (None, 100.0)
        send(server, 0.1)
    assert leaves(server, 100.0) == (None, math.inf)
    server.most_in_flight = 1.5
    assert leaves(server, 100.0) == (None, 100.0)


def test_one_more_call_than_is_best_is_tried_before_the_end_of_the_last():
    """It meets the call before it for a part of its time, when that is due, or while too few such
    are remembered."""
    for curious in (False, True):
        server = knowing(transport_s=0.0, curious=curious)
        send(server, 0.0)
        assert (leaves(server, 0.1)[0] is Probe.MORE) == curious
        server.probes.done(Probe.MORE, -LATER, 0.0)
        at = 1.0 - TUNING.contrast_overlap
        assert leaves(server, 0.1) == (Probe.MORE, pytest.approx(at))
        assert leaves(server, at + 0.01)[0] is None  # too late for it


def test_beside_a_call_that_waits_no_more_is_tried():
    """It would not meet the one that runs any longer than the one that waits does."""
    server = knowing(transport_s=0.0, curious=True)
    server.probes.done(Probe.MORE, -LATER, 0.0)
    send(server, 0.0)
    send(server, 0.1)
    assert leaves(server, 0.2)[0] is None


def test_a_curious_server_is_given_a_full_batch_at_once():
    """What is full costs nothing more for being early."""
    server = knowing(transport_s=0.0, curious=True)
    send(server, 0.0)
    assert leaves(server, 0.1, items=32) == (Probe.MORE, 0.1)


def test_two_calls_that_wait_for_a_third_are_not_sent_at_once():
    """To see whether they end together, they must have been sent at different times."""
    server = knowing()
    server.probes.done(Probe.MERGING, -LATER, 0.0)
    send(server, 0.0)
    send(server, 0.2)
    probe, at = leaves(server, 0.3)
    assert probe is Probe.MERGING
    assert at == pytest.approx(0.2 + TUNING.probe_merging_apart)
    assert leaves(server, 0.6) == (Probe.MERGING, 0.6)


def test_a_pair_waits_for_a_third_no_three():
    """One call that waits is joined by another, two are not, though there is room for one more."""
    server = knowing(transport_s=1.5)
    server.probes.done(Probe.MERGING, -LATER, 0.0)
    send(server, 0.0)
    assert leaves(server, 0.1)[0] is None
    send(server, 0.2)
    assert leaves(server, 0.3)[0] is Probe.MERGING
    send(server, 0.35)
    assert leaves(server, 0.5)[0] is None
    assert leaves(server, 0.5)[1] < math.inf


@pytest.mark.parametrize(("noise", "times"), [(0.1, 2.0), (0.3, 10.0)])
def test_trials_are_rare_where_costs_vary_by_themselves(noise, times):
    """What calls show of their cost by chance need not be tried out."""
    pause = pause_s(Probe.EARLY, 1.0, noise, crowded=False)
    assert pause == pytest.approx(times * TUNING.probe_early_s[1])


@pytest.mark.parametrize(("noise", "lead"), [(0.1, 0.25), (0.3, 0.45), (0.9, 0.45)])
def test_of_noise_no_more_than_a_part_makes_a_call_earlier(noise, lead):
    """In wild noise a call would otherwise be so early that it costs most of another one."""
    server = knowing()
    server.probes.done(Probe.EARLY, -LATER, 0.0)
    assert _extra(server, Waiting(1, 32, 1.0), noise, 0.0) == (Probe.EARLY, pytest.approx(lead))


def test_the_less_batching_saves_the_earlier_a_batch_leaves():
    """Where a call costs its fixed time, to miss it costs most; where each item costs its own,
    an idle device does. In between in between."""
    times = []
    for fixed in (1.0, 0.5, 0.0):
        server = knowing(fixed_s=fixed, per_item_s=(1 - fixed) / 10, noise=0.2)
        send(server, 0.0, 10)
        times.append(leaves(server, 0.1, items=10, rate=10.0)[1])
    assert times == sorted(times, reverse=True)
    assert times[0] > times[1] > times[2] == 0.1


def leaves_at(items=10, rate=10.0):
    """When so many leave on a noisy device."""
    server = knowing(noise=0.2)
    send(server, 0.0, 10)
    return leaves(server, 0.1, items=items, rate=rate)[1]


def test_the_more_items_wait_the_earlier_they_leave():
    """Each of them would lose by an idle device, and only those to come by leaving early."""
    times = [leaves_at(items) for items in (10, 20, 31)]
    assert all(after < before for before, after in pairwise(times))


def test_the_faster_items_come_the_later_a_batch_leaves():
    """More of them would miss it."""
    times = [leaves_at(rate=rate) for rate in (10.0, 5.0, 2.0)]
    assert all(after < before for before, after in pairwise(times))


def test_it_is_never_waited_for_certainty():
    """However many come, no device is waited for that is almost surely idle."""
    assert idle_enough(1e9, 1) == 0.95
    assert idle_enough(1.0, 10) == pytest.approx(0.083)


def test_where_guessing_is_vain_it_waits_for_the_end():
    """Little to gain by a lead and a time that varies widely: the end of the call is waited for."""
    assert leave_at(1.0, 0.5, 0.001, 0.5, 0.1) == math.inf


def test_the_time_to_leave_is_that_of_the_likelihood():
    """A batch leaves when the probability that the device is idle on arrival is what it must be."""
    at = leave_at(1.0, 0.2, 0.1, 0.5, 0.0)

    def busy(when):
        return 0.5 * math.erfc((when - 1.0) / 0.2 / math.sqrt(2))

    assert 1 - busy(at + 0.1) / busy(at) == pytest.approx(0.5, abs=0.01)
    assert leave_at(1.0, 0.2, 0.1, 0.5, at + 0.05) == at + 0.05


def test_a_device_that_is_surely_idle_is_left_for_at_once():
    """Where there is hardly a doubt that all has ended, nothing is computed."""
    assert leave_at(1.0, 0.01, 0.1, 0.95, 2.0) == 2.0
