"""Logging of a service process: one line per event on stderr, made for machines, or for people at a terminal.

An event is a short constant message with its facts beside it, as in
``logger.info("bound", extra={"pod": ..., "node": ...})``. The facts' names must not be those of a LogRecord's
attributes (``name``, ``message``, ``args``, ...).
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

LogFormat = Literal["auto", "json", "text"]

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """An event as a JSON object: time, level, logger, event, then its facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode one event."""
        event = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **facts_of(record),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(event, enc_hook=str).decode(errors="replace")


class ConsoleFormatter(logging.Formatter):
    """An event as a line for people: time, level, event, key=value; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one event."""
        facts = "".join(f" {key}={_shown(value)}" for key, value in facts_of(record).items())
        time = _time(record).astimezone().strftime("%H:%M:%S")
        line = f"{time} {record.levelname.lower():<7} {record.name}: {record.getMessage()}{facts}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(level: str, *, form: LogFormat = "auto") -> None:
    """Send all events of at least this level (``debug``, ``info``, ...) to stderr; replaces what was set before."""
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(ConsoleFormatter() if is_text else JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, tz=UTC)


def facts_of(record: logging.LogRecord) -> dict[str, object]:
    """What an event says besides its name: the facts beside it, by name."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _shown(value: object) -> str:
    text = str(value)
    # What cannot be printed could steer the terminal.
    return repr(text) if not text or not text.isprintable() or any(c in " \"'=" for c in text) else text
