"""Kinds of device are told apart by the contrast between calls that met none, one and several."""

import math
import random

import pytest

from batching.adaptive.cost import CallRecord
from batching.adaptive.device import (
    KINDS,
    LEVELS,
    SERIAL,
    Contrast,
    DeviceKind,
    Explanation,
    alone_s,
    explain,
    level_of,
    likeliest,
    met,
    most_calls,
)
from batching.adaptive.tuning import TUNING

A, B, THERE = 0.02, 0.002, 0.005
SHARED = DeviceKind(1, queues=False)
AMDAHL = DeviceKind(LEVELS[-1], queues=False, contention=0.6)
FOUR = DeviceKind(4, queues=True)
FOUR_SHARED = DeviceKind(4, queues=False)


def ends_of(kind, calls):
    """When calls end that are (sent, seconds of work) each, on a device of this kind: exactly."""
    ends = [0.0] * len(calls)
    if kind.queues:
        free = [0.0] * kind.places
        for number, (sent, work) in enumerate(calls):
            place = free.index(min(free))
            free[place] = ends[number] = max(sent + THERE, free[place]) + work
        return ends
    left, now = dict(enumerate(work for _, work in calls)), 0.0
    while left:
        here = [number for number in left if calls[number][0] + THERE <= now]
        speed = kind.speed(len(here)) / len(here) if here else 0.0
        coming = [calls[number][0] + THERE for number in left if number not in here]
        first = min(here, key=left.get, default=None)
        done = now + left[first] / speed if here else math.inf
        until = min([done, *coming])
        for number in here:
            left[number] -= speed * (until - now)
        if until == done:
            ends[first] = done
            del left[first]
        now = until
    return ends


def contrast_of(kind, *, groups=40, sigma=0.0, seed=1, together=(1, 2, 3, 5)):
    """What is remembered of groups of calls that met each other, so many ``together``."""
    luck, calls, sizes, start = random.Random(seed), [], [], 0.0
    for group in range(groups):
        for _ in range(together[group % len(together)]):
            sizes.append(luck.randint(1, 32))
            factor = luck.lognormvariate(-sigma * sigma / 2, sigma)
            calls.append((start, (A + B * sizes[-1]) * factor))
            start += luck.uniform(0.0, 0.04)
        start += 1.0
    ends = ends_of(kind, calls)
    contrast = Contrast()
    for end, (sent, _), size in sorted(zip(ends, calls, sizes, strict=True)):
        spans = [(s, e) for (s, _), e in zip(calls, ends, strict=True) if s < end and e > sent]
        before = tuple(sorted(min(e, end) - sent for s, e in spans if s < sent))
        after = tuple((s - sent, min(e, end) - sent) for s, e in spans if s > sent)
        ready = before[-1] if before else 0.0
        contrast.add(CallRecord(size, end - sent, ready, before, after), end)
    return contrast


@pytest.mark.parametrize("kind", [SERIAL, SHARED, AMDAHL, FOUR, FOUR_SHARED], ids=str)
def test_a_device_is_told_by_its_calls(kind):
    """Calls that met none, one, two and four others tell the kind, the cost and the transport."""
    current = SHARED if kind == SERIAL else SERIAL
    found = likeliest(contrast_of(kind).records(), current, 0.0)
    assert found.kind == kind
    model = found.model()
    assert model.fixed_s == pytest.approx(A, rel=0.1)
    assert model.per_item_s == pytest.approx(B, rel=0.1)
    assert model.transport_s == pytest.approx(THERE, abs=0.002)
    assert model.noise < 0.05


@pytest.mark.parametrize("kind", [SERIAL, SHARED, AMDAHL, FOUR], ids=str)
def test_a_device_is_told_through_noise(kind):
    """Where work varies by 30 %, the kind that is found is as fast as the true one, to a third,
    with as many calls as were seen; but for a few times: of 24 none on a serial device, one where
    calls share it, three with contention and four with places were measured."""
    current = FOUR if kind == SERIAL else SERIAL
    wrong = 0
    for seed in range(24):
        found = likeliest(
            contrast_of(kind, groups=80, sigma=0.3, seed=seed).records(), current, 0.0
        )
        speeds = [kind.speed(calls) for calls in (1, 2, 3, 5)]
        believed = [found.kind.speed(calls) for calls in (1, 2, 3, 5)]
        wrong += believed != pytest.approx(speeds, rel=0.34)
    assert wrong <= 4


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [(SERIAL, 0.25, 0.55), (FOUR, 0.25, 0.4), (SHARED, 0.2, 0.36), (AMDAHL, 0.2, 0.36)],
    ids=str,
)
def test_noise_is_found_as_it_is(kind, least, most):
    """Where work varies by 30 %, the noise of the model is about that, however long calls waited.

    Where they queue it is too much: errors are relative to all the time of each call, and their
    mean square is divided by the mean share of the work squared. But the mean square of the shares
    is more than that where some calls waited and others did not. Of five seeds 0.44 to 0.50 were
    measured on the serial device, 0.30 to 0.36 on four places, and 0.25 to 0.31 where calls share.
    """
    for seed in range(1, 4):
        records = contrast_of(kind, groups=80, sigma=0.3, seed=seed).records()
        assert least < explain(records, [kind], [THERE])[0].model().noise < most


