"""The adapter to the ledger in Redis: typed operations, and catching up with what other replicas wrote.

Only this module talks to Redis. It knows nothing of pods or nodes beyond the claims; who may claim what is decided by
its callers, and that nothing is claimed twice by the script itself.
"""

import asyncio
import secrets
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final, Protocol

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from extender.ledger.claims import Claim, Entry, decode_entry, encode_claim
from fracgpu.errors import ConflictError, NoRoomError, PlanError, UnavailableError
from fracgpu.names import GpuUuid, PodUid

CALL_TIMEOUT_SECONDS: Final = 1.0
"""Of kube-scheduler's 5 s for a whole call: a slower Redis is treated as gone."""

_KEYS: Final = tuple(f"{{fracgpu}}:{name}" for name in ("epoch", "claims", "used", "log", "seq", "rebuild"))
_SCRIPT: Final = resources.files("extender.ledger").joinpath("ledger.lua").read_text()


class LedgerReader(Protocol):
    """Who is told what the ledger holds: the index."""

    def replace_claims(self, entries: Mapping[PodUid, Entry]) -> None:
        """Forget everything; these are all claims."""

    def change_claim(self, uid: PodUid, entry: Entry | None) -> None:
        """This pod's claim is now this one, or none."""


class LedgerLostError(UnavailableError):
    """Redis holds no valid ledger: it was restarted, flushed, replaced or failed over, and has to be rebuilt."""

    reason = "LedgerLost"


class AlreadyClaimedError(ConflictError):
    """The pod has another claim than the caller believes."""

    reason = "AlreadyClaimed"

    def __init__(self, entry: Entry | None) -> None:
        super().__init__("the ledger holds another claim of this pod" if entry else "the ledger holds no such claim")
        self.entry = entry


def connect(url: str) -> Redis:
    """Make a client for a Redis URL (redis://, rediss://, unix://); connects at the first call.

    Raises:
        ValueError: the URL is none.
    """
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=CALL_TIMEOUT_SECONDS,
        socket_connect_timeout=CALL_TIMEOUT_SECONDS,
        # redis-py's ten retries would outlast the scheduler's patience. One is enough for a connection that went
        # stale, and every operation may be repeated.
        retry=Retry(NoBackoff(), 1),
        health_check_interval=0,
    )


