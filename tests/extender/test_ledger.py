"""The ledger on a real server: atomic, idempotent, and never valid in another Redis than the one it was written in."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from extender.ledger.claims import Claim, Entry
from extender.ledger.connecting import connect
from extender.ledger.embedded import EmbeddedRedis
from extender.ledger.ledger import AlreadyClaimedError, Ledger, LedgerLostError
from fracgpu.errors import NoRoomError, PlanError, UnavailableError
from fracgpu.names import GpuUuid, PodUid
from tests.extender.builders import claim
from tests.redisservers import server_binaries

LIMITS = {GpuUuid("GPU-a"): (80, 4), GpuUuid("GPU-b"): (80, 4)}


class Copy:
    """A reader that keeps what it is told."""

    def __init__(self) -> None:
        self.entries: dict[PodUid, Entry] = {}
        self.snapshots = 0

    def replace_claims(self, entries: Mapping[PodUid, Entry]) -> None:
        self.entries = dict(entries)
        self.snapshots += 1

    def change_claim(self, uid: PodUid, entry: Entry | None) -> None:
        self.entries.pop(uid, None)
        if entry is not None:
            self.entries[uid] = entry

    def claims(self) -> set[str]:
        return {entry.claim.name for entry in self.entries.values()}


class Replica:
    """An extender replica's ledger, with the copy that it keeps."""

    def __init__(self, url: str) -> None:
        self.copy = Copy()
        self.ledger = Ledger(connect(url), reader=self.copy)

    async def rebuild(self, *claims: Claim) -> None:
        token = await self.ledger.begin_rebuild(lifetime_seconds=30)
        assert token is not None
        assert await self.ledger.commit_rebuild(token, list(claims))
        await self.ledger.catch_up()

    async def reserve(self, wanted: Claim, *, lifetime_seconds: float = 5) -> None:
        await self.ledger.reserve(
            wanted, limits={g: LIMITS[g] for g in wanted.per_gpu()}, lifetime_seconds=lifetime_seconds
        )


