"""How a life of the ledger ends and the next one begins: who may rebuild, what counts, and what clocks may do to it."""

from collections.abc import AsyncIterator

import pytest

from extender.ledger.ledger import KEYS, LedgerLostError
from fracgpu.errors import NoRoomError, UnavailableError
from tests.extender.builders import claim
from tests.extender.ledgers import LIMITS, LedgerReplica
from tests.redisservers import RedisServer

EPOCH, CLAIMS, USED, LOG, SEQ, HOLDS, REBUILD = KEYS
HOUR_MS = 3_600_000


@pytest.fixture
async def replicas(server: RedisServer) -> AsyncIterator[tuple[LedgerReplica, LedgerReplica]]:
    url = f"redis://{server.endpoint}"
    async with LedgerReplica.at(url) as first, LedgerReplica.at(url) as second:
        yield first, second


async def begun(replica: LedgerReplica, *, lifetime_seconds: float = 30) -> str:
    token = await replica.ledger.begin_rebuild(lifetime_seconds=lifetime_seconds)
    assert token is not None
    return token


async def test_a_second_begin_waits_even_of_the_same_replica(replicas: tuple[LedgerReplica, LedgerReplica]) -> None:
    first, second = replicas
    token = await begun(first)
    assert await first.ledger.begin_rebuild(lifetime_seconds=30) is None
    assert await second.ledger.begin_rebuild(lifetime_seconds=30) is None
    assert await first.ledger.commit_rebuild(token, [])


async def test_who_takes_too_long_is_succeeded_and_adds_nothing_any_more(
    replicas: tuple[LedgerReplica, LedgerReplica],
) -> None:
    first, second = replicas
    late = await begun(first, lifetime_seconds=0)
    token = await begun(second)
    assert not await first.ledger.commit_rebuild(late, [claim("of-yesterday")])
    with pytest.raises(LedgerLostError):
        await first.ledger.catch_up()
    assert await second.ledger.commit_rebuild(token, [claim("of-today")])
    assert not await first.ledger.commit_rebuild(late, [claim("of-yesterday")])
    await first.ledger.catch_up()
    assert set(first.claims.entries) == {"of-today"}


async def test_what_the_late_one_wrote_is_forgotten_by_its_successor(
    server: RedisServer, replicas: tuple[LedgerReplica, LedgerReplica]
) -> None:
    first, second = replicas
    late = await begun(first, lifetime_seconds=0)
    # As it would be left by one that died before its last call: the claims are written, and their life has not begun.
    assert await first.ledger.commit_rebuild(late, [claim("of-yesterday", units=80)])
    await server.ask("DEL", EPOCH)
    await second.rebuild(claim("of-today"))
    assert set(second.claims.entries) == {"of-today"}
    assert await server.ask("HGETALL", USED) == {"node-1/GPU-a#u": "8"}


async def test_a_rebuild_that_the_clock_has_left_in_the_future_blocks_nobody(
    server: RedisServer, replicas: tuple[LedgerReplica, LedgerReplica]
) -> None:
    first, second = replicas
    token = await begun(first)
    # The server's clock jumps back by an hour: to it, the deadline is now an hour further ahead.
    life, _, rest = (await server.ask("GET", REBUILD)).partition(":")
    deadline_ms, _, written = rest.partition("|")
    assert written == token
    await server.ask("SET", REBUILD, f"{life}:{int(deadline_ms) + HOUR_MS}|{token}")
    assert await second.ledger.commit_rebuild(await begun(second), [])
    assert not await first.ledger.commit_rebuild(token, [claim("pod-1")])


async def test_a_rebuild_ends_with_the_life_of_its_server(
    server: RedisServer, replicas: tuple[LedgerReplica, LedgerReplica]
) -> None:
    first, second = replicas
    token = await begun(first)
    await promote(server)
    assert not await first.ledger.commit_rebuild(token, [claim("pod-1")])
    assert await second.ledger.commit_rebuild(await begun(second), [])


async def promote(server: RedisServer) -> None:
    """Make the server a replica of one that never answers, and a master again: all of its data is still there."""
    await server.ask("REPLICAOF", "127.0.0.1", 1)
    await server.ask("REPLICAOF", "NO", "ONE")


async def test_a_master_that_has_been_a_replica_has_lost_the_ledger_though_it_has_it(
    server: RedisServer, replicas: tuple[LedgerReplica, LedgerReplica]
) -> None:
    first, second = replicas
    await first.works()
    await server.ask("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(LedgerLostError):
        await first.ledger.catch_up()
    await server.ask("REPLICAOF", "NO", "ONE")
    with pytest.raises(LedgerLostError):
        await first.ledger.catch_up()
    with pytest.raises(LedgerLostError):
        await second.reserve("pod-2")
    assert await server.ask("HLEN", CLAIMS) == 1
    await second.rebuild(claim("pod-1"))
    await second.reserve("pod-2")


async def test_a_part_of_a_rebuild_that_is_written_twice_counts_once(
    server: RedisServer, replicas: tuple[LedgerReplica, LedgerReplica]
) -> None:
    first, _ = replicas
    # More than one call of a rebuild carries, so that what was written is written again, and in the end otherwise.
    await first.rebuild(*[claim("pod-1", units=80)] * 501, *[claim("pod-1", gpu="GPU-b", units=8)] * 500)
    assert await server.ask("HGETALL", USED) == {"node-1/GPU-b#u": "8"}
    assert set(first.claims.entries) == {"pod-1"}


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
async def test_no_life_begins_in_a_redis_that_may_throw_half_of_it_away(
    server: RedisServer, replicas: tuple[LedgerReplica, LedgerReplica], policy: str
) -> None:
    first, _ = replicas
    await server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    with pytest.raises(UnavailableError, match=f"{policy}.*noeviction"):
        await first.ledger.begin_rebuild(lifetime_seconds=30)
    await server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")  # nothing of ours is volatile
    await first.works()


async def test_a_hold_that_the_clock_has_left_in_the_future_ends(
    replicas: tuple[LedgerReplica, LedgerReplica],
) -> None:
    first, second = replicas
    await first.rebuild(claim("old", units=72))
    await second.ledger.catch_up()
    # As if it had been made for a few seconds, and the server's clock had jumped back by an hour since.
    assert await first.ledger.hold(claim("pod-1", units=8, state="held"), limits=LIMITS, lifetime_seconds=3600)
    await second.reserve("pod-2")
    with pytest.raises(NoRoomError):
        await second.reserve("pod-3")
    await first.ledger.catch_up()
    assert set(first.claims.entries) == {"old", "pod-2"}
