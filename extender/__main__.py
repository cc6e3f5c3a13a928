"""Runs the extender process: ``python -m extender --kubeconfig FILE``."""

import asyncio
import contextlib
import gc
import sys

from extender.exposition.page import MetricsPage
from extender.faces import Faces
from extender.index import Index
from extender.ledger.connecting import connect
from extender.ledger.embedded import EmbeddedRedis
from extender.ledger.ledger import Ledger
from extender.metrics import Metrics
from extender.pages.feed import Feed
from extender.placement.policies import Policies
from extender.reconciler import Reconciler
from extender.settings import ExtenderSettings
from extender.verbs import Extender
from fracgpu.errors import SettingError
from fracgpu.kube.client import KubeClient
from fracgpu.process.running import announce_ready, prepare_process, run_service
from fracgpu.quantities import Mib


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
            raise SettingError(f"--redis-url (environment: FRACGPU_REDIS_URL) {exc}") from exc
        index = Index(unit=Mib(settings.memory_unit_mib), policies=Policies(settings.policy))
        metrics = Metrics()
        ledger = Ledger(client, reader=index, observer=metrics.ledger_call)
        stack.push_async_callback(ledger.close)
        kube = await KubeClient.connect(kubeconfig=settings.kubeconfig, observer=metrics.kube)
        stack.push_async_callback(kube.close)
        reconciler = Reconciler(
            kube=kube,
            index=index,
            ledger=ledger,
            metrics=metrics,
            binding_timeout_seconds=settings.binding_timeout_seconds,
        )
        extender = Extender(
            index=index,
            ledger=ledger,
            reconciler=reconciler,
            metrics=metrics,
            hold_seconds=settings.hold_seconds,
        )
        feed = Feed(index, pods=lambda: reconciler.pods)
        page = MetricsPage(metrics=metrics, index=index, reconciler=reconciler)
        faces = Faces(settings, extender, feed=feed, metrics=page)
        await stack.enter_async_context(faces)
        announce_ready(faces.url, ready_file=settings.ready_file, pages_url=faces.pages_url)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(reconciler.run(), name="reconciler"),
                tasks.create_task(feed.run(), name="feed"),
                tasks.create_task(faces.run(), name="faces"),
            ]
            tasks.create_task(_settle_memory(reconciler, stop), name="settle-memory")
            await stop.wait()
            for task in running:
                task.cancel()


async def _settle_memory(reconciler: Reconciler, stop: asyncio.Event) -> None:
    """Keep Python's collector off the cluster's state once that is there.

    A full collection walks every object: 60 ms with 20,000 pods, in the middle of a request, for nothing, because
    objects of the state hold no cycles.
    """
    ready = asyncio.create_task(reconciler.ready.wait())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((ready, stopping), return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    stopping.cancel()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


if __name__ == "__main__":
    sys.exit(main())
