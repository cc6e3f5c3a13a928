"""Reaching Redis of every kind: real servers, Sentinels, a Cluster, TLS; and what is said of those that do not."""

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from redis._parsers import BaseParser
from redis.exceptions import ResponseError

from extender.ledger.connecting import connect
from extender.ledger.failures import explain_failure
from extender.ledger.guarding import PARALLEL_CALLS
from extender.ledger.ledger import LedgerLostError
from fracgpu.errors import UnavailableError
from tests.extender.builders import claim
from tests.extender.ledgers import LedgerReplica
from tests.redisservers import (
    RedisSentinel,
    RedisServer,
    ServerBinary,
    eventually,
    free_port,
    server_binaries,
)

PATIENCE_SECONDS = 5  # of kube-scheduler, for a request


async def test_user_password_and_database_of_the_url_are_used(server: RedisServer) -> None:
    # The rights that docs/operations.md asks for.
    rights = ["+@read", "+@write", "+@scripting", "+@connection", "-@dangerous", "+info", "+time", "+select"]
    await server.ask("ACL", "SETUSER", "fracgpu", "on", ">p@ss/word", "~{fracgpu}:*", *rights)
    await server.ask("ACL", "SETUSER", "default", "off")
    async with LedgerReplica.at(f"redis://fracgpu:p%40ss%2Fword@{server.endpoint}/3") as replica:
        await replica.works()


LOGINS = {
    "no password": ("redis://{}", "wants a password, and the URL has none"),
    "wrong password": ("redis://:wrong@{}", "refuses the user name or the password"),
    "unknown user": ("redis://nobody:secret@{}", "refuses the user name or the password"),
}


@pytest.mark.parametrize("case", LOGINS.values(), ids=LOGINS)
async def test_a_wrong_login_is_told(binary: ServerBinary, tmp_path: Path, case: tuple[str, str]) -> None:
    url, want = case
    async with (
        RedisServer.running(binary, tmp_path, "--requirepass", "secret") as server,
        LedgerReplica.at(url.format(server.endpoint)) as replica,
    ):
        complaint = await replica.complaint()
        assert want in complaint
        assert "wrong" not in complaint


async def test_a_server_with_too_few_replicas_takes_no_writes_and_none_is_half_written(server: RedisServer) -> None:
    async with LedgerReplica.at(f"redis://{server.endpoint}") as replica:
        await replica.rebuild(claim("pod-0"))
        await server.ask("CONFIG", "SET", "min-replicas-to-write", 1)
        before = await contents(server)
        with pytest.raises(UnavailableError, match="fewer replicas in reach than its min-replicas-to-write"):
            await replica.reserve("pod-1")
        with pytest.raises(UnavailableError, match="fewer replicas in reach"):
            await replica.ledger.release(claim("pod-0"))
        assert await contents(server) == before


async def test_a_full_server_takes_no_claim_half_and_can_be_made_room_in(server: RedisServer) -> None:
    async with LedgerReplica.at(f"redis://{server.endpoint}") as replica:
        await replica.rebuild(claim("pod-0"))
        await server.ask("CONFIG", "SET", "maxmemory", "100kb")
        before = await contents(server)
        with pytest.raises(UnavailableError, match="Redis is full"):
            await replica.reserve("pod-1")
        assert await contents(server) == before
        await replica.ledger.release(claim("pod-0"))
        assert replica.claims.entries == {}


async def contents(server: RedisServer) -> dict[str, object]:
    return {name: await server.ask("DUMP", name) for name in await server.ask("KEYS", "*")}


async def test_a_server_that_is_busy_is_told(server: RedisServer) -> None:
    async with LedgerReplica.at(f"redis://{server.endpoint}") as replica:
        await replica.rebuild()
        await server.ask("CONFIG", "SET", "lua-time-limit", 1)
        endless = asyncio.create_task(server.ask("EVAL", "while true do end", 0))
        await eventually(lambda: is_busy(server))
        assert "Redis is busy with another script" in await replica.complaint()
        await server.ask("SCRIPT", "KILL")
        with pytest.raises(ResponseError):
            await endless
        await replica.ledger.catch_up()


async def is_busy(server: RedisServer) -> bool:
    try:
        await server.ask("GET", "nothing")
    except ResponseError:
        return True
    return False


ERRORS = {
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.": "to its disk",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": "lost its master",
    "LOADING Redis is loading the dataset in memory": "still loading",
    "CLUSTERDOWN Hash slot not served": "Cluster is down",
    "ERR Error running script (call to f_0a1b): @user_script: 58: -OOM command not allowed": "is full",
    "NOPERM User x has no permissions to run the 'evalsha' command": "cannot carry out .*no permissions",
    "ERR unknown command 'EVALSHA', with args beginning with: ": "cannot carry out .*unknown command",
}


@pytest.mark.parametrize("answer", ERRORS)
def test_what_redis_answers_is_put_into_words_for_its_operator(answer: str) -> None:
    error = BaseParser.parse_error(answer)  # type: ignore[no-untyped-call]
    assert re.search(ERRORS[answer], explain_failure(error))


