"""The adapter to the ledger in Redis: typed operations, each of which also catches up with what other replicas wrote.

It knows nothing of pods or nodes beyond the claims; who may claim what is decided by its callers, and that nothing is
claimed twice by the script itself. How to reach Redis is `connecting`'s part.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final, Protocol

import msgspec
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from extender.ledger.claims import Claim, Entry, decode_entry, encode_claim
from extender.ledger.failures import explain_failure
from fracgpu.errors import ConflictError, NoRoomError, PlanError, UnavailableError
from fracgpu.names import GpuUuid, PodUid

KEYS: Final = tuple(f"{{fracgpu}}:{name}" for name in ("epoch", "claims", "used", "log", "seq", "holds", "rebuild"))
"""The keys of the script, in its order; one hash tag puts them into one slot of a Redis Cluster."""

SCRIPT: Final = resources.files("extender.ledger").joinpath("ledger.lua").read_text()
_TURNS: Final = 4  # calls on the way to Redis at a time: more are not faster, because it works on one
_FILL: Final = 500  # claims per call of a rebuild: some 10 ms in which Redis serves nobody else

Limits = Mapping[GpuUuid, tuple[int, int]]
"""GPU -> its units and seats."""


class LedgerReader(Protocol):
    """Who is told what the ledger holds: the index."""

    def replace_claims(self, entries: Mapping[PodUid, Entry]) -> None:
        """Forget everything; these are all claims."""

    def change_claim(self, uid: PodUid, entry: Entry | None) -> None:
        """This pod's claim is now this one, or none."""


class CallObserver(Protocol):
    """Who is told of each call, such as `extender.metrics.Metrics.ledger_call`."""

    def __call__(self, operation: str, *, outcome: str, seconds: float) -> None:
        """Note a call that has ended.

        Args:
            operation: of the script.
            outcome: the word with which the script answered, or failed where it did not.
            seconds: that it took.
        """
        ...


def _unobserved(operation: str, *, outcome: str, seconds: float) -> None:
    """Tell nobody."""


class LedgerLostError(UnavailableError):
    """Redis holds no valid ledger: it was restarted, flushed, replaced or failed over, and has to be rebuilt."""

    reason = "LedgerLost"


class AlreadyClaimedError(ConflictError):
    """The pod has another claim than the caller believes."""

    reason = "AlreadyClaimed"

    def __init__(self, entry: Entry | None) -> None:
        super().__init__("the ledger holds another claim of this pod" if entry else "the ledger holds no such claim")
        self.entry = entry


