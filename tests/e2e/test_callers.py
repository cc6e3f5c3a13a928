"""A real kube-scheduler calls an extender that lets nobody in who does not show who they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import trustme
import yaml

from tests.deploy.conftest import EXTENDER
from tests.e2e.cluster import Cluster, node_of, pod, scheduler_configuration

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="package")]

TOKEN = "0123456789abcdef0123456789abcdef"
SCHEDULER = "fracgpu-scheduler"


@dataclass(frozen=True)
class Guarded:
    """An extender that asks for a client certificate or a token.

    Attributes:
        port: of its verbs, over TLS.
        folder: with the certificates.
    """

    port: int
    folder: Path

    def configuration(self, *, certificate: str, credentials: str = "") -> Path:
        """A configuration of a scheduler of its own name, that shows this certificate, or credentials in the URL."""
        configuration = scheduler_configuration()
        configuration["profiles"] = [{"schedulerName": SCHEDULER}]
        (extender,) = configuration["extenders"]
        extender["urlPrefix"] = f"https://{credentials}127.0.0.1:{self.port}"
        extender["enableHTTPS"] = True
        extender["tlsConfig"] = {"caFile": str(self.folder / "ca.crt")}
        if certificate:
            extender["tlsConfig"] |= {
                "certFile": str(self.folder / f"{certificate}.crt"),
                "keyFile": str(self.folder / f"{certificate}.key"),
            }
        path = self.folder / f"scheduler-{certificate}.yaml"
        path.write_text(yaml.safe_dump(configuration))
        return path


@pytest_asyncio.fixture(loop_scope="package")
async def guarded(cluster: Cluster, paper: list[str], tmp_path: Path) -> AsyncIterator[Guarded]:
    """A further replica of the cluster's extender, guarded; three nodes are there."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    for name, common_name in {"server": "", "scheduler": "system:kube-scheduler", "kubelet": "system:node:a"}.items():
        issued = authority.issue_cert("127.0.0.1", common_name=common_name or None)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        (tmp_path / f"{name}.crt").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    (tmp_path / "token").write_text(TOKEN)
    process = cluster.service(
        *("guarded", "-m", "extender", "--port", "0", "--pages-port", "0"),
        *("--kubeconfig", str(cluster.plane.kubeconfig(EXTENDER)), "--redis-url", cluster.redis.url),
        *("--tls-cert", str(tmp_path / "server.crt"), "--tls-key", str(tmp_path / "server.key")),
        *("--tls-client-ca", str(tmp_path / "ca.crt"), "--tls-client-names", "system:kube-scheduler"),
        *("--token-file", str(tmp_path / "token")),
    )
    await process.start()
    try:
        url = await process.ready()
        yield Guarded(int(url.rpartition(":")[2]), tmp_path)
    finally:
        await process.stop()


@pytest.mark.parametrize(
    ("certificate", "credentials", "error"),
    [
        ("scheduler", "", ""),
        ("", f"kube-scheduler:{TOKEN}@", ""),
        ("", "", "code 401"),
        ("kubelet", "", "code 403"),
        ("", "kube-scheduler:wrong@", "code 401"),
    ],
)
async def test_a_pod_is_placed_by_who_may(
    cluster: Cluster, guarded: Guarded, certificate: str, credentials: str, error: str
) -> None:
    configuration = guarded.configuration(certificate=certificate, credentials=credentials)
    with cluster.plane.scheduler(configuration, name=SCHEDULER):
        wanted = pod("p", "6Gi")
        wanted["spec"]["schedulerName"] = SCHEDULER
        await cluster.create(wanted)
        if error:
            assert not node_of(await cluster.get("p"))
            await cluster.waiting("p", because=error)
        else:
            assert node_of(await cluster.bound("p"))
