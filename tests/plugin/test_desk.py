"""The desk with the outside world as plain values: lagging watches, a silent kubelet, unreadable cgroups."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from fracgpu.errors import DeviceIdError, NoRoomError, UnavailableError
from fracgpu.gpunodes import GpuNodeSpec, Grant
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid, PodUid
from fracgpu.plans import Share
from fracgpu.pods import Pod
from fracgpu.quantities import Mib
from plugin.granting.admission import AdmissionError
from plugin.granting.book import DeviceIds, GrantBook
from plugin.granting.desk import Desk
from plugin.granting.listing import ListedPod, Listing
from plugin.handout import Edits, LentShare
from plugin.wishes import GpuWish
from tests.plugin.builders import A, B, listed, make_inventory, make_pod, make_spec, seat_share, seats, units

ONE = make_pod("one", {"main": [Share(B, 8)]}, created="2026-11-21T00:00:01Z")
TWO = make_pod("two", {"main": [Share(A, 8)]}, created="2026-11-21T00:00:02Z")
ALL = units(A, 80) + units(B, 80)


@dataclass
class World:
    """What the plugin can see, as a test sets it; the ports of the desk in memory."""

    pods: list[Pod] = field(default_factory=list)
    spec: GpuNodeSpec = field(default_factory=make_spec)
    unseen: list[Pod] | None = None  # what a read finds, where the watch is behind
    is_api_down: bool = False
    listing: list[ListedPod] | None = field(default_factory=list)  # None: PodResources does not answer
    running: set[PodUid] | None = field(default_factory=set)  # pods with processes; None: cgroups cannot be read
    reads: int = 0
    is_disk_full: bool = False
    written: tuple[Grant, ...] = ()  # the journal
    divided: GpuNodeSpec | None = None  # its spec
    is_gpu_crowded: bool = False  # whatever makes containers see their GPUs refuses
    neighbours: dict[GpuUuid, int] = field(default_factory=dict)  # as it was last told
    changes: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.inventory = make_inventory(self.spec)
        self.book = GrantBook(self.inventory.gpus)
        self.desk = Desk(
            self.inventory,
            self.book,
            pods=self,
            devices=self,
            processes=self,
            journal=self,
            handout=self,
            on_change=self.note_change,
        )

    def note_change(self) -> None:
        self.changes += 1
        self.changed.set()

    def alive(self) -> dict[PodUid, Pod]:
        return {pod.uid: pod for pod in self.pods}

    async def refresh(self) -> bool:
        self.reads += 1
        if self.is_api_down:
            return False
        if self.unseen is not None:
            self.pods, self.unseen = self.unseen, None
        return True

    async def list(self) -> Listing:
        if self.listing is None:
            raise UnavailableError("no answer")
        return tuple(self.listing)

    def has_processes(self, uid: PodUid) -> bool:
        if self.running is None:
            raise UnavailableError("no kubepods")
        return uid in self.running

    def write(self, spec: GpuNodeSpec, grants: tuple[Grant, ...], *, ids: DeviceIds) -> None:
        if self.is_disk_full:
            raise UnavailableError("no space left on device")
        self.divided, self.written = spec, grants

    def edits(self, shares: Sequence[LentShare], *, neighbours: Mapping[GpuUuid, int]) -> Edits:
        if self.is_gpu_crowded:
            raise NoRoomError("too many clients")
        self.neighbours = dict(neighbours)
        return Edits({"SHARES": ",".join(f"{share.card.uuid}={share.memory}" for share in shares)})

    async def admit(self, resource: str, size: int, available: Sequence[str]) -> tuple[str, ...]:
        """Both calls of the kubelet, in order; returns the devices."""
        ids = await self.desk.prefer(resource, available=available, must_include=[], size=size)
        await self.desk.allocate(resource, ids)
        return ids


async def test_the_watch_lags_behind_the_kubelet_and_one_read_catches_up() -> None:
    world = World(unseen=[ONE], listing=[listed("one", {"main": []})])
    assert await world.admit(RESOURCE_MEMORY, 8, ALL) == tuple(units(B, 8))
    assert world.reads == 1
    assert [grant.pod_uid for grant in world.book.grants()] == [ONE.uid]


async def test_without_lag_nothing_is_read() -> None:
    world = World(pods=[ONE], listing=[listed("one", {"main": []})])
    await world.admit(RESOURCE_MEMORY, 8, ALL)
    assert (world.reads, world.changes) == (0, 1)


async def test_a_pod_that_ended_before_its_admission_is_refused() -> None:
    world = World(pods=[ONE], listing=[listed("one", {"main": []})])
    ids = await world.desk.prefer(RESOURCE_MEMORY, available=ALL, must_include=[], size=8)
    world.pods.clear()  # the watch sees its deletion between the two calls
    with pytest.raises(AdmissionError, match="was deleted already"):
        await world.desk.allocate(RESOURCE_MEMORY, ids)
    assert world.book.grants() == ()


async def test_podresources_down_the_pod_is_guessed_by_size_then_age() -> None:
    world = World(pods=[TWO, ONE], listing=None)
    assert await world.admit(RESOURCE_MEMORY, 8, ALL) == tuple(units(B, 8)), "the older one"
    assert await world.admit(RESOURCE_MEMORY, 8, ALL) == tuple(units(A, 8)), "then the one without a grant"
    with pytest.raises(AdmissionError):
        await world.desk.allocate(RESOURCE_MEMORY, units(A, 8, start=8))


async def test_two_containers_on_two_gpus_in_two_calls() -> None:
    pod = make_pod("pair", {"left": [Share(A, 4)], "right": [Share(B, 4)]})
    world = World(pods=[pod], listing=[listed("pair", {"left": [], "right": []})])
    assert await world.admit(RESOURCE_MEMORY, 4, ALL) == tuple(units(A, 4))
    world.listing = [listed("pair", {"left": units(A, 4), "right": []})]
    assert await world.admit(RESOURCE_MEMORY, 4, ALL) == tuple(units(B, 4))
    assert world.book.grants()[0].containers == {"left": (Share(A, 4),), "right": (Share(B, 4),)}


async def test_a_container_on_two_gpus() -> None:
    pod = make_pod("wide", {"main": [Share(B, 4), Share(A, 4)]})
    world = World(pods=[pod], listing=[listed("wide", {"main": []})])
    ids = await world.desk.prefer(RESOURCE_MEMORY, available=ALL, must_include=[], size=8)
    edits = await world.desk.allocate(RESOURCE_MEMORY, ids)
    assert edits.env == {"SHARES": f"{A}=2048,{B}=2048"}, "in the node's order"


async def test_units_and_seats_share_one_gpu_up_to_its_memory() -> None:
    seated = make_pod("seated", {"main": [seat_share(A, 2)]})
    small, large = (make_pod(f"m{count}", {"main": [Share(A, count)]}) for count in (40, 41))
    world = World(pods=[seated], listing=[listed("seated", {"main": []})])
    await world.admit(RESOURCE_REPLICA, 2, seats(A, 4) + seats(B, 4))
    world.pods.append(large)
    world.listing = [listed("seated", {"main": seats(A, 2)}), listed("m41", {"main": []})]
    with pytest.raises(NoRoomError, match="has 40 of 80 units free, and container 'main' of pod team-a/m41 needs 41"):
        await world.admit(RESOURCE_MEMORY, 41, ALL)
    world.pods = [seated, small]
    world.listing = [listed("seated", {"main": seats(A, 2)}), listed("m40", {"main": []})]
    await world.admit(RESOURCE_MEMORY, 40, ALL)
    assert world.book.used(A) == Share(A, 80, 2)


async def test_a_pod_that_bypassed_the_extender_gets_the_best_fit_of_what_is_really_free() -> None:
    ending = make_pod("ending", {"main": [Share(B, 76)]})
    asking = make_pod("bypass", {"main": [Share(A, 8)]}, has_plan=False)
    world = World(pods=[ending], listing=[listed("ending", {"main": []})])
    await world.admit(RESOURCE_MEMORY, 76, ALL)
    world.pods, world.running = [asking], {ending.uid}
    world.listing = [listed("bypass", {"main": []})]
    assert await world.admit(RESOURCE_MEMORY, 8, ALL) == tuple(units(A, 8)), "B's IDs are free, its memory is not"


async def test_a_refused_pod_that_is_still_listed_does_not_hide_the_next() -> None:
    world = World(pods=[ONE], listing=[listed("one", {"main": []})])
    with pytest.raises(AdmissionError):
        await world.desk.allocate(RESOURCE_MEMORY, units(A, 8))  # off its plan
    later = make_pod("later", {"main": [Share(A, 8)]}, created="2026-11-21T00:00:09Z")
    world.pods.append(later)
    world.listing = [listed("one", {"main": []}), listed("later", {"main": []})]
    assert await world.admit(RESOURCE_MEMORY, 8, ALL) == tuple(units(A, 8))


@pytest.mark.parametrize("running", [{PodUid("uid-one")}, None], ids=["its process lives", "cgroups unreadable"])
async def test_memory_of_an_ended_pod_is_taken_until_its_processes_are_known_to_have_ended(
    running: set[PodUid] | None,
) -> None:
    big, next_one = (make_pod(name, {"main": [Share(B, 78)]}) for name in ("one", "next"))
    world = World(pods=[big], listing=[listed("one", {"main": []})])
    await world.admit(RESOURCE_MEMORY, 78, ALL)
    world.pods, world.listing, world.running = [next_one], [listed("next", {"main": []})], running
    with pytest.raises(
        NoRoomError, match="pod team-a/one was deleted or has ended, but its processes have not been seen to end yet"
    ):
        await world.admit(RESOURCE_MEMORY, 78, ALL)
    world.running = set()
    await world.admit(RESOURCE_MEMORY, 78, ALL)
    assert [grant.pod_uid for grant in world.book.grants()] == [next_one.uid]


async def test_devices_that_an_ended_pods_process_still_has_are_not_given_while_others_are_free() -> None:
    small, next_one = make_pod("one", {"main": [Share(B, 2)]}), make_pod("next", {"main": [Share(B, 8)]})
    world = World(pods=[small], listing=[listed("one", {"main": []})])
    lingering = set(await world.admit(RESOURCE_MEMORY, 2, ALL))
    # The kubelet dropped the force-deleted pod, and offers its devices again.
    world.pods, world.listing, world.running = [small, next_one], [listed("next", {"main": []})], {small.uid}
    assert not lingering & set(await world.admit(RESOURCE_MEMORY, 8, ALL))  # before the watch has told of the end


async def test_an_ended_pod_is_looked_at_until_its_grant_is_dropped() -> None:
    world = World(pods=[ONE], listing=[listed("one", {"main": []})])
    await world.admit(RESOURCE_MEMORY, 8, ALL)
    world.changed.clear()
    looking = asyncio.create_task(world.desk.run())
    world.pods, world.listing, world.running = [], [], {ONE.uid}
    world.desk.wake()
    async with asyncio.timeout(5):
        await world.changed.wait()  # that the pod's end was seen is news
        assert len(world.book.grants()) == 1
        world.changed.clear()
        world.running = set()
        await world.changed.wait()
    assert world.book.grants() == ()
    looking.cancel()


async def test_a_grant_is_written_down_before_it_is_given_and_as_long_as_it_lasts() -> None:
    world = World(pods=[ONE], listing=[listed("one", {"main": []})])
    await world.admit(RESOURCE_MEMORY, 8, ALL)
    assert [grant.pod_uid for grant in world.written] == [ONE.uid]
    world.pods, world.listing = [], []
    world.changed.clear()
    looking = asyncio.create_task(world.desk.run())
    world.desk.wake()
    async with asyncio.timeout(5):
        while world.book.grants():
            await world.changed.wait()
            world.changed.clear()
    assert world.written == ()
    looking.cancel()


async def test_what_cannot_be_written_down_is_not_given() -> None:
    world = World(pods=[ONE], listing=[listed("one", {"main": []})], is_disk_full=True)
    with pytest.raises(UnavailableError, match="no space left"):
        await world.admit(RESOURCE_MEMORY, 8, ALL)
    assert world.book.grants() == ()
    assert world.book.used(B) == Share(B, 0)
    assert world.changes == 0
    world.is_disk_full = False
    await world.admit(RESOURCE_MEMORY, 8, ALL)
    world.is_disk_full = True
    with pytest.raises(UnavailableError):
        await world.admit(RESOURCE_MEMORY, 8, units(B, 80)[40:])
    assert world.book.used(B) == Share(B, 8), "what it had before stays"


async def test_a_journal_that_says_too_much_is_no_reason_to_stop() -> None:
    world = World(pods=[ONE], listing=[listed("one", {"main": []})])
    await world.admit(RESOURCE_MEMORY, 8, ALL)
    world.pods, world.listing, world.is_disk_full = [], [], True
    await world.desk.reconcile()
    world.desk.keep()
    assert (world.book.grants(), len(world.written)) == ((), 1)
    world.is_disk_full = False
    world.desk.keep()
    assert world.written == ()


async def test_a_foreign_device_in_the_listing_is_an_answer_and_no_crash() -> None:
    world = World(pods=[ONE], listing=[listed("stranger", {"main": ["GPU-a-17"]}), listed("one", {"main": []})])
    with pytest.raises(DeviceIdError, match="not one of fracgpu's"):
        await world.admit(RESOURCE_MEMORY, 8, ALL)


async def test_a_namesake_that_the_watch_has_not_told_of_is_not_taken_for_the_pod_before() -> None:
    old, new = (make_pod("db-0", {"main": [Share(B, 78)]}, uid=uid) for uid in ("old", "new"))
    world = World(pods=[old], listing=[listed("db-0", {"main": []})])
    await world.admit(RESOURCE_MEMORY, 78, ALL)
    world.running = {old.uid}  # force-deleted: the kubelet has dropped it, its process lives
    world.unseen = [new]
    with pytest.raises(
        NoRoomError, match="pod team-a/db-0 was deleted or has ended, but its processes have not been seen to end yet"
    ):
        await world.admit(RESOURCE_MEMORY, 78, ALL)
    assert [grant.pod_uid for grant in world.book.grants()] == [old.uid]


async def test_a_kubelet_that_lost_its_checkpoint_may_ask_again_if_the_pod_is_the_same() -> None:
    world = World(pods=[ONE], listing=[listed("one", {"main": []})])
    await world.admit(RESOURCE_MEMORY, 8, ALL)
    await world.admit(RESOURCE_MEMORY, 8, units(B, 80, start=0)[40:])
    assert world.reads == 1
    assert world.book.used(B) == Share(B, 8)
    world.is_api_down = True
    with pytest.raises(AdmissionError, match="has been given its devices before"):
        await world.admit(RESOURCE_MEMORY, 8, ALL)


async def test_a_container_that_cannot_be_kept_within_its_share_is_given_nothing() -> None:
    world = World(pods=[ONE], listing=[listed("one", {"main": []})], is_gpu_crowded=True)
    with pytest.raises(NoRoomError, match="too many clients"):
        await world.admit(RESOURCE_MEMORY, 8, ALL)
    assert (world.book.grants(), world.written) == ((), ())
    world.is_gpu_crowded = False
    await world.admit(RESOURCE_MEMORY, 8, ALL)
    assert world.neighbours == {B: 0}
    world.pods.append(TWO)
    world.pods.append(make_pod("three", {"main": [Share(B, 4)]}))
    world.listing = [listed("one", {"main": units(B, 8)}), listed("three", {"main": []})]
    await world.admit(RESOURCE_MEMORY, 4, ALL)
    assert world.neighbours == {B: 1}


async def test_another_division_waits_for_grants_and_for_plans() -> None:
    planned = make_pod("planned", {"main": [Share(A, 8)]})
    world = World(pods=[ONE, planned], listing=[listed("one", {"main": []})])
    await world.admit(RESOURCE_MEMORY, 8, ALL)
    world.listing = [listed("one", {"main": units(B, 8)})]
    world.inventory.wish({A: GpuWish(2, Mib(0)), B: GpuWish(2, Mib(0))})
    await world.desk.reconcile()
    assert [(gpu.replicas, gpu.pending and gpu.pending.replicas) for gpu in world.inventory.spec.gpus] == [(4, 2)] * 2
    world.pods.remove(planned)  # it never started
    await world.desk.reconcile()
    assert (world.inventory.gpus[A].replicas, world.inventory.gpus[A].pending) == (2, None)
    assert world.inventory.spec.gpus[1].replicas == 4
    assert world.divided == world.inventory.spec, "the journal is of the new division before anything is granted in it"
    world.pods, world.listing = [], None
    await world.desk.reconcile()
    assert world.inventory.spec.gpus[1].replicas == 4, "without the kubelet nobody knows what is held"
    world.listing = []
    await world.desk.reconcile()
    assert world.inventory.spec.gpus[1].replicas == 2


async def test_a_gpu_that_falls_ill_is_not_handed_out_and_says_why() -> None:
    world = World(pods=[ONE], listing=[listed("one", {"main": []})])
    world.inventory.report({B: "it has fallen off the bus"})
    with pytest.raises(AdmissionError, match="unhealthy: it has fallen off the bus"):
        await world.desk.allocate(RESOURCE_MEMORY, units(B, 8))
    world.inventory.report({})
    await world.admit(RESOURCE_MEMORY, 8, ALL)
