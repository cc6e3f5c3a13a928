"""One event, one line."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fracgpu.process.logs import ConsoleFormatter, JsonFormatter, configure_logging


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def make_record(message: str, **facts: object) -> logging.LogRecord:
    record = logging.makeLogRecord({"name": "extender", "levelno": 20, "levelname": "INFO", "msg": message, **facts})
    record.created = 1_700_000_000.25
    return record


def test_json() -> None:
    line = JsonFormatter().format(make_record("bound", pod="a/b", file=Path("/x"), us=7))
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "info",
        "logger": "extender",
        "event": "bound",
        "pod": "a/b",
        "file": "/x",
        "us": 7,
    }


def test_console() -> None:
    line = ConsoleFormatter().format(make_record("bound", pod="a/b", why="two words", empty=""))
    assert line.endswith("info    extender: bound pod=a/b why='two words' empty=''")


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()])
def test_an_exception_is_part_of_its_event(formatter: logging.Formatter) -> None:
    try:
        raise LookupError("gone")
    except LookupError:
        text = formatter.format(make_record("crashed", exc_info=sys.exc_info()))
    assert "LookupError: gone" in text
    assert ("\n" in text) == isinstance(formatter, ConsoleFormatter)


def test_events_below_the_level_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning")
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud", extra={"number": 1})
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "loud"
