"""The webhook process: ``python -m webhook --tls-secret NAMESPACE/NAME``, or with files of a certificate."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from typing import Final

from fracgpu.kube.client import KubeClient
from fracgpu.process.probes import ProbesApp
from fracgpu.process.running import announce_ready, prepare_process, run_service
from fracgpu.process.serving import HttpServer, is_loopback
from webhook.app import create_app
from webhook.cards import Cluster
from webhook.certificates.keeping import Certificates, certificates_of
from webhook.file import load_settings
from webhook.following import GpuFollower
from webhook.metrics import Metrics
from webhook.policy import Policy
from webhook.settings import WebhookSettings

_logger = logging.getLogger(__name__)

_IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"  # set in every pod


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        argv: flags; None for those of the process.

    Returns:
        The process's exit code.
    """

    async def serve(stop: asyncio.Event) -> None:
        settings, policy = load_settings(sys.argv[1:] if argv is None else argv)
        prepare_process(settings)
        await _serve(settings, policy, stop)

    return run_service(serve)


async def _serve(settings: WebhookSettings, policy: Policy, stop: asyncio.Event) -> None:
    if policy.reads_nvidia_gpu:
        # What kube-apiserver does not send here would be let in unread, and nobody would hear of it.
        _logger.warning("nvidia.com/gpu is read, so the conditions in the webhook configurations have to name it")
    async with contextlib.AsyncExitStack() as stack:
        metrics = Metrics()
        kube, gpus = None, None
        if settings.certificate_needs_kube or settings.kubeconfig or _IN_CLUSTER in os.environ:
            kube = await KubeClient.connect(kubeconfig=settings.kubeconfig, observer=metrics.kube)
            stack.push_async_callback(kube.close)
            gpus = GpuFollower(kube)
        certificates = certificates_of(settings, kube=kube, on_happening=metrics.happened)
        await certificates.start()
        metrics.watch_certificate(
            expires=lambda: certificates.expires,
            is_trusted=lambda: certificates.is_trusted,
            missing=certificates.missing,
        )
        server = HttpServer(
            create_app(
                policy,
                cluster=lambda: gpus.cluster if gpus is not None else Cluster(),
                missing=certificates.missing,
                metrics=metrics,
            ),
            host=settings.host,
            port=settings.port,
            tls=certificates.context,
        )
        await server.start()
        stack.push_async_callback(server.stop)
        others = {}
        if settings.metrics:
            others["metrics_url"] = await stack.enter_async_context(_metrics(settings, metrics, certificates))
        announce_ready(server.url, ready_file=settings.ready_file, **others)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(certificates.run(), name="certificates")]
            if gpus is not None:
                running.append(tasks.create_task(gpus.run(), name="follow-gpunodes"))
            await stop.wait()
            for task in running:
                task.cancel()


@contextlib.asynccontextmanager
async def _metrics(settings: WebhookSettings, metrics: Metrics, certificates: Certificates) -> AsyncIterator[str]:
    """Serve them; gives the URL."""
    server = HttpServer(
        ProbesApp(registry=metrics.registry, checks={"webhook": certificates.missing}),
        host=settings.metrics_host,
        port=settings.metrics_port,
        tls=None if is_loopback(settings.metrics_host) else certificates.context,
    )
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


if __name__ == "__main__":
    sys.exit(main())
