"""A service as a process: signals, exit codes, and the end of its parent."""

import json
import os
import select
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICE = [sys.executable, "-m", "tests.process.service"]
PATIENCE_SECONDS = 30.0


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SERVICE, *flags], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def read_event(process: subprocess.Popen[bytes]) -> dict[str, object]:
    assert process.stderr is not None
    event: dict[str, object] = json.loads(process.stderr.readline())
    return event


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_asked_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready"
    with subprocess.Popen([*SERVICE, "--ready-file", str(ready)], cwd=ROOT, stderr=subprocess.PIPE) as process:
        event = read_event(process)
        url = json.loads(ready.read_text())["url"]
        assert (event["event"], event["url"]) == ("ready", url)
        with urllib.request.urlopen(f"{url}/hello") as answer:
            assert answer.read() == b"/hello"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, stderr) == (0, b"")


def test_a_bad_setting_is_one_line_and_2() -> None:
    done = run("--port", "http")
    assert done.returncode == 2
    assert done.stderr == "error: --port (environment: FRACGPU_PORT) is 'http'; it must be a whole number\n"


def test_an_error_of_ours_is_one_line_and_1() -> None:
    done = run("--failure", "no Redis at localhost")
    assert (done.returncode, done.stderr) == (1, "error: no Redis at localhost\n")


def test_errors_of_ours_in_a_group_are_a_line_each() -> None:
    done = run("--failure", "group")
    assert (done.returncode, done.stderr) == (1, "error: no Redis\nerror: no API server\n")


def test_a_defect_is_logged_with_its_traceback() -> None:
    done = run("--failure", "defect")
    assert done.returncode == 1
    event = json.loads(done.stderr)
    assert event["event"] == "crashed"
    assert "ZeroDivisionError" in event["exception"]


def test_help_is_printed_and_0() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "FRACGPU_EXIT_WITH_PARENT" in done.stdout


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's pidfd_open to see another's child end")
def test_a_killed_parent_takes_the_service_with_it() -> None:
    parent_script = (
        "import os, subprocess, sys;"
        "child = subprocess.Popen([*sys.argv[1:], '--exit-with-parent', str(os.getpid())]);"
        "print(child.pid, flush=True); child.wait()"
    )
    command = [sys.executable, "-c", parent_script, *SERVICE]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        try:
            assert read_event(parent)["event"] == "ready"  # the child has the parent's stderr
            parent.kill()
            ended, _, _ = select.select([child], [], [], PATIENCE_SECONDS)
            assert ended
        finally:
            os.close(child)


def test_a_parent_that_ended_before_we_looked() -> None:
    done = run("--exit-with-parent", "1")
    assert done.returncode == 2
    assert "names process 1, but our parent is" in done.stderr
