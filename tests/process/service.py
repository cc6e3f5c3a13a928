"""A whole service process in few lines, as the tests' subject: ``python -m tests.process.service``."""

import asyncio
import sys
from typing import Any

from fracgpu.errors import UnavailableError
from fracgpu.process.running import announce_ready, prepare_process, run_service
from fracgpu.process.serving import HttpServer
from fracgpu.process.settings import ServiceSettings
from fracgpu.process.tracing import span


class Settings(ServiceSettings):
    """A service for tests."""

    port: int = 0
    """The port to listen on."""

    failure: str = ""
    """What goes wrong: "defect", "group", or the text of an error."""


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every request with its path; accept lifespan events."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def serve(stop: asyncio.Event) -> None:
    settings = Settings.load(sys.argv[1:])
    prepare_process(settings)
    if settings.failure == "defect":
        raise ZeroDivisionError
    if settings.failure == "group":
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail("no Redis"))
            tasks.create_task(fail("no API server"))
    if settings.failure:
        await fail(settings.failure)
    server = HttpServer(app, host="127.0.0.1", port=settings.port)
    with span("serve"):
        await server.start()
        announce_ready(server.url, ready_file=settings.ready_file)
        await stop.wait()
        await server.stop()


async def fail(text: str) -> None:
    raise UnavailableError(text)


def main() -> int:
    return run_service(serve)


if __name__ == "__main__":
    sys.exit(main())