@pytest.mark.parametrize(("kind", "share"), [(SERIAL, 0.5), (SHARED, 0.75)], ids=str)
def test_what_varies_is_the_work_or_all_time_at_the_device(kind, share):
    """Of four seconds, one on the way and one behind another call, two are the device's work where
    calls queue; where they share it, all three there are."""
    record = CallRecord(1, 4.0, 2.0, ends_before=(2.0,))
    assert explain([record] * 4, [kind], [1.0])[0].work_share == pytest.approx(share)


@pytest.mark.parametrize("current", [SERIAL, SHARED, AMDAHL, FOUR], ids=str)
def test_without_contrast_the_kind_stays(current):
    """Calls that never met any other are explained by all kinds alike: no evidence, no change."""
    contrast = contrast_of(SERIAL, together=(1,))
    assert likeliest(contrast.records(), current, 0.0).kind == current


def test_a_handful_of_calls_is_too_little_evidence():
    """In noise, eight calls do not overrule what the device was taken for."""
    records = contrast_of(SERIAL, groups=4, sigma=0.3, together=(2,)).records()
    assert likeliest(records, SHARED, THERE).kind == SHARED


def test_the_transport_stays_where_it_explains_as_well():
    """Of the kind as it was, the transport as it was is kept unless another is clearly better."""
    records = contrast_of(SERIAL, together=(1,)).records()
    assert likeliest(records, SERIAL, 0.011).transport_s == 0.011
    assert likeliest(contrast_of(SERIAL).records(), SERIAL, 0.011).transport_s < 0.007


def test_levels_are_rounded_up():
    """A number of calls counts as the next level, and beyond all of them as the last."""
    assert [level_of(calls) for calls in (0, 1, 1.5, 5, 32, 100)] == [1, 1, 2, 6, 32, 32]


@pytest.mark.parametrize(
    ("kind", "speeds"),
    [
        (SERIAL, [1.0, 1.0, 1.0]),
        (SHARED, [1.0, 1.0, 1.0]),
        (FOUR, [1.0, 2.0, 4.0]),
        (AMDAHL, [1.0, 2 / 1.6, 8 / 5.2]),
    ],
    ids=str,
)
def test_speeds(kind, speeds):
    """One place is never faster; several are until they are taken; contention takes its part."""
    assert [kind.speed(calls) for calls in (1, 2, 8)] == pytest.approx(speeds)


def test_kinds_are_described_differently():
    """No two kinds of the same name among those with one place, queues, and contention."""
    names = [str(kind) for kind in (SERIAL, SHARED, FOUR, AMDAHL)]
    assert names == [
        "serial",
        "shared",
        "4 at a time",
        "shared, each call slows the others down by 60%",
    ]
    assert len(set(KINDS)) == len(KINDS)


def test_whoever_has_left_before_the_call_arrived_was_not_met():
    """Calls that ended, or would arrive after they were through, are none at the device."""
    record = CallRecord(1, 5.0, 0.5, ends_before=(0.5,), others_after=((4.5, 5.0),))
    assert met(record, 1.0) == [(1, 4.0)]
    assert met(record, 0.0) == [(2, 0.5), (1, 4.0), (2, 0.5)]


def test_a_transport_longer_than_the_call_leaves_no_time_at_the_device():
    """Nothing is negative then; the call met nobody."""
    shares = met(CallRecord(1, 0.5, 0.0), 1.0)
    assert shares == []
    assert most_calls(shares) == 1


def test_a_moment_does_not_count_as_a_meeting():
    """The others must have been there for more than a tenth of the call's time."""
    assert most_calls([(3, 0.05), (2, 0.04), (1, 0.91)]) == 1
    assert most_calls([(3, 0.05), (2, 0.06), (1, 0.89)]) == 2