def test_the_extender_refuses_a_mistyped_url_and_keeps_its_password_to_itself() -> None:
    command = [sys.executable, "-m", "extender", "--redis-url", "redis://me:Xq7zW#Vk9pL@redis"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "--redis-url (environment: FRACGPU_REDIS_URL) has a #" in ended.stderr
    assert "Xq7zW" not in ended.stderr + ended.stdout
    assert "Vk9pL" not in ended.stderr + ended.stdout


async def test_a_restarted_server_is_met_without_an_error(server: RedisServer) -> None:
    async with LedgerReplica.at(f"redis://{server.endpoint}") as replica:
        await replica.works()
        await server.kill()
        await server.start()
        with pytest.raises(LedgerLostError):
            await replica.ledger.catch_up()


async def test_a_burst_waits_in_line_instead_of_opening_connections(server: RedisServer) -> None:
    async with LedgerReplica.at(f"redis://{server.endpoint}") as replica:
        await replica.rebuild()
        await asyncio.gather(*(replica.ledger.catch_up() for _ in range(20 * PARALLEL_CALLS)))
        clients = (await server.ask("INFO", "clients"))["connected_clients"]
        assert clients <= PARALLEL_CALLS + 1


class Certificates:
    """Files of an authority, of a server at 127.0.0.1, and of a client."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        authority = trustme.CA()
        self.authority = directory / "ca.crt"
        authority.cert_pem.write_to_path(str(self.authority))
        self.server = self._issue(authority, directory / "server.pem", "127.0.0.1")
        self.client = self._issue(authority, directory / "client.pem", "extender")

    @staticmethod
    def _issue(authority: trustme.CA, path: Path, name: str) -> Path:
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def server_options(self, port: int) -> tuple[str, ...]:
        files = {"cert": self.server, "key": self.server, "ca-cert": self.authority}
        options = (f"--tls-{name}-file {path}" for name, path in files.items())
        return ("--tls-port", str(port), *" ".join(options).split(), "--tls-auth-clients", "yes")

    @property
    def client_query(self) -> str:
        return f"ssl_ca_certs={self.authority}&ssl_certfile={self.client}&ssl_keyfile={self.client}"


@pytest.fixture
def tls_binary() -> ServerBinary:
    for found in server_binaries():
        if found.has_tls:
            return found
    pytest.skip("no redis-server or valkey-server with TLS on the PATH or in $FRACGPU_TEST_REDIS")


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "tls")


async def test_tls_with_a_certificate_of_our_own(
    tls_binary: ServerBinary, certificates: Certificates, tmp_path: Path
) -> None:
    port = free_port()
    async with RedisServer.running(tls_binary, tmp_path, *certificates.server_options(port)):
        async with LedgerReplica.at(f"rediss://127.0.0.1:{port}?{certificates.client_query}") as replica:
            await replica.works()
        untrusted = {
            "without our certificate": f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates.authority}",
            "without the authority": f"rediss://127.0.0.1:{port}",
            "by another name": f"rediss://localhost:{port}?{certificates.client_query}",
            "without TLS": f"redis://127.0.0.1:{port}",
        }
        for url in untrusted.values():
            async with LedgerReplica.at(url) as replica:
                assert "Redis does not answer" in await replica.complaint()


async def test_tls_to_sentinels_and_to_the_master_that_they_name(
    tls_binary: ServerBinary, certificates: Certificates, tmp_path: Path
) -> None:
    port, sentinel_port = free_port(), free_port()
    sentinel = RedisSentinel(
        tls_binary,
        tmp_path / "sentinel",
        *certificates.server_options(sentinel_port),
        *("--tls-replication", "yes"),
        master_port=port,
    )
    async with RedisServer.running(tls_binary, tmp_path, *certificates.server_options(port)):
        await sentinel.start()
        try:
            url = f"rediss+sentinel://127.0.0.1:{sentinel_port}/mymaster?{certificates.client_query}"
            async with LedgerReplica.at(url) as replica:
                await replica.works()
        finally:
            await sentinel.kill()


async def test_tls_to_a_cluster(tls_binary: ServerBinary, certificates: Certificates, tmp_path: Path) -> None:
    port = free_port()
    options = (*certificates.server_options(port), "--cluster-enabled", "yes", "--tls-cluster", "yes")
    async with RedisServer.running(tls_binary, tmp_path, *options) as node:
        await node.ask("CLUSTER", "ADDSLOTS", *range(16384))
        url = f"rediss+cluster://127.0.0.1:{port}?{certificates.client_query}"
        async with LedgerReplica.at(url) as replica:
            await eventually(lambda: replica.has_lost_its_ledger())
            await replica.works()


async def test_files_for_tls_are_looked_at_before_the_first_call(certificates: Certificates, tmp_path: Path) -> None:
    other = Certificates(tmp_path / "other")
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("secret words")
    unusable = {
        f"ssl_ca_certs={tmp_path}/none.crt": "ssl_ca_certs=.*none.crt, which cannot be read: No such file",
        f"ssl_ca_certs={no_pem}": "no PEM files",
        f"ssl_certfile={certificates.client}&ssl_keyfile={other.client}": "not of one another",
    }
    for query, want in unusable.items():
        with pytest.raises(ValueError, match=want):
            connect(f"rediss://redis?{query}")


DEAD = ["redis://{}", "rediss://{}", "redis+sentinel://{},{},{}/mymaster", "redis+cluster://{},{},{}"]


@pytest.mark.parametrize("form", DEAD)
async def test_two_calls_to_silent_hosts_fail_within_the_patience_of_the_scheduler(form: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(silent_host()) for _ in range(3)]
        replica = await stack.enter_async_context(LedgerReplica.at(form.format(*hosts)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await replica.complaint()
            await replica.complaint()


@pytest.mark.parametrize("form", DEAD)
async def test_hosts_that_refuse_are_no_crash(form: str) -> None:
    async with LedgerReplica.at(form.format("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")) as replica:
        assert "the pod is tried again" in await replica.complaint()


@contextlib.asynccontextmanager
async def silent_host() -> AsyncIterator[str]:
    """HOST:PORT of somebody who listens and says nothing."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with listener:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
