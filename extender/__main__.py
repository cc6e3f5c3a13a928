"""Runs the extender process: ``python -m extender --kubeconfig FILE``."""

import asyncio
import contextlib
import sys

from extender.app import Extender, create_app
from extender.index import Index
from extender.ledger.embedded import EmbeddedRedis
from extender.ledger.ledger import Ledger, connect
from extender.reconciler import Reconciler
from extender.settings import ExtenderSettings
from fracgpu.errors import SettingError
from fracgpu.kube.client import KubeClient
from fracgpu.process.running import announce_ready, prepare_process, run_service
from fracgpu.process.serving import HttpServer


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv

    async def serve(stop: asyncio.Event) -> None:
        settings = ExtenderSettings.load(arguments)
        prepare_process(settings)
        await _serve(settings, stop)

    return run_service(serve)


async def _serve(settings: ExtenderSettings, stop: asyncio.Event) -> None:
    async with contextlib.AsyncExitStack() as stack:
        url = settings.redis_url
        if not url:
            redis = EmbeddedRedis(settings.redis_dir)
            await redis.start()
            stack.push_async_callback(redis.stop)
            url = redis.url
        try:
            client = connect(url)
        except ValueError as exc:
            raise SettingError(f"--redis-url (environment: FRACGPU_REDIS_URL) is {url!r}: {exc}") from exc
        index = Index()
        ledger = Ledger(client, reader=index)
        stack.push_async_callback(ledger.close)
        kube = await KubeClient.connect(kubeconfig=settings.kubeconfig)
        stack.push_async_callback(kube.close)
        reconciler = Reconciler(
            kube=kube, index=index, ledger=ledger, binding_timeout_seconds=settings.binding_timeout_seconds
        )
        app = create_app(Extender(index=index, ledger=ledger, reconciler=reconciler))
        server = HttpServer(app, host=settings.host, port=settings.port, tls_cert=None, tls_key=None)
        await server.start()
        stack.push_async_callback(server.stop)
        announce_ready(server.url, ready_file=settings.ready_file)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(reconciler.run(), name="reconciler")
            await stop.wait()
            following.cancel()


if __name__ == "__main__":
    sys.exit(main())