@pytest.mark.parametrize(
    ("kind", "seconds"), [(SERIAL, 1.0), (DeviceKind(2, True), 2.0), (DeviceKind(4, True), 3.5)]
)
def test_a_call_waits_until_a_place_is_free(kind, seconds):
    """With p places, behind n calls, it waits for the end of the n - p + 1st; else for nobody."""
    record = CallRecord(1, 4.0, 3.0, ends_before=(1.0, 2.0, 3.0))
    assert alone_s(record, kind, 0.5, met(record, 0.5)) == seconds


def test_what_overtakes_did_not_queue():
    """A call that ended before the one that it should have waited for is impossible there."""
    record = CallRecord(1, 1.0, 1.0, ends_before=(1.0,))
    assert alone_s(record, SERIAL, 0.0, met(record, 0.0)) == math.inf
    assert alone_s(record, DeviceKind(2, True), 0.0, met(record, 0.0)) == 1.0


def test_overtaking_is_an_error_of_its_whole_time():
    """One of four calls that overtakes costs a quarter; all four leave nothing to explain."""
    overtook = CallRecord(1, 1.0, 1.0, ends_before=(1.0,))
    one = explain([CallRecord(1, 1.0, 0.0)] * 3 + [overtook], [SERIAL], [0.0])[0]
    assert (one.error, one.fixed_s) == (pytest.approx(0.25), pytest.approx(1.0))
    assert explain([overtook] * 4, [SERIAL], [0.0])[0][0] == 1.0


def test_no_part_of_a_line_is_negative():
    """Neither less time for more items, nor steeper than proportional, makes a part negative."""
    falling = [CallRecord(1, 0.03, 0.0), CallRecord(32, 0.01, 0.0)]
    steep = [CallRecord(n, s, 0.0) for n, s in ((1, 0.001), (32, 0.09))]
    for records in (falling, steep):
        found = explain(records, [SERIAL], [0.0])[0]
        assert found.fixed_s >= 0
        assert found.per_item_s >= 0
    assert explain(falling, [SERIAL], [0.0])[0].per_item_s == 0.0
    assert explain(steep, [SERIAL], [0.0])[0].fixed_s == 0.0


def test_sizes_that_are_alike_are_all_fixed_time():
    """Of one size nothing can be said of a single item."""
    found = explain([CallRecord(8, 0.1, 0.0)] * 5, [SERIAL], [0.0])[0]
    assert (found.fixed_s, found.per_item_s) == (pytest.approx(0.1), 0.0)


def test_noise_is_that_of_the_device_alone():
    """The same error is more noise where the device works for a part of the time only."""
    found = Explanation(0.01, SERIAL, 0.0, 0.1, 0.0)
    assert found.model().noise == pytest.approx(0.1)
    assert found._replace(work_share=0.25).model().noise == pytest.approx(0.4)
    assert found._replace(work_share=0.0).model().noise == 1.0
    assert found._replace(error=0.0).model().noise == TUNING.exact


def alone(seconds=1.0):
    return CallRecord(1, seconds, 0.0)


def pair(seconds=1.0):
    return CallRecord(1, seconds, 0.0, others_after=((0.0, seconds),))


def test_each_level_keeps_its_last_calls():
    """However many calls meet another, those that met none stay."""
    contrast = Contrast()
    assert contrast.add(alone(), 0.0) == 1
    for number in range(100):
        assert contrast.add(pair(), number / 100) == 2
    assert (contrast.seen(1), contrast.seen(2), contrast.seen(3)) == (1, TUNING.contrast_calls, 0)
    assert sorted(contrast.at_device(0.0)) == [1] + [2] * TUNING.contrast_calls


def test_old_calls_are_no_contrast_any_more():
    """A call leaves a level when it is too old, whatever level the next is of."""
    contrast = Contrast()
    contrast.add(alone(), 0.0)
    contrast.add(pair(), TUNING.contrast_age_s)
    assert contrast.seen(1) == 1
    contrast.add(pair(), TUNING.contrast_age_s + 1)
    assert (contrast.seen(1), contrast.seen(2)) == (0, 2)


def test_all_is_forgotten_of_another_device():
    """After a change nothing that was seen before is asked."""
    contrast = Contrast()
    contrast.add(alone(), 0.0)
    contrast.clear()
    assert contrast.records() == []
    assert contrast.seen(1) == 0


def test_levels_are_those_in_flight():
    """What is believed of the transport decides what was met at the device, not what is kept."""
    contrast = Contrast()
    record = CallRecord(1, 1.0, 0.3, ends_before=(0.3,))
    assert contrast.add(record, 0.0) == 2
    assert contrast.at_device(0.4) == [1]
