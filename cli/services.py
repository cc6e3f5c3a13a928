"""What the services of a simulated cluster need around them: ports, a Redis, certificates, and to be asked."""

import socket
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import trustme
from redis.exceptions import RedisError

from extender.ledger.connecting import connect
from extender.ledger.failures import explain_failure
from extender.picture import Picture, WaitingPicture
from fracgpu.errors import SettingError
from fracgpu.names import PodUid
from playground.api.admission import Webhook

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"

_decode_picture = msgspec.json.Decoder(Picture).decode


async def check_redis(url: str) -> None:
    """Tell at once what the extender would wait for.

    Raises:
        SettingError: the Redis of this URL cannot be used.
    """
    try:
        client = connect(url)
    except ValueError as exc:
        raise SettingError(f"--redis-url {exc}") from exc
    try:
        await client.ping()
    except RedisError as exc:
        raise SettingError(f"the Redis of --redis-url: {explain_failure(exc)}") from exc
    finally:
        await client.aclose()


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def make_certificates(directory: Path) -> str:
    """Write the webhook's certificate and key; return the authority's certificate."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.private_key_pem.write_to_path(directory / KEY)
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(directory / CERTIFICATE, append=number > 0)
    return str(authority.cert_pem.bytes(), "ascii")


def pod_webhook(url: str, *, ca_pem: str) -> Webhook:
    """What deploy/kustomize/webhook/mutatingwebhookconfiguration.yaml registers."""
    return Webhook(name="pods.fracgpu.io", url=f"{url}/mutate", ca_pem=ca_pem)


def workload_webhook(url: str, *, ca_pem: str) -> Webhook:
    """What deploy/kustomize/webhook/validatingwebhookconfiguration.yaml registers, of the kinds that are here."""
    return Webhook(
        name="workloads.fracgpu.io",
        url=f"{url}/validate",
        ca_pem=ca_pem,
        resources=("deployments", "statefulsets", "jobs"),
        operations=("CREATE", "UPDATE"),
        timeout_seconds=2,
        failure_policy="Ignore",
    )


async def told_by_extender(http: aiohttp.ClientSession, *, pages_url: str) -> dict[PodUid, WaitingPicture]:
    """Pod UID -> why it waits, of all that wait; empty where there is no answer."""
    answer = await ask(http, f"{pages_url}/v1/cluster")
    return {} if answer is None else {one.uid: one for one in _decode_picture(answer).waiting}


async def ask(http: aiohttp.ClientSession, url: str) -> bytes | None:
    """GET something of a service; None where there is no good answer."""
    try:
        async with http.get(url) as answer:
            return await answer.read() if answer.ok else None
    except (aiohttp.ClientError, OSError):
        return None
