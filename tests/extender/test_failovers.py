"""The ledger when its Redis changes hands: replicas, Sentinels and a Cluster, as real processes."""

import contextlib
from pathlib import Path

import pytest

from extender.ledger.ledger import LedgerLostError
from fracgpu.errors import UnavailableError
from tests.extender.builders import claim
from tests.extender.ledgers import LedgerReplica
from tests.redisservers import RedisCluster, RedisSentinel, RedisServer, ServerBinary, eventually


async def test_a_replica_cannot_be_made_the_ledger(server: RedisServer, binary: ServerBinary, tmp_path: Path) -> None:
    async with RedisServer.running(binary, tmp_path / "replica") as follower:
        await follower.follow(server)
        async with LedgerReplica.at(f"redis://{follower.endpoint}") as replica:
            with pytest.raises(LedgerLostError):
                await replica.ledger.catch_up()
            with pytest.raises(UnavailableError, match="read-only replica"):
                await replica.ledger.begin_rebuild(lifetime_seconds=30)


async def test_a_master_that_was_a_replica_meanwhile_has_lost_its_ledger(
    server: RedisServer, binary: ServerBinary, tmp_path: Path
) -> None:
    async with (
        RedisServer.running(binary, tmp_path / "replica") as follower,
        LedgerReplica.at(f"redis://{server.endpoint}") as replica,
    ):
        await follower.follow(server)
        await replica.rebuild()
        await eventually(lambda: has_all_of(follower, server))
        # A failover there and back, at once: the reservation in between is known to no server afterwards.
        await follower.ask("REPLICAOF", "NO", "ONE")
        await replica.reserve("pod-1")
        await server.follow(follower)
        with pytest.raises(LedgerLostError):
            await replica.ledger.catch_up()
        await server.ask("REPLICAOF", "NO", "ONE")
        assert (await server.ask("GET", "{fracgpu}:epoch")).startswith((await server.ask("INFO", "server"))["run_id"])
        with pytest.raises(LedgerLostError):
            await replica.ledger.catch_up()


async def has_all_of(follower: RedisServer, master: RedisServer) -> bool:
    offsets = [(await each.ask("INFO", "replication"))["master_repl_offset"] for each in (follower, master)]
    return bool(offsets[0] == offsets[1])


async def test_after_a_failover_the_ledger_of_the_new_master_is_not_trusted_until_rebuilt(
    server: RedisServer, binary: ServerBinary, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        follower = await stack.enter_async_context(RedisServer.running(binary, tmp_path / "replica"))
        await follower.follow(server)
        sentinel = RedisSentinel(binary, tmp_path / "sentinel", master_port=server.port)
        stack.push_async_callback(sentinel.kill)
        await sentinel.start()
        await eventually(sentinel.knows_a_replica)
        # The first of the Sentinels is down: the other one is asked.
        url = f"redis+sentinel://127.0.0.1:1,{sentinel.endpoint}/mymaster"
        first = await stack.enter_async_context(LedgerReplica.at(url))
        second = await stack.enter_async_context(LedgerReplica.at(url))
        await first.rebuild()
        await first.reserve("pod-1")
        await second.ledger.catch_up()
        # A write that the replica does not get: as if it had lagged behind.
        await follower.ask("REPLICAOF", "127.0.0.1", 1)
        await first.reserve("pod-2")
        await server.kill()

        await eventually(first.has_lost_its_ledger)
        with pytest.raises(LedgerLostError):
            await first.reserve("pod-3")
        with pytest.raises(UnavailableError):
            await second.reserve("pod-3")

        await first.rebuild(claim("pod-1"), claim("pod-2"))
        await second.ledger.catch_up()
        await second.reserve("pod-3")
        await first.ledger.catch_up()
        assert set(first.claims.entries) == {"pod-1", "pod-2", "pod-3"}


async def test_a_planned_failover_is_followed_though_the_old_master_lives(
    server: RedisServer, binary: ServerBinary, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        follower = await stack.enter_async_context(RedisServer.running(binary, tmp_path / "replica"))
        await follower.follow(server)
        sentinel = RedisSentinel(binary, tmp_path / "sentinel", master_port=server.port)
        stack.push_async_callback(sentinel.kill)
        await sentinel.start()
        if str(binary).startswith("redis-6"):
            pytest.skip("a Sentinel 6.2 takes 10 s to notice that the replica has become the master")
        await sentinel.ask("SENTINEL", "DEBUG", "INFO-PERIOD", 100)
        await eventually(sentinel.knows_a_replica)

        async def failover_begins() -> bool:
            return bool(await sentinel.ask("SENTINEL", "FAILOVER", "mymaster") == "OK")

        replica = await stack.enter_async_context(LedgerReplica.at(f"redis+sentinel://{sentinel.endpoint}/mymaster"))
        await replica.works()
        await eventually(failover_begins)
        await eventually(replica.has_lost_its_ledger)
        assert (await server.ask("INFO", "replication"))["role"] == "master"  # it would still take our writes
        await replica.works()
        assert await follower.ask("EXISTS", "{fracgpu}:epoch") == 1


SENTINELS = {
    "unknown master": ("redis+sentinel://{sentinel}/other", "names a healthy master by the name"),
    "a server for a Sentinel": ("redis+sentinel://{server}/mymaster", "a host of the URL is no Sentinel"),
    "a password that the Sentinel does not want": (
        "redis+sentinel://{sentinel}/mymaster?sentinel_username=me&sentinel_password=wrong",
        "another sentinel_username or sentinel_password",
    ),
}


@pytest.mark.parametrize("case", SENTINELS.values(), ids=SENTINELS)
async def test_what_is_wrong_with_sentinels_is_told(
    server: RedisServer, binary: ServerBinary, tmp_path: Path, case: tuple[str, str]
) -> None:
    url, want = case
    sentinel = RedisSentinel(binary, tmp_path / "sentinel", master_port=server.port)
    await sentinel.start()
    try:
        async with LedgerReplica.at(url.format(sentinel=sentinel.endpoint, server=server.endpoint)) as replica:
            complaint = await replica.complaint()
            assert want in complaint
            assert "wrong" not in complaint
    finally:
        await sentinel.kill()


async def test_a_cluster_keeps_the_ledger_through_the_failover_of_its_slot(
    binary: ServerBinary, tmp_path: Path
) -> None:
    cluster = RedisCluster(binary, tmp_path, key="{fracgpu}:epoch")
    try:
        await cluster.start()
        master = await cluster.serving_master()
        # By nodes that do not serve the slot.
        entries = [node.endpoint for node in cluster.masters if node is not master]
        url = f"redis+cluster://{','.join(entries)}"
        async with LedgerReplica.at(url) as replica, LedgerReplica.at(f"redis://{entries[0]}") as mistaken:
            await replica.works()
            assert await master.ask("EXISTS", "{fracgpu}:epoch") == 1
            assert "the URL has to begin with redis+cluster://" in await mistaken.complaint()
            await master.kill()
            await eventually(replica.has_lost_its_ledger)
            await replica.works()
            assert await cluster.replica.ask("EXISTS", "{fracgpu}:epoch") == 1
    finally:
        await cluster.kill()