class Ledger:
    """The ledger as one extender replica sees it.

    Every operation raises `UnavailableError` where Redis does not answer, and its subclass `LedgerLostError` where it
    holds no valid ledger.
    """

    def __init__(self, redis: Redis, *, reader: LedgerReader) -> None:
        self._redis = redis
        self._script = redis.register_script(_SCRIPT)
        self._reader = reader
        self._epoch = ""
        self._seq = 0
        self._now_ms = 0
        self._catching_up = asyncio.Lock()  # guards _epoch, _seq and the reader: changes are applied in their order

    @property
    def now_ms(self) -> int:
        """Redis TIME in milliseconds, as of the last `catch_up`."""
        return self._now_ms

    async def catch_up(self) -> None:
        """Bring the reader to the ledger's present state: one call where nothing unusual happened."""
        async with self._catching_up:
            while True:
                answer = await self._call("sync", self._seq)
                if answer[0] == "epoch" or (answer[0] == "ok" and self._missed(answer)):
                    await self._take_snapshot()
                    continue
                _, last_seq, now_ms, entries = answer
                for entry_id, fields in entries:
                    self._apply(int(entry_id.partition("-")[0]), fields)
                self._now_ms = int(now_ms)
                if self._seq == int(last_seq):
                    return

    async def reserve(
        self, claim: Claim, *, limits: Mapping[GpuUuid, tuple[int, int]], lifetime_seconds: float
    ) -> None:
        """Claim the shares if all of them are free, or prolong the same claim: check and commit in one step.

        Args:
            claim: what to claim; in state `binding`.
            limits: units and seats of each GPU that the claim takes.
            lifetime_seconds: until when the Binding's outcome is known.

        Raises:
            NoRoomError: a GPU has less free than the claim takes.
            AlreadyClaimedError: the pod has another claim.
        """
        text = encode_claim(claim)
        limits_text = msgspec.json.encode({f"{claim.node}/{gpu}": limit for gpu, limit in limits.items()}).decode()
        arguments = (text, int(lifetime_seconds * 1000), limits_text)
        answer = await self._call("put", claim.uid, "", *arguments)
        if answer[0] == "differs" and _text_of(answer[1]) == text:
            answer = await self._call("put", claim.uid, text, *arguments)
        if answer[0] == "full":
            _, gpu, units, seats = answer
            raise NoRoomError(f"GPU {gpu} has only {units} units and {seats} seats free: another pod was faster")
        _raise_if_differs(answer)

    async def replace(self, before: Claim, after: Claim) -> None:
        """Write what is known of a pod now, where the ledger still holds what was known before. No limit applies.

        Raises:
            AlreadyClaimedError: the ledger holds something else.
        """
        answer = await self._call("put", before.uid, encode_claim(before), encode_claim(after), 0, "")
        _raise_if_differs(answer)

    async def record(self, claim: Claim) -> None:
        """Write what is true, whatever the ledger held and even above a GPU's limit."""
        await self._call("put", claim.uid, "*", encode_claim(claim), 0, "")

    async def release(self, claim: Claim) -> None:
        """Drop a claim; one that is gone already is no error.

        Raises:
            AlreadyClaimedError: the pod's claim is another by now.
        """
        answer = await self._call("drop", claim.uid, encode_claim(claim))
        _raise_if_differs(answer)

    async def begin_rebuild(self, *, lifetime_seconds: float) -> str | None:
        """Become the replica that rebuilds a lost ledger.

        Returns:
            The token for `commit_rebuild`; None where the ledger is valid by now, or another replica is at it.
        """
        token = secrets.token_hex(8)
        answer = await self._call("begin", token, int(lifetime_seconds * 1000))
        return token if answer[0] == "ok" else None

    async def commit_rebuild(self, token: str, claims: list[Claim]) -> bool:
        """Write the rebuilt ledger and begin its new life; False where the rebuild took longer than its lifetime."""
        pairs = [text for claim in claims for text in (claim.uid, encode_claim(claim))]
        answer = await self._call("commit", token, secrets.token_hex(8), *pairs)
        return bool(answer[0] == "ok")

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _take_snapshot(self) -> None:
        _, epoch, seq, pairs = await self._call("snapshot")
        flat = iter(pairs)
        self._reader.replace_claims({PodUid(uid): decode_entry(value) for uid, value in zip(flat, flat, strict=True)})
        self._epoch, self._seq = epoch, int(seq)

    def _missed(self, answer: list[Any]) -> bool:
        """Whether the stream was trimmed past the last change that this replica has."""
        _, last_seq, _, entries = answer
        first = int(entries[0][0].partition("-")[0]) if entries else self._seq + 1
        return first != self._seq + 1 or (not entries and int(last_seq) != self._seq)

    def _apply(self, seq: int, fields: Any) -> None:
        # A stream entry's fields come as a flat list out of a script.
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        value = values["value"]
        self._reader.change_claim(PodUid(values["uid"]), decode_entry(value) if value else None)
        self._seq = seq

    async def _call(self, operation: str, *arguments: str | int) -> list[Any]:
        try:
            # Shielded: a request that is given up must not leave half an answer on the connection.
            answer = await asyncio.shield(self._script(keys=_KEYS, args=(operation, self._epoch, *arguments)))
        except ResponseError as exc:
            if "impossible amount" not in str(exc):
                raise UnavailableError(f"Redis cannot carry out the operation ({exc}); the pod is tried again") from exc
            raise PlanError(f"the ledger refuses the claim: {exc}") from exc
        except (RedisError, OSError) as exc:
            raise UnavailableError(f"Redis does not answer ({exc}); the pod is tried again") from exc
        if answer[0] == "lost":
            raise LedgerLostError("the ledger in Redis was lost and is being rebuilt from the API server; try again")
        if answer[0] == "epoch" and operation != "sync":
            raise UnavailableError("the ledger in Redis was rebuilt a moment ago; try again")
        return list(answer)


def _text_of(value: str) -> str:
    return value.partition("|")[2]


def _raise_if_differs(answer: list[Any]) -> None:
    if answer[0] == "differs":
        raise AlreadyClaimedError(decode_entry(answer[1]) if answer[1] else None)
