"""One event, one line."""

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fracgpu.process.logs import ConsoleFormatter, JsonFormatter, LogFormat, configure_logging


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


@pytest.mark.parametrize(("form", "is_json"), [("auto", True), ("json", True), ("text", False)])
def test_the_form_is_what_was_asked_for(form: LogFormat, is_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", form=form)  # stderr is no terminal here
    logging.getLogger("x").info("said", extra={"number": 1})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("{") is is_json
    assert ("number=1" in line) is not is_json


@pytest.mark.parametrize(("form", "is_json"), [("auto", False), ("json", True), ("text", False)])
def test_the_form_at_a_terminal(form: LogFormat, is_json: bool) -> None:
    ours, theirs = pty.openpty()
    program = (
        f"import logging, fracgpu.process.logs as l; l.configure_logging('info', form={form!r}); logging.info('said')"
    )
    subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True, cwd=Path(__file__).parents[2])
    os.close(theirs)
    with open(ours, "rb") as terminal:
        assert terminal.readline().startswith(b"{") is is_json


def test_events_below_the_level_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning")
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud", extra={"number": 1})
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "loud"
