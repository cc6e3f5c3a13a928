"""`fracgpu playground`: a simulated cluster whose webhook and extender run elsewhere, as in docker-compose.yml.

API server, scheduler, kubelets and a device plugin for each node are here. What the two services need to join, a
kubeconfig and the webhook's certificate, is put into a folder before the API server answers.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import trustme
from rich.console import Console

from cli.display import render
from cli.elsewhere import Elsewhere, ServiceElsewhere
from cli.interrupts import Interrupts
from cli.report import Report
from cli.workplace import EXAMPLES, make_directory, unless
from fracgpu.errors import FracgpuError, SettingError
from fracgpu.quantities import DEFAULT_MEMORY_UNIT
from playground.api.apiserver import ApiServer
from playground.manifests import load_objects

SERVICES_KUBECONFIG: Final = "kubeconfig"
KUBECTL_KUBECONFIG: Final = "kubectl.kubeconfig"
CERTIFICATE: Final = "webhook.crt"
KEY: Final = "webhook.key"
_REFRESH_SECONDS: Final = 0.5
_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for.

    Attributes:
        directory: where the services' files go; nobody but them should read it.
        host, port: where the API server listens; it asks nobody who they are.
        url: how the services reach it.
        webhook_url, extender_url, pages_url: where they serve: reviews, verbs, and explanations.
        manifests: a directory of what to apply; None for the examples.
    """

    directory: Path
    host: str
    port: int
    url: str
    webhook_url: str
    extender_url: str
    pages_url: str
    manifests: Path | None


def run_playground(options: Options, *, interrupts: Interrupts) -> int:
    """Run the cluster until a signal comes.

    Returns:
        0 when asked to stop; 1 where something did not come up; 2 where the arguments cannot be used.
    """
    try:
        work = make_directory()
    except (SettingError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return _EXIT_USAGE
    warnings.simplefilter("ignore", FutureWarning)  # pynvml's, about its own name
    try:
        code = asyncio.run(_playground(options, work=work, interrupts=interrupts))
    except SettingError as exc:
        print(f"error: {exc}", file=sys.stderr)
        code = _EXIT_USAGE
    except (FracgpuError, OSError) as exc:  # the latter names the port that somebody else has
        print(f"error: {exc}\nThe logs are kept in {work}", file=sys.stderr)
        return _EXIT_FAILED
    shutil.rmtree(work, ignore_errors=True)
    return code


async def _playground(options: Options, *, work: Path, interrupts: Interrupts) -> int:
    from cli.simulation import Simulation  # here, where the warning is ignored that it gives

    try:
        wanted = load_objects(options.manifests or EXAMPLES)
    except OSError as exc:
        raise SettingError(
            f"--manifests {options.manifests} cannot be read ({exc.strerror}); name a directory"
        ) from exc
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    interrupts.tell(lambda: loop.is_closed() or loop.call_soon_threadsafe(stop.set))
    api = ApiServer(host=options.host, port=options.port, checks_namespaces=True)
    try:
        ca_pem = _write_certificate(options)
        _write(options.directory / SERVICES_KUBECONFIG, api.kubeconfig(url=options.url).encode())
        here = f"http://127.0.0.1:{options.port}"  # on the machine where the port is published
        _write(options.directory / KUBECTL_KUBECONFIG, api.kubeconfig(url=here).encode())
    except OSError as exc:
        raise SettingError(f"--directory {options.directory} cannot be written to: {exc}") from exc
    simulation = Simulation(
        work,
        api=api,
        elsewhere=Elsewhere(
            webhook=ServiceElsewhere("the webhook", url=options.webhook_url, ca_pem=ca_pem),
            extender=ServiceElsewhere("the extender", url=options.extender_url),
            pages=ServiceElsewhere("the extender's pages", url=options.pages_url),
            ca_pem=ca_pem,
        ),
        serves_kubectl=True,
        on_step=lambda step: print(f"starting: {step}", file=sys.stderr, flush=True),
    )
    if not await unless(stop, simulation.start()):
        return 0
    try:
        for refused in wanted.refused:
            simulation.refuse(refused.name, refused.message)
        applying = asyncio.create_task(simulation.apply(wanted.objects))
        await _print_changes(simulation.report, stop=stop)
        applying.cancel()
        await asyncio.wait({applying})
    finally:
        await simulation.stop()
    return 0


async def _print_changes(report: Callable[[], Awaitable[Report]], *, stop: asyncio.Event) -> None:
    """Print the picture at every change, until asked to stop."""
    console = Console()
    shown: Report | None = None
    while not stop.is_set():
        found = await report()
        if found != shown:
            console.print(render(found, unit=DEFAULT_MEMORY_UNIT))
            shown = found
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REFRESH_SECONDS):
                await stop.wait()


def _write_certificate(options: Options) -> str:
    """Make the webhook's certificate, for the name in its URL; returns the authority's."""
    authority = trustme.CA()
    name = urlsplit(options.webhook_url).hostname
    if not name or not options.webhook_url.startswith("https://"):
        raise SettingError(f"--webhook-url is {options.webhook_url}; it must be https://HOST:PORT")
    issued = authority.issue_cert(name)
    _write(options.directory / KEY, issued.private_key_pem.bytes())
    _write(options.directory / CERTIFICATE, b"".join(part.bytes() for part in issued.cert_chain_pems))
    return str(authority.cert_pem.bytes(), "ascii")


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step: somebody may be reading it."""
    draft = path.with_name(f"{path.name}.tmp")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)
