"""Log lines: JSON for machines, text for a terminal. Both go to standard error."""

import logging
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

__all__ = ["configure_logs"]


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


class _JsonFormatter(JsonFormatter):
    """One object a line; the fields of a request stand at its top level."""

    def add_fields(
        self,
        log_data: dict[str, object],
        record: logging.LogRecord,
        message_dict: dict[str, object],
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data.update(getattr(record, "request", {}))
        log_data.pop("request", None)


def configure_logs(log_format: Literal["auto", "json", "text"]) -> None:
    """Send the records of level INFO and above to standard error, in the format asked for."""
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    if text:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(
            _JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
