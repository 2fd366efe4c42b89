"""Log lines: JSON for machines, text for a terminal. Both go to standard error."""

import logging
import sys
import time
from typing import Any, Literal

from pydantic_core import to_json

__all__ = ["configure_logs"]

REPEAT_SECONDS = 10.0  # from one line to the next that asyncio may write of the same


class _TextFormatter(logging.Formatter):
    """A readable line, with the fields of a request behind the message."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "request", {})
        text = super().format(record)
        if not fields:
            return text
        return text + "  " + " ".join(f"{name}={_plain(value)}" for name, value in fields.items())


def _plain(value: object) -> str:
    """The value, quoted if it could be taken for a line or a command to the terminal."""
    text = str(value)
    return text if text.isprintable() else repr(text)


class _JsonFormatter(logging.Formatter):
    """One object a line; the fields of a request stand at its top level."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "request", {}),
        }
        if record.exc_info:
            fields["exc_info"] = self.formatException(record.exc_info)
        return to_json(fields, fallback=str).decode()


class _Seldom(logging.Filter):
    """Lets a message through whose first line is not that of the last one again, or that was last
    seen long enough ago.

    asyncio tells of every connection in its backlog that there is no descriptor for it, with a
    trace, and of every attempt to accept one after the end that it failed; and the event loop would
    do nothing but write that for seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[str, float] = ("", 0.0)

    def filter(self, record: logging.LogRecord) -> bool:
        (last, at), now = self._last, time.monotonic()
        line = str(record.msg).partition("\n")[0]
        if line == last and now - at < REPEAT_SECONDS:
            return False
        self._last = (line, now)
        return True


def configure_logs(log_format: Literal["auto", "json", "text"]) -> None:
    """Send the records of level INFO and above to standard error, in the format asked for."""
    # Nobody reads them, and each costs a request (the standard library's howto, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    if text:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(_JsonFormatter())
    logging.getLogger("asyncio").filters[:] = [_Seldom()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
