"""Where a request of the kubelet meets what is known: who is asking, what may it have, and is it really free.

Invariants: one look at the kubelet at a time, so that a listing is never older than the last record; and from the
moment a decision reads the pods to the moment it is recorded nothing else runs (no ``await``), so that whoever reads
the pods' state and then the grants sees every grant that was decided on an older state. `reconcile` runs before
each decision: a share that has just become free is free, and the user is refused only what is taken now.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from fracgpu.device_ids import count_by_gpu
from fracgpu.errors import FracgpuError, UnavailableError
from fracgpu.gpunodes import GpuNodeSpec, Grant
from fracgpu.names import GpuUuid, PodUid
from fracgpu.pods import Pod
from fracgpu.quantities import Mib
from fracgpu.trouble import TroubleLog
from plugin.gpus.inventory import Inventory
from plugin.gpus.layout import shares_of
from plugin.granting.admission import (
    AdmissionError,
    Claim,
    claims_of,
    fits,
    under_admission,
    ungranted_claims,
    waiting_claims,
)
from plugin.granting.allocation import check_claim, check_devices, lingering, room
from plugin.granting.book import DeviceIds, GrantBook
from plugin.granting.corrections import Correction, Observer, Unobserved
from plugin.granting.deciding import deciding
from plugin.granting.listing import Listing
from plugin.granting.steering import best_fit, planned_ids
from plugin.handout import Edits, LentShare

_ENDING_SECONDS: Final = 1.0  # between two looks while an ended pod still holds something: its memory is waited for
_IDLE_SECONDS: Final = 30.0  # between two looks otherwise, against what was missed

_UNOBSERVED: Final = Unobserved()
_logger = logging.getLogger(__name__)


class NodePods(Protocol):
    """The pods of this node (see `plugin.cluster.podwatch`)."""

    def alive(self) -> dict[PodUid, Pod]:
        """UID -> pod that has not ended, as new as known."""
        ...

    async def refresh(self) -> bool:
        """Read them again, within a second; whether that worked."""
        ...


class PodDevices(Protocol):
    """The kubelet's PodResources (see `plugin.kubelet.podresources`)."""

    async def list(self) -> Listing:
        """What each pod holds, within a second; or an UnavailableError."""
        ...


class PodProcesses(Protocol):
    """The pods' processes (see `plugin.kubelet.cgroups`)."""

    def has_processes(self, uid: PodUid) -> bool:
        """Whether a pod has any; or an UnavailableError."""
        ...


class Journal(Protocol):
    """The grants on this node's disk (see `plugin.granting.journal`)."""

    def write(self, spec: GpuNodeSpec, grants: tuple[Grant, ...], *, ids: DeviceIds) -> None:
        """Write down what is granted, all of it, and by which division; or an UnavailableError."""
        ...


class Handout(Protocol):
    """What makes a container see its GPUs, and keeps it within its share (see `plugin.injection`, `.isolation`)."""

    def edits(self, shares: Sequence[LentShare], *, neighbours: Mapping[GpuUuid, int]) -> Edits:
        """What is to be changed of a container; or a FracgpuError, and it is given nothing.

        `neighbours` maps GPU -> other containers on it.
        """
        ...


