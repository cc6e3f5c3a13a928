"""Traces, as a real receiver gets them; and what they cost those who want none."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from fracgpu.errors import NoRoomError, SettingError
from fracgpu.process import tracing
from fracgpu.process.otlp import MAX_SENT, MAX_WAITING
from fracgpu.process.tracing import end_tracing, record, span, start_tracing
from tests.process.receiver import receiving, traced

ROOT = Path(__file__).parents[2]
UID = "0d9a6f1c-7f57-4a3c-9d51-1c6a0f4e9b11"
TRACE = UID.replace("-", "")
NOWHERE = "http://127.0.0.1:9"  # discard: nobody listens


async def test_a_pods_spans_are_one_trace_that_its_uid_names() -> None:
    async with traced("extender") as receiver:
        with span("bind", uid=UID, namespace="team-a", pod="p") as outer:
            with span("reserve", node="node-1"):
                pass
            await asyncio.create_task(_child())
            outer.note({"gpus": {"GPU-a": 16}, "nodes_in": 3, "nodes": ("n1", "n2"), "best": None})
        with span("filter", uid=UID, namespace="team-a", pod="p"):
            pass
        record(
            "allocate", seconds=1.5, uid=UID, namespace="team-a", pod="p", node="node-1", facts={"container": "main"}
        )
    assert {found.trace for found in receiver.spans} == {TRACE}
    bind = receiver.named("bind")
    assert bind.parent == ""
    assert bind.attributes == {
        "k8s.pod.uid": UID,
        "k8s.namespace.name": "team-a",
        "k8s.pod.name": "p",
        "fracgpu.gpus": ["GPU-a=16"],
        "fracgpu.nodes_in": 3,
        "fracgpu.nodes": ["n1", "n2"],
    }
    reserve = receiver.named("reserve")
    assert (reserve.parent, reserve.attributes) == (bind.id, {"k8s.node.name": "node-1"})
    assert receiver.named("Binding").parent == bind.id, "also in a task"
    assert receiver.named("filter").parent == ""
    allocate = receiver.named("allocate")
    assert (allocate.parent, allocate.attributes["fracgpu.container"]) == ("", "main")
    assert allocate.seconds == pytest.approx(1.5)
    assert receiver.path == "/v1/traces"
    assert receiver.resource["service.name"] == "fracgpu-extender"


async def _child() -> None:
    with span("Binding"):
        pass


async def test_an_error_is_recorded_and_goes_on() -> None:
    async with traced("extender") as receiver:
        with pytest.raises(NoRoomError), span("bind", uid=UID):
            raise NoRoomError("node-1 has no room")
        record("allocate", seconds=0, uid=UID, namespace="", pod="", facts={}, error=ValueError("odd"))
    for name, sentence, kind in (("bind", "node-1 has no room", "NoRoom"), ("allocate", "odd", "ValueError")):
        found = receiver.named(name)
        assert (found.error, found.attributes["error.type"]) == (sentence, kind)


async def test_a_caller_that_is_traced_itself_is_the_parent() -> None:
    async with traced("webhook") as receiver:
        record(
            *("review",),
            seconds=0,
            uid="",
            namespace="a",
            pod="p",
            facts={},
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        for nonsense in ("", "00-x-y-01"):
            record("alone", seconds=0, uid="", namespace="a", pod="p", facts={}, traceparent=nonsense)
        record("odd UID", seconds=0, uid="uid-1", namespace="a", pod="p", facts={})
    found = receiver.named("review")
    assert (found.trace, found.parent) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    others = [one for one in receiver.spans if one.name != "review"]
    assert len({one.trace for one in others}) == 3
    assert {one.parent for one in others} == {""}


@pytest.mark.parametrize("suffix", ["", "/", "/v1/traces", "/v1/traces/"])
async def test_the_path_is_added_where_it_is_missing(suffix: str) -> None:
    async with receiving() as receiver:
        start_tracing(receiver.url + suffix, service="x")
        with span("a"):
            pass
        await asyncio.to_thread(end_tracing)
    assert (receiver.path, len(receiver.spans)) == ("/v1/traces", 1)


def test_without_an_endpoint_a_span_is_nothing() -> None:
    first = span("a", uid=UID)
    assert first is span("b") is first.__enter__()
    first.note({"x": 1})
    record("c", seconds=0, uid=UID, namespace="", pod="", facts={})


def test_without_an_endpoint_opentelemetry_is_not_imported() -> None:
    """Nor what it sends with; FastAPI, which the plugin leaves out, looks by itself whether the API is there."""
    found = _python(
        "import sys, plugin.__main__\n"
        "from fracgpu.process.tracing import span\n"
        "with span('a', uid='b'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
        "import extender.__main__, webhook.__main__\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.exporter', 'requests'))])"
    )
    assert (found.returncode, found.stdout) == (0, "[]\n[]\n"), found.stderr


def test_where_opentelemetry_is_not_installed_it_says_what_to_do() -> None:
    found = _python(
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        f"sys.argv = ['x', '--otlp-endpoint', '{NOWHERE}']\n"
        "from tests.process.service import main\n"
        "sys.exit(main())"
    )
    assert (found.returncode, found.stderr) == (
        2,
        "error: --otlp-endpoint needs OpenTelemetry, which is not installed: pip install '.[otel]' in the repository\n",
    )


@pytest.mark.parametrize(
    "endpoint",
    [
        *("otel:4317", "grpc://otel:4317", "http://", "http://[::1", "http://a:b", "x"),
        *("http://user:secret@otel:4318", "http://otel:4318/v1/traces?token=secret", "http://otel:4318/#secret"),
    ],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(SettingError, match=r"--otlp-endpoint .* must be the http or https URL") as refused:
        start_tracing(endpoint, service="x")
    assert "secret" not in str(refused.value)


def test_a_receiver_that_is_not_there_is_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    start_tracing(NOWHERE, service="x")
    _spans(2 * MAX_WAITING)
    end_tracing()
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(one.name, one.message) for one in said] == [("fracgpu.process.otlp", "trouble")]


async def test_a_receiver_that_does_not_answer_holds_nobody_up() -> None:
    """While it keeps the first batch the queue fills; what does not fit is dropped, and the rest comes afterwards."""
    async with receiving() as receiver:
        receiver.may_answer.clear()
        start_tracing(receiver.url, service="x")
        try:
            async with asyncio.timeout(30):
                await asyncio.to_thread(_spans, MAX_SENT)
                await receiver.asked.wait()
                await asyncio.to_thread(_spans, 3 * MAX_WAITING)
            assert receiver.spans == []
        finally:
            receiver.may_answer.set()
            await asyncio.to_thread(end_tracing)
    # How many of those that waited still come depends on how fast they are taken at the end.
    assert 0 < len(receiver.spans) <= MAX_SENT + MAX_WAITING


def _spans(count: int) -> None:
    for _ in range(count):
        with span("a", uid=UID):
            pass


async def test_a_process_sends_what_is_left_when_it_ends(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    async with receiving() as receiver:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.process.service"),
            *("--ready-file", str(ready), "--otlp-endpoint", receiver.url, "--log-format", "json"),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        first = json.loads(await process.stderr.readline())
        assert first["event"] == "ready"
        process.terminate()
        _, stderr = await process.communicate()
        assert (process.returncode, stderr) == (0, b"")
    assert [found.name for found in receiver.spans] == ["serve"]


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    assert tracing._sender is None


def _python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