class Ledger:
    """The ledger as one extender replica sees it.

    Every operation leaves the reader with all changes up to and including its own. It raises `UnavailableError`
    where Redis does not answer, and its subclass `LedgerLostError` where it holds no valid ledger.

    Args:
        redis: the client.
        reader: is told what the ledger holds.
        observer: is told of each call.
    """

    def __init__(
        self, redis: Redis | RedisCluster, *, reader: LedgerReader, observer: CallObserver = _unobserved
    ) -> None:
        self._redis = redis
        self._script = redis.register_script(SCRIPT)
        self._reader = reader
        self._observer = observer
        self._epoch = ""
        self._seq = 0
        self._now_ms = 0
        # Taken before it is said what is known: each of many waiting calls would be told all changes of the others.
        self._turns = asyncio.Semaphore(_TURNS)

    @property
    def now_ms(self) -> int:
        """Redis TIME in milliseconds, as of the last operation."""
        return self._now_ms

    async def catch_up(self) -> bool:
        """Bring the reader to the ledger's present state: one call where nothing unusual happened.

        Returns:
            Whether the reader had it already.
        """
        before = (self._epoch, self._seq)
        await self._operate("sync")
        return before == (self._epoch, self._seq)

    async def hold(self, claim: Claim, *, limits: Limits, lifetime_seconds: float) -> bool:
        """Set shares aside for a short while, if nothing has changed since the reader was told of the last change.

        Args:
            claim: what to hold; in state `held`. A hold that the pod has already is moved.
            limits: units and seats of each GPU that the claim takes.
            lifetime_seconds: after this the hold is gone by itself.

        Returns:
            False where something had changed: the reader knows it now, and the choice is to be made anew.

        Raises:
            NoRoomError: a GPU has less free than the claim takes.
            AlreadyClaimedError: the pod has more than a hold.
        """
        arguments = (claim.uid, encode_claim(claim), int(lifetime_seconds * 1000), _limits_text(claim, limits))
        word, details = await self._operate("hold", *arguments)
        _raise_if_refused(word, details)
        return word != "behind"

    async def reserve(self, claim: Claim, *, limits: Limits, lifetime_seconds: float) -> None:
        """Claim the shares if all of them are free, or prolong the same claim: check and commit in one step.

        Args:
            claim: what to claim; in state `binding`. It takes the place of the pod's hold, if there is one.
            limits: units and seats of each GPU that the claim takes.
            lifetime_seconds: until when the Binding's outcome is known.

        Raises:
            NoRoomError: a GPU has less free than the claim takes.
            AlreadyClaimedError: the pod has another claim.
        """
        arguments = (claim.uid, encode_claim(claim), int(lifetime_seconds * 1000), _limits_text(claim, limits))
        word, details = await self._operate("reserve", *arguments)
        _raise_if_refused(word, details)

    async def confirm(self, claim: Claim) -> None:
        """The Binding of this reservation has happened: its claim is `bound` from now on.

        Raises:
            AlreadyClaimedError: the pod's claim is neither the reservation nor confirmed.
        """
        await self._replace("confirm", claim.uid, encode_claim(claim), encode_claim(claim.bound()))

    async def correct(self, before: Claim | None, after: Claim) -> bool:
        """Write what is true of a pod, even above a GPU's limit, where the ledger still holds what was known before.

        Returns:
            False where the ledger says so already.

        Raises:
            AlreadyClaimedError: the ledger holds something else.
        """
        return await self._replace("correct", after.uid, encode_claim(before) if before else "", encode_claim(after))

    async def release(self, claim: Claim) -> bool:
        """Drop a claim.

        Returns:
            False where it is gone already.

        Raises:
            AlreadyClaimedError: the pod's claim is another by now.
        """
        return await self._replace("release", claim.uid, encode_claim(claim), "")

    async def begin_rebuild(self, *, lifetime_seconds: float, token: str = "") -> str | None:
        """Become the replica that rebuilds a lost ledger.

        Args:
            lifetime_seconds: after this another replica may take over, unless this one has begun again.
            token: of the rebuild that is to go on; a new one begins without.

        Returns:
            The token for `commit_rebuild`; None where the ledger is valid by now, or another replica is at it.
        """
        token = token or secrets.token_hex(8)
        answer = await self._call("begin", token, int(lifetime_seconds * 1000))
        return token if answer[0] == "ok" else None

    async def commit_rebuild(self, token: str, claims: list[Claim]) -> bool:
        """Write the rebuilt ledger and begin its new life; False where the rebuild took longer than its lifetime."""
        for start in range(0, len(claims), _FILL):
            pairs = [text for claim in claims[start : start + _FILL] for text in (claim.uid, encode_claim(claim))]
            if (await self._call("fill", token, *pairs))[0] != "ok":
                return False
        return bool((await self._call("commit", token, secrets.token_hex(8)))[0] == "ok")

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _replace(self, operation: str, uid: PodUid, expected: str, text: str) -> bool:
        word, details = await self._operate(operation, uid, expected, text)
        _raise_if_refused(word, details)
        return word != "already"

    async def _operate(self, operation: str, *arguments: str | int) -> tuple[str, list[Any]]:
        """Carry out an operation on the valid ledger, and bring the reader up to it."""
        async with self._turns:
            known_epoch, known_seq = self._epoch, self._seq
            answer = await self._call(operation, *arguments)
        if answer[0] == "epoch":
            # The ledger was rebuilt: nothing was done, and what was decided was decided on another life of it.
            await self._take_snapshot()
            if operation == "sync":
                return "ok", []
            raise UnavailableError("the ledger in Redis was rebuilt a moment ago; try again")
        word, last_seq, now_ms, changes, *details = answer
        if known_epoch != self._epoch:
            return str(word), details  # another call found out meanwhile that this life of the ledger has ended
        self._now_ms = int(now_ms)
        if not self._apply(changes, known_seq=known_seq, last_seq=int(last_seq)):
            await self._take_snapshot()
        elif self._seq < int(last_seq):
            await self._operate("sync")
        return str(word), details

    def _apply(self, changes: list[Any], *, known_seq: int, last_seq: int) -> bool:
        """Tell the reader the changes after `known_seq`; False where some of them had been trimmed off the stream.

        Answers of calls in parallel may come in any order: what an earlier one brought is left out.
        """
        numbers = [int(change[0].partition("-")[0]) for change in changes]
        if last_seq > known_seq and (not numbers or numbers[0] != known_seq + 1):
            return False
        for seq, (_, fields) in zip(numbers, changes, strict=True):
            if seq == self._seq + 1:
                # A stream entry's fields come as a flat list out of a script.
                values = dict(zip(fields[::2], fields[1::2], strict=True))
                value = values["value"]
                self._reader.change_claim(PodUid(values["uid"]), _decoded(value) if value else None)
                self._seq = seq
        return True

    async def _take_snapshot(self) -> None:
        _, seq, now_ms, _, epoch, pairs = await self._call("snapshot")
        if epoch == self._epoch and int(seq) < self._seq:
            return  # another call was faster, and what it brought is newer
        flat = iter(pairs)
        self._reader.replace_claims({PodUid(uid): _decoded(value) for uid, value in zip(flat, flat, strict=True)})
        self._epoch, self._seq, self._now_ms = epoch, int(seq), int(now_ms)

    async def _call(self, operation: str, *arguments: str | int) -> list[Any]:
        began = time.monotonic()
        try:
            answer = await self._script(keys=KEYS, args=(operation, self._epoch, self._seq, *arguments))
        except RedisError as exc:
            self._observer(operation, outcome="failed", seconds=time.monotonic() - began)
            if "impossible amount" in str(exc):
                raise PlanError(f"the ledger refuses the claim: {exc}") from exc
            raise UnavailableError(f"{explain_failure(exc)}; the pod is tried again") from exc
        self._observer(operation, outcome=str(answer[0]), seconds=time.monotonic() - began)
        if answer[0] == "unsafe":
            raise UnavailableError(
                f"Redis may throw away parts of the ledger (maxmemory-policy {answer[1]}); set it to noeviction"
            )
        if answer[0] == "lost":
            raise LedgerLostError("the ledger in Redis was lost and is being rebuilt from the API server; try again")
        return list(answer)


def _decoded(value: str) -> Entry:
    try:
        return decode_entry(value)
    except ValueError as exc:  # msgspec's errors are
        raise UnavailableError(
            f"the ledger holds a claim that this version cannot read ({exc}); does another version run beside it?"
        ) from exc


def _limits_text(claim: Claim, limits: Limits) -> str:
    return msgspec.json.encode({f"{claim.node}/{gpu}": limit for gpu, limit in limits.items()}).decode()


def _raise_if_refused(word: str, details: list[Any]) -> None:
    if word == "full":
        gpu, units, seats = details
        raise NoRoomError(f"GPU {gpu} has only {units} units and {seats} seats free")
    if word == "differs":
        (value,) = details
        raise AlreadyClaimedError(_decoded(value) if value else None)