class Desk:
    """Answers the kubelet's questions for one node.

    Args:
        inventory: the node's GPUs.
        book: the grants known so far.
        pods: the node's pods.
        devices: what the kubelet has given away.
        processes: whether a pod's processes still run.
        journal: where a grant is written down before it is given.
        handout: what a container is given along with its shares.
        on_change: called when the grants or the inventory have changed, or a pod's end has been looked into.
        observer: is told of what is worth counting.
    """

    def __init__(
        self,
        inventory: Inventory,
        book: GrantBook,
        *,
        pods: NodePods,
        devices: PodDevices,
        processes: PodProcesses,
        journal: Journal,
        handout: Handout,
        on_change: Callable[[], None],
        observer: Observer = _UNOBSERVED,
    ) -> None:
        self._inventory = inventory
        self._gpus = inventory.gpus
        self._handout = handout
        self._book = book
        self._pods = pods
        self._devices = devices
        self._processes = processes
        self._journal = journal
        self._on_change = on_change
        self._observer = observer
        self._refused: set[PodUid] = set()  # pods refused that have not ended yet
        self._confirmed: PodUid | None = None  # the pod that the last `prefer` found in a consistent read
        self._looking = asyncio.Lock()  # guards the time between asking PodResources and using its answer
        self._wake = asyncio.Event()
        self._devices_trouble = TroubleLog(_logger, subject="PodResources", clock=time.monotonic)
        self._processes_trouble = TroubleLog(_logger, subject="cgroups", clock=time.monotonic)
        self._journal_trouble = TroubleLog(_logger, subject="the journal of grants", clock=time.monotonic)

    async def prefer(
        self, resource: str, *, available: Sequence[str], must_include: Sequence[str], size: int
    ) -> tuple[str, ...]:
        """Choose the devices of the container under admission.

        Args:
            resource: what the kubelet asks for.
            available: the device IDs that it offers.
            must_include: those that have to be in the answer.
            size: how many it needs.

        Raises:
            FracgpuError: this pod cannot be given what it asks for; the sentence is for its user.
        """
        began = time.perf_counter()
        async with self._looking:
            listing = await self._look()
        if listing is None:
            self._observer.corrected(Correction.GUESSED)
        claim = self._find(listing, resource, size=size)
        self._confirmed = None
        if claim is None or not fits(claim, size=size) or self._is_doubtful(claim):
            self._observer.corrected(Correction.REREAD)
            is_fresh = await self._pods.refresh()
            claim = self._find(listing, resource, size=size)
            self._confirmed = claim.pod.uid if claim and is_fresh else None
        with deciding("prefer", claim, began=began, facts={"size": size}):
            return self._preferred(claim, resource, available=available, must_include=must_include, size=size)

    def _preferred(
        self, claim: Claim | None, resource: str, *, available: Sequence[str], must_include: Sequence[str], size: int
    ) -> tuple[str, ...]:
        if claim is None:
            self._observer.corrected(Correction.UNKNOWN)
        else:
            check_claim(claim, size=size, unit=self._inventory.spec.memory_unit)
        # What the kubelet offers and another pod holds by our book is a pod's that ended, perhaps before we heard of
        # it, and whose process may live on. Any other will do, as long as there are others.
        held = self._book.held_ids(besides=claim.pod.uid if claim else None) - set(must_include)
        fresh = [text for text in available if text not in held]
        try:
            chosen = self._choose(claim, resource, available=fresh, must_include=must_include, size=size)
        except AdmissionError:
            if len(fresh) == len(available):
                raise
            return self._choose(claim, resource, available=available, must_include=must_include, size=size)
        if len(fresh) < len(available):
            self._observer.corrected(Correction.AVOIDED)
        return chosen

    async def allocate(self, resource: str, ids: Iterable[str]) -> Edits:
        """Give devices to the container under admission, and record it.

        Args:
            resource: what the devices are counted in.
            ids: those that the kubelet has chosen.

        Returns:
            What makes the container see its GPUs.

        Raises:
            FracgpuError: the container must not have them; the sentence is for the pod's user.
        """
        began = time.perf_counter()
        ids = frozenset(ids)
        given = count_by_gpu(ids)
        async with self._looking:
            listing = await self._look()
            claim = self._find(listing, resource, size=len(ids), given=given)
            if claim is None:
                self._observer.corrected(Correction.REFUSED)
                raise AdmissionError(
                    "the pod that the kubelet is admitting was deleted already, or the API server has not told of it "
                    "in time; its controller makes a new one"
                )
            try:
                with deciding("allocate", claim, began=began, facts={"gpus": given}):
                    if self._is_doubtful(claim):
                        raise AdmissionError(
                            f"container {claim.container!r} of pod {claim.pod.key} has been given its devices before, "
                            "and the API server cannot be asked whether this is another pod of that name; its "
                            "controller makes a new one"
                        )
                    check_claim(claim, size=len(ids), unit=self._inventory.spec.memory_unit)
                    check_devices(claim, resource, ids, gpus=self._gpus, book=self._book)
                    edits = self._edits(claim, resource, ids)
                    self._record(claim, resource, ids)
            except FracgpuError:
                self._observer.corrected(Correction.REFUSED)
                self._refused.add(claim.pod.uid)
                raise
        self._on_change()
        return edits

    async def reconcile(self) -> None:
        """Compare the book with the kubelet once.

        Raises:
            FracgpuError: the kubelet lists something that cannot be understood; nothing has been dropped.
        """
        async with self._looking:
            await self._look()

    def keep(self) -> None:
        """Bring the journal up to date; where that fails it says too much, which harms nobody, until the next time."""
        try:
            self._journal.write(self._inventory.spec, self._book.grants(), ids=self._book.device_ids())
        except UnavailableError as exc:
            self._observer.journaled(ok=False)
            self._journal_trouble.failed(exc)
        else:
            self._observer.journaled(ok=True)
            self._journal_trouble.succeeded()

    def wake(self) -> None:
        """Look soon: a pod has ended."""
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until cancelled: when woken, every second while an ended pod holds something, else rarely."""
        while True:
            pause = _ENDING_SECONDS if self._book.has_ending else _IDLE_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            was_woken = self._wake.is_set()
            self._wake.clear()
            try:
                await self.reconcile()
            except FracgpuError as exc:
                self._devices_trouble.failed(exc)
            self.keep()
            if was_woken:
                self._on_change()  # also without a change: that there is no grant of the ended pod is news

    async def _look(self) -> Listing | None:
        """Ask PodResources and reconcile the book; None where it does not answer."""
        try:
            listing = await self._devices.list()
        except UnavailableError as exc:
            self._observer.listed(ok=False)
            self._devices_trouble.failed(exc)
            listing = None
        else:
            self._observer.listed(ok=True)
            self._devices_trouble.succeeded()
        alive = self._pods.alive()
        self._refused &= alive.keys()
        has_changed = self._book.reconcile(listing, alive, has_processes=self._has_processes)
        if listing is not None and self._inventory.settle(self.held()):
            self.keep()  # before anything is granted in the new division
            has_changed = True
        if has_changed:
            self._on_change()
        return listing

    def held(self) -> set[GpuUuid]:
        """The GPUs of which something is granted, or planned for a pod that may start at any moment."""
        waiting = (claim for pod in self._pods.alive().values() for claim in claims_of(pod))
        return self._book.gpus() | {gpu for claim in waiting for gpu in claim.planned}

    def _edits(self, claim: Claim, resource: str, ids: frozenset[str]) -> Edits:
        shares = {share.gpu: share for share in shares_of(ids, resource, self._gpus)}
        unit = self._inventory.spec.memory_unit
        lent = [
            LentShare(
                self._inventory.cards[gpu.uuid],
                shares[gpu.uuid].units,
                shares[gpu.uuid].seats,
                Mib(shares[gpu.uuid].units * unit),
                gpu.units,
                gpu.replicas,
            )
            for gpu in self._gpus.values()
            if gpu.uuid in shares
        ]
        own = (claim.pod.uid, claim.container)
        return self._handout.edits(lent, neighbours={gpu: self._book.containers_on(gpu, besides=own) for gpu in shares})

    def _record(self, claim: Claim, resource: str, ids: frozenset[str]) -> None:
        """Note a grant in the book and on the disk, or nowhere: what is only in the book ends with this process."""
        take_back = self._book.record(claim.pod, claim.container, resource, ids)
        try:
            self._journal.write(self._inventory.spec, self._book.grants(), ids=self._book.device_ids())
        except UnavailableError:
            self._observer.journaled(ok=False)
            take_back()
            raise
        self._observer.journaled(ok=True)

    def _has_processes(self, uid: PodUid) -> bool:
        try:
            found = self._processes.has_processes(uid)
        except UnavailableError as exc:
            self._processes_trouble.failed(exc)
            return True
        self._processes_trouble.succeeded()
        return found

    def _find(
        self, listing: Listing | None, resource: str, *, size: int, given: dict[GpuUuid, int] | None = None
    ) -> Claim | None:
        pods = self._pods.alive().values()
        if listing is None:
            claims = ungranted_claims(pods, is_granted=self._book.is_granted)
        else:
            claims = waiting_claims(pods, listing)
        return under_admission(claims, resource, size=size, given=given, refused=self._refused)

    def _is_doubtful(self, claim: Claim) -> bool:
        """Whether the claim may be another pod's: one that has its grant already rarely asks again.

        More likely it was deleted and made anew under its name, as StatefulSets do, and our watch is behind the
        kubelet's. Only a consistent read can tell; a kubelet that has lost its checkpoint does ask again.
        """
        return claim.pod.uid != self._confirmed and self._book.is_granted(claim.pod.uid, claim.container)

    def _choose(
        self,
        claim: Claim | None,
        resource: str,
        *,
        available: Sequence[str],
        must_include: Sequence[str],
        size: int,
    ) -> tuple[str, ...]:
        if claim is None:
            # Whoever it is, it is told apart in Allocate, when the watch has had more time.
            targets = self._best_fit(available, must_include, resource, gpus=1, per_gpu=size, replicas=None)
        else:
            targets = dict(claim.planned) or self._best_fit(
                available,
                must_include,
                resource,
                gpus=claim.gpus,
                per_gpu=size // claim.gpus,
                replicas=claim.replicas,
            )
        return planned_ids(available, must_include, targets, resource=resource)

    def _best_fit(
        self,
        available: Sequence[str],
        must_include: Sequence[str],
        resource: str,
        *,
        gpus: int,
        per_gpu: int,
        replicas: int | None,
    ) -> dict[GpuUuid, int]:
        rooms = {
            gpu.uuid: room(gpu, self._book.used(gpu.uuid), resource)
            for gpu in self._gpus.values()
            if gpu.healthy and replicas in (None, gpu.replicas)
        }
        try:
            return best_fit(available, must_include, gpus=gpus, per_gpu=per_gpu, room=rooms, resource=resource)
        except AdmissionError as exc:
            ended = {pod: None for uuid in self._gpus for pod in self._book.ended_holders(uuid)}
            if not ended:
                raise
            raise AdmissionError(f"{exc}; {lingering(ended)}") from exc