@pytest.fixture(params=[binary.path for binary in server_binaries()], ids=[str(binary) for binary in server_binaries()])
def redis_binary(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
async def replica(redis: EmbeddedRedis) -> AsyncIterator[Replica]:
    found = Replica(redis.url)
    yield found
    await found.ledger.close()


async def test_an_empty_redis_holds_no_valid_ledger(replica: Replica) -> None:
    with pytest.raises(LedgerLostError):
        await replica.ledger.catch_up()
    with pytest.raises(LedgerLostError):
        await replica.reserve(claim("pod-1", state="binding"))


async def test_of_many_who_race_for_the_last_share_one_gets_it(replica: Replica) -> None:
    await replica.rebuild(claim("old", units=72))

    results = await asyncio.gather(
        *(replica.reserve(claim(f"pod-{n}", units=8, state="binding")) for n in range(20)), return_exceptions=True
    )

    assert [type(result) for result in results if result is not None] == [NoRoomError] * 19
    await replica.ledger.catch_up()
    assert len(replica.copy.entries) == 2


async def test_seats_are_counted_beside_units(replica: Replica) -> None:
    await replica.rebuild()
    limits = {GpuUuid("GPU-a"): (80, 1)}
    for n, want in enumerate([None, NoRoomError]):
        wanted = claim(f"pod-{n}", units=8, state="binding")
        share = wanted.plan.containers["main"][0]
        plan = type(wanted.plan)(wanted.plan.unit, {"main": (type(share)(share.gpu, 8, 1),)})
        wanted = Claim(wanted.uid, wanted.namespace, wanted.name, wanted.node, wanted.state, plan)
        if want is None:
            await replica.ledger.reserve(wanted, limits=limits, lifetime_seconds=5)
        else:
            with pytest.raises(want):
                await replica.ledger.reserve(wanted, limits=limits, lifetime_seconds=5)


async def test_reserving_the_same_again_prolongs_it_and_another_is_refused(replica: Replica) -> None:
    await replica.rebuild()
    await replica.reserve(claim("pod-1", units=80, state="binding"), lifetime_seconds=5)
    await replica.ledger.catch_up()
    first = replica.copy.entries[PodUid("pod-1")].deadline_ms

    await replica.reserve(claim("pod-1", units=80, state="binding"), lifetime_seconds=60)
    await replica.ledger.catch_up()
    assert replica.copy.entries[PodUid("pod-1")].deadline_ms > first

    with pytest.raises(AlreadyClaimedError) as caught:
        await replica.reserve(claim("pod-1", gpu="GPU-b", units=8, state="binding"))
    assert caught.value.entry is not None
    assert caught.value.entry.claim.plan == claim("pod-1", units=80).plan


async def test_what_is_true_is_recorded_above_the_limit_and_then_nothing_more_fits(replica: Replica) -> None:
    await replica.rebuild(claim("old", units=80))
    await replica.ledger.correct(None, claim("bypassed", units=8))
    with pytest.raises(NoRoomError, match="-8 units"):
        await replica.reserve(claim("pod-1", units=1, state="binding"))
    await replica.ledger.release(claim("old", units=80))
    await replica.reserve(claim("pod-1", units=72, state="binding"))


async def test_releasing_compares_and_forgives_repetition(replica: Replica) -> None:
    await replica.rebuild(claim("pod-1", units=80))
    with pytest.raises(AlreadyClaimedError):
        await replica.ledger.release(claim("pod-1", units=8))
    await replica.ledger.release(claim("pod-1", units=80))
    await replica.ledger.release(claim("pod-1", units=80))
    await replica.reserve(claim("pod-2", units=80, state="binding"))


async def test_replacing_moves_the_amounts_to_the_other_gpu(replica: Replica) -> None:
    await replica.rebuild(claim("pod-1", units=80))
    await replica.ledger.correct(claim("pod-1", units=80), claim("pod-1", gpu="GPU-b", units=80))
    await replica.reserve(claim("pod-2", units=80, state="binding"))
    with pytest.raises(NoRoomError):
        await replica.reserve(claim("pod-3", gpu="GPU-b", units=1, state="binding"))


async def test_another_replica_sees_every_change_in_order(redis: EmbeddedRedis, replica: Replica) -> None:
    await replica.rebuild()
    other = Replica(redis.url)
    await other.ledger.catch_up()
    await replica.reserve(claim("pod-1", state="binding"))
    await replica.reserve(claim("pod-2", state="binding"))
    await replica.ledger.release(claim("pod-1", state="binding"))
    await other.ledger.catch_up()
    assert other.copy.claims() == {"pod-2"}
    assert other.copy.snapshots == 1
    await other.ledger.close()


async def test_a_replica_that_fell_behind_the_trimmed_stream_takes_a_snapshot(
    redis: EmbeddedRedis, replica: Replica
) -> None:
    await replica.rebuild()
    other = Replica(redis.url)
    await other.ledger.catch_up()
    for n in range(10):
        await replica.reserve(claim(f"pod-{n}", state="binding", units=1))
    admin = connect(redis.url)
    await admin.xtrim("{fracgpu}:log", maxlen=2, approximate=False)
    await admin.aclose()
    await other.ledger.catch_up()
    assert other.copy.claims() == {f"pod-{n}" for n in range(10)}
    assert other.copy.snapshots == 2
    await other.ledger.close()


async def test_redis_gone_is_unavailable_and_the_restarted_one_is_not_trusted_until_rebuilt(
    redis: EmbeddedRedis, replica: Replica
) -> None:
    await replica.rebuild(claim("pod-1", units=80))
    await redis.kill()
    with pytest.raises(UnavailableError, match="Redis does not answer"):
        await replica.ledger.catch_up()
    await redis.start()
    with pytest.raises(LedgerLostError):
        await replica.reserve(claim("pod-2", gpu="GPU-b", state="binding"))
    await replica.rebuild(claim("pod-3"))
    assert replica.copy.claims() == {"pod-3"}


async def test_one_replica_rebuilds_and_the_others_wait(redis: EmbeddedRedis, replica: Replica) -> None:
    other = Replica(redis.url)
    token = await replica.ledger.begin_rebuild(lifetime_seconds=30)
    assert token is not None
    assert await other.ledger.begin_rebuild(lifetime_seconds=30) is None
    assert not await other.ledger.commit_rebuild("another-token", [])
    assert await replica.ledger.commit_rebuild(token, [])
    assert await other.ledger.begin_rebuild(lifetime_seconds=30) is None
    await other.ledger.catch_up()
    await other.ledger.close()


async def test_a_replica_that_slept_through_a_rebuild_cannot_write_before_it_has_read(
    redis: EmbeddedRedis, replica: Replica
) -> None:
    await replica.rebuild()
    sleeper = Replica(redis.url)
    await sleeper.ledger.catch_up()
    admin = connect(redis.url)
    await admin.flushall()
    await admin.aclose()
    await replica.rebuild(claim("pod-1", units=80))
    with pytest.raises(UnavailableError, match="rebuilt"):
        await sleeper.reserve(claim("pod-2", gpu="GPU-b", state="binding"))
    await sleeper.ledger.catch_up()
    assert sleeper.copy.claims() == {"pod-1"}
    await sleeper.ledger.close()


@pytest.mark.parametrize("units", [2**63, 2**31, -1])
async def test_an_impossible_amount_changes_nothing(replica: Replica, units: int) -> None:
    await replica.rebuild(claim("pod-1", units=72))
    with pytest.raises(PlanError, match="impossible amount"):
        await replica.ledger.correct(claim("pod-1", units=72), claim("pod-1", units=units))
    with pytest.raises(PlanError, match="impossible amount"):
        await replica.ledger.correct(None, claim("pod-2", units=units))
    with pytest.raises(NoRoomError, match="only 8 units"):
        await replica.reserve(claim("pod-3", units=9, state="binding"))


async def test_a_rebuild_with_an_impossible_amount_begins_no_new_life(replica: Replica) -> None:
    token = await replica.ledger.begin_rebuild(lifetime_seconds=30)
    assert token is not None
    with pytest.raises(PlanError):
        await replica.ledger.commit_rebuild(token, [claim("pod-2"), claim("pod-3", units=2**60)])
    with pytest.raises(LedgerLostError):
        await replica.ledger.catch_up()


async def test_a_rebuild_of_more_claims_than_one_call_carries_is_whole(replica: Replica) -> None:
    await replica.rebuild(*(claim(f"pod-{n}", units=1) for n in range(1200)))
    assert len(replica.copy.entries) == 1200
    with pytest.raises(NoRoomError, match="-1120 units"):
        await replica.reserve(claim("late", units=1, state="binding"))


async def hold(replica: Replica, wanted: Claim, *, lifetime_seconds: float = 60) -> bool:
    limits = {gpu: LIMITS[gpu] for gpu in wanted.per_gpu()}
    return await replica.ledger.hold(wanted, limits=limits, lifetime_seconds=lifetime_seconds)


async def test_a_hold_takes_room_from_others_until_the_pod_reserves_or_moves(replica: Replica) -> None:
    await replica.rebuild()
    assert await hold(replica, claim("pod-1", units=60, state="held"))
    with pytest.raises(NoRoomError, match="only 20 units"):
        await replica.reserve(claim("pod-2", units=30, state="binding"))
    await replica.reserve(claim("pod-1", gpu="GPU-b", units=60, state="binding"))
    await replica.reserve(claim("pod-2", units=80, state="binding"))
    with pytest.raises(NoRoomError):
        await hold(replica, claim("pod-3", gpu="GPU-b", units=30, state="held"))


async def test_a_hold_is_refused_where_the_caller_chose_on_an_old_picture(
    redis: EmbeddedRedis, replica: Replica
) -> None:
    await replica.rebuild()
    other = Replica(redis.url)
    await other.ledger.catch_up()
    await other.reserve(claim("pod-1", units=8, state="binding"))

    assert not await hold(replica, claim("pod-2", units=8, state="held"))
    assert replica.copy.claims() == {"pod-1"}  # the refusal brought what had changed
    assert await hold(replica, claim("pod-2", units=8, state="held"))
    await other.ledger.close()


async def test_a_hold_ends_by_itself_for_every_replica(redis: EmbeddedRedis, replica: Replica) -> None:
    await replica.rebuild()
    other = Replica(redis.url)
    await other.ledger.catch_up()
    assert await hold(replica, claim("pod-1", units=80, state="held"), lifetime_seconds=0.05)
    deadline = replica.copy.entries[PodUid("pod-1")].deadline_ms
    while other.ledger.now_ms < deadline:  # by Redis' own clock
        await other.ledger.catch_up()

    assert other.copy.claims() == set()
    await other.reserve(claim("pod-2", units=80, state="binding"))
    await replica.ledger.catch_up()
    assert replica.copy.claims() == {"pod-2"}
    await other.ledger.close()


async def test_a_pod_with_a_reservation_gets_no_hold(replica: Replica) -> None:
    await replica.rebuild()
    await replica.reserve(claim("pod-1", state="binding"))
    with pytest.raises(AlreadyClaimedError):
        await hold(replica, claim("pod-1", gpu="GPU-b", state="held"))


async def test_confirming_again_is_no_error_and_confirming_another_plan_is(replica: Replica) -> None:
    await replica.rebuild()
    await replica.reserve(claim("pod-1", state="binding"))
    await replica.ledger.confirm(claim("pod-1", state="binding"))
    await replica.ledger.confirm(claim("pod-1", state="binding"))
    assert replica.copy.entries[PodUid("pod-1")] == Entry(claim("pod-1"), 0)
    with pytest.raises(AlreadyClaimedError):
        await replica.ledger.confirm(claim("pod-1", gpu="GPU-b", state="binding"))


async def test_operations_in_parallel_tell_every_change_once_and_in_order(
    redis: EmbeddedRedis, replica: Replica
) -> None:
    await replica.rebuild()
    await asyncio.gather(*(replica.reserve(claim(f"pod-{n}", units=1, state="binding")) for n in range(40)))
    await asyncio.gather(*(replica.ledger.confirm(claim(f"pod-{n}", units=1, state="binding")) for n in range(40)))
    await asyncio.gather(*(replica.ledger.release(claim(f"pod-{n}", units=1)) for n in range(0, 40, 2)))
    fresh = Replica(redis.url)
    await fresh.ledger.catch_up()
    assert replica.copy.entries == fresh.copy.entries
    assert len(fresh.copy.entries) == 20
    await fresh.ledger.close()
