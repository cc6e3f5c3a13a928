"""A receiver of traces: OTLP over HTTP, as any OpenTelemetry collector has it, with what it was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from fracgpu.process.tracing import end_tracing, start_tracing


@dataclass
class ReceivedSpan:
    """One span."""

    name: str
    trace: str
    id: str
    parent: str  # empty where there is none
    attributes: dict[str, Any]
    error: str  # empty where it went well
    seconds: float


@dataclass
class Receiver:
    """What came."""

    url: str = ""
    path: str = ""
    resource: dict[str, Any] = field(default_factory=dict)
    spans: list[ReceivedSpan] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)  # set at first

    def __post_init__(self) -> None:
        self.may_answer.set()

    def named(self, name: str) -> ReceivedSpan:
        """The only span of that name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    async def until(self, count: int) -> list[ReceivedSpan]:
        """Wait until so many spans came."""
        async with asyncio.timeout(30):
            while len(self.spans) < count:
                self.news.clear()
                await self.news.wait()
        return self.spans

    async def answer(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        self.path = request.path
        sent = ExportTraceServiceRequest.FromString(await request.read())
        self.asked.set()
        await self.may_answer.wait()
        for group in sent.resource_spans:
            self.resource = _values(group.resource.attributes)
            self.spans += [_span(found) for scope in group.scope_spans for found in scope.spans]
        self.news.set()
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Receive what processes are told to send."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{tail:.*}", receiver.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def traced(service: str) -> AsyncIterator[Receiver]:
    """Receive the traces of this process; all of them are there when this is left."""
    async with receiving() as receiver:
        start_tracing(receiver.url, service=service)
        try:
            yield receiver
        finally:
            await asyncio.to_thread(end_tracing)


def _span(found: Any) -> ReceivedSpan:
    return ReceivedSpan(
        found.name,
        found.trace_id.hex(),
        found.span_id.hex(),
        found.parent_span_id.hex(),
        _values(found.attributes),
        found.status.message if found.status.code == 2 else "",
        (found.end_time_unix_nano - found.start_time_unix_nano) / 1e9,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_value(part) for part in found.values] if kind == "array_value" else found
