"""What the soak makes of what its requests came to."""

from typing import Any

import pytest

from bench import soak_report
from bench.clients import LEFT, RIGHT, SILENT, WRONG, End
from bench.faults import FAULTS
from bench.soak import NONE, Soak, Window, _deck


@pytest.fixture
async def soak() -> Soak:
    """A run that has seen one fault, from second 10 to 13, and nothing grow."""
    soak = Soak(0, 0, 0)
    soak._began = 0.0
    soak.windows = [Window("kill -9", 10.0, 13.0)]
    soak.samples = [(float(at), 100_000_000, 20, 0.0) for at in range(8)]
    return soak


def end(soak: Soak, due: float, outcome: str, seconds: float = 0.1) -> None:
    """Let a request end."""
    soak._count(End(due, due + seconds, outcome))


def failed(soak: Soak) -> list[str]:
    """What is not as it must be."""
    return [text for text, _, _, good in soak_report.checks(soak.result()) if not good]


async def test_a_refusal_is_explained_by_a_fault(soak: Soak) -> None:
    """While it is on and as long as it is felt; not later, and not with any status."""
    end(soak, 12.0, "503 backend_unavailable")
    end(soak, 14.0, "504 deadline_exceeded")
    end(soak, 20.0, RIGHT)
    end(soak, 20.0, LEFT)
    assert failed(soak) == []
    end(soak, 12.0, "502 backend_answer_invalid")
    end(soak, 20.0, "503 overloaded")
    assert failed(soak) == ["refusals that no fault explains"]
    assert soak.result()["unexplained"] == {
        "502 backend_answer_invalid (fault: kill -9)": 1,
        "503 overloaded (fault: none)": 1,
    }


async def test_a_request_belongs_to_the_fault_that_began_under_it(soak: Soak) -> None:
    """Who was sent before and answered while it is on, has felt it."""
    soak._current = ("hangs", 20.0)
    end(soak, 19.0, "504 deadline_exceeded", seconds=2.0)
    end(soak, 19.0, RIGHT)
    rows = soak.result()["faults"]
    assert rows["hangs"]["others"] == {"504 deadline_exceeded": 1}
    assert rows[NONE]["right"] == 1


@pytest.mark.parametrize(
    ("outcome", "seconds", "text"),
    [
        (WRONG, 0.1, "answers that are not their picture's"),
        (SILENT, 0.1, "requests without an answer"),
        (RIGHT, 9.0, "answers after 2.5 s"),
    ],
)
async def test_what_must_not_be(soak: Soak, outcome: str, seconds: float, text: str) -> None:
    """One is enough, whatever fault is on."""
    end(soak, 10.0, outcome, seconds)
    assert failed(soak) == [text]


async def test_growth(soak: Soak) -> None:
    """The last quarter of the samples is held against the first."""
    end(soak, 1.0, RIGHT)
    soak.samples[-2:] = [(6.0, 120_000_000, 30, 0.0), (7.0, 120_000_000, 30, 0.0)]
    assert [text.partition(",")[0] for text in failed(soak)] == ["MB grown", "descriptors grown"]


def test_every_fault_before_any_again() -> None:
    """In the same order each time."""

    def first(count: int) -> list[Any]:
        return [card for card, _ in zip(_deck(3), range(count), strict=False)]

    assert {kind for kind, _ in first(len(FAULTS))} == set(FAULTS)
    assert first(50) == first(50)
