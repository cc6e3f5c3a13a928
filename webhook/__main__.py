"""The webhook process: ``python -m webhook --tls-cert CERT --tls-key KEY``."""

import asyncio
import sys

from fracgpu.process.running import announce_ready, prepare_process, run_service
from fracgpu.process.serving import HttpServer
from webhook.app import create_app
from webhook.settings import WebhookSettings


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        argv: flags; None for those of the process.

    Returns:
        The process's exit code.
    """

    async def serve(stop: asyncio.Event) -> None:
        settings = WebhookSettings.load(sys.argv[1:] if argv is None else argv)
        prepare_process(settings)
        server = HttpServer(
            create_app(settings.policy),
            host=settings.host,
            port=settings.port,
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
        )
        await server.start()
        try:
            announce_ready(server.url, ready_file=settings.ready_file)
            await stop.wait()
        finally:
            await server.stop()

    return run_service(serve)


if __name__ == "__main__":
    sys.exit(main())
