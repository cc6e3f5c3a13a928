"""`make bench` from end to end, on a cluster so small that it takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import main


def test_a_quick_run_prints_a_table_and_writes_every_number(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", "filter,memory,start", "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(output.read_text())
    assert results.keys() == {"machine", "filter", "filter_20_sent", "memory", "start"}
    assert results["filter"].keys() == results["filter_20_sent"].keys() == results["memory"].keys() == {"40"}
    row = results["filter"]["40"]
    assert row["sent"] == 40
    assert results["filter_20_sent"]["40"]["sent"] == 20
    assert all(
        row[name] > 0 for name in ("p50_ms", "p99_ms", "floor_p50_ms", "cpu_ms", "cold_ms", "busy_p50_ms", "ratio")
    )
    assert results["memory"]["40"]["peak_mb"] >= results["memory"]["40"]["rss_mb"] > 10
    assert results["start"]["restart_seconds"] > 0
    assert "filter" in run.stdout
    assert "ready after a restart" in run.stdout


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "filter,speed"])
    assert "no such section: speed" in capsys.readouterr().err
