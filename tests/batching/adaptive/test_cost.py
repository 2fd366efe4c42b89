"""What calls cost."""

import dataclasses

import pytest

from batching.adaptive.cost import UNKNOWN, CallRecord, CostModel
from batching.adaptive.tuning import TUNING


def test_a_call_takes_the_device_its_fixed_time_and_that_of_its_items():
    """The transport is none of the device's time."""
    cost = CostModel(0.02, 0.002, 0.5, 0.1)
    assert cost.service_s(10) == pytest.approx(0.04)
    assert cost.service_s(2.5) == pytest.approx(0.025)


def test_no_call_takes_no_time():
    """What is divided by is never zero, whatever was learnt."""
    assert UNKNOWN.service_s(32) == TUNING.shortest_s
    assert CostModel(0.0, 0.0, 1.0, 0.1).service_s(0) == TUNING.shortest_s


def test_what_is_not_known_says_so():
    """Before any call nothing is relied upon; a model that is made is."""
    assert not UNKNOWN.known
    assert UNKNOWN.noise == TUNING.noise_prior
    assert CostModel(0.02, 0.002, 0.0, 0.1).known


def test_a_model_cannot_be_changed():
    """Who was given a model can rely on it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        UNKNOWN.fixed_s = 1.0


def test_a_call_met_nobody_unless_told():
    """A record of size, time and readiness is one of a call alone."""
    record = CallRecord(4, 0.5, 0.0)
    assert (record.ends_before, record.others_after) == ((), ())
