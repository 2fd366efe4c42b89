"""What is left out of the log."""

import logging

import pytest

from gateway import logs


def record(message: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": message})


def test_what_asyncio_says_again_and_again_is_written_once(monkeypatch):
    """The same first line is: handles and times in what follows differ each time."""
    now = 100.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    seldom = logs._Seldom()
    told = [seldom.filter(record(f"Exception in callback accept()\nhandle {n}")) for n in range(9)]
    assert told == [True] + 8 * [False]
    assert seldom.filter(record("something else"))
    assert seldom.filter(record("Exception in callback accept()"))
    now += logs.REPEAT_SECONDS - 1
    assert not seldom.filter(record("Exception in callback accept()"))
    now += 2
    assert seldom.filter(record("Exception in callback accept()"))


@pytest.mark.parametrize("message", [ValueError("x"), 7])
def test_a_message_need_not_be_text(message):
    """Whatever is logged as a message is compared as what it would be written as."""
    assert logs._Seldom().filter(record(message))
