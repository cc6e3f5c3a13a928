"""The ledger in plain Python: what `ledger.lua` has to answer and to hold, whatever its arguments are.

A second telling, made to be compared with the script and with nothing clever in it: what is used is the sum of the
claims, and what is held are the claims in state `held` of the hash. It takes the server's identity and the time as
inputs. It leaves out that the stream is trimmed, and that an answer ends after 1000 changes.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Amounts = Mapping[str, tuple[int, int]]
"""GPU as ``<node>/<GPU UUID>`` -> units and seats."""

Reply = list[Any]
"""What the script returns: a word, and what belongs to it."""

ERROR: Final[Reply] = ["error"]
"""The script ends with an error."""

LONGEST_HOLD_MS: Final = 60_000
MAX_AMOUNT: Final = 2**31 - 1


@dataclass(frozen=True)
class Server:
    """The server that the ledger lives in, as it is now."""

    run_id: str
    replication_id: str
    is_master: bool = True
    policy: str = "noeviction"

    @property
    def life(self) -> str:
        """What the epoch begins with in this life of the server."""
        return f"{self.run_id}/{self.replication_id}:"


@dataclass(frozen=True)
class Rebuild:
    """Who rebuilds, in which life of the server, and until when."""

    life: str
    deadline_ms: int
    token: str


@dataclass(frozen=True)
class ModelClaim:
    """A claim's text as it was given, and what of it the ledger understands."""

    text: str
    state: str | None
    taken: Amounts


NONE: Final = ModelClaim("", "none", {})


class ScriptError(Exception):
    """An argument that the script ends with an error on."""


@dataclass
class LedgerModel:
    """The whole state of the ledger, and its operations by the names and arguments that the script knows."""

    server: Server
    epoch: str | None = None
    claims: dict[str, tuple[int, ModelClaim]] = field(default_factory=dict)  # uid -> deadline in ms, claim
    log: list[tuple[int, str, str]] = field(default_factory=list)  # number, uid, value
    seq: int = 0
    rebuild: Rebuild | None = None

    def copy(self) -> "LedgerModel":
        """Another one that changes independently."""
        other = copy.copy(self)
        other.claims, other.log = dict(self.claims), list(self.log)
        return other

    @property
    def used(self) -> dict[str, tuple[int, int]]:
        """What all claims take of each GPU; GPUs of which nothing is taken are left out."""
        total: dict[str, tuple[int, int]] = {}
        for _, claim in self.claims.values():
            for gpu, (units, seats) in claim.taken.items():
                before = total.get(gpu, (0, 0))
                total[gpu] = (before[0] + units, before[1] + seats)
        return {gpu: amounts for gpu, amounts in total.items() if amounts != (0, 0)}

    @property
    def holds(self) -> dict[str, int]:
        """uid -> deadline, of the claims that are only held."""
        return {uid: deadline for uid, (deadline, claim) in self.claims.items() if claim.state == "held"}

    @property
    def is_valid(self) -> bool:
        """Whether this is the ledger of the server's present life."""
        return self.server.is_master and self.epoch is not None and self.epoch.startswith(self.server.life)

    def value(self, uid: str) -> str:
        """What is stored of a pod's claim, or nothing."""
        if uid not in self.claims:
            return ""
        deadline, claim = self.claims[uid]
        return f"{deadline}|{claim.text}"

    def call(self, operation: str, known_epoch: str, known_seq: int, *arguments: str, now_ms: int) -> list[Reply]:
        """Carry out an operation.

        Returns:
            Every answer that is right: which of several GPUs a refusal names is the script's choice.
        """
        try:
            if operation in ("begin", "fill", "commit"):
                return [self._rebuild(operation, *arguments, now_ms=now_ms)]
            if not self.is_valid:
                return [["lost"]]
            if operation == "snapshot":
                claims = {uid: self.value(uid) for uid in self.claims}
                return [["ok", str(self.seq), str(now_ms), [], self.epoch, claims]]
            if known_epoch != self.epoch:
                return [["epoch"]]
            is_behind = known_seq != self.seq  # that holds expire now is nothing that the caller had to know
            self._drop_expired(now_ms)
            replies = self._operate(operation, *arguments, is_behind=is_behind, now_ms=now_ms)
        except ScriptError:
            return [ERROR]
        changes = [[f"{seq}-0", ["uid", uid, "value", value]] for seq, uid, value in self.log if seq > known_seq]
        return [
            reply if reply == ERROR else [reply[0], str(self.seq), str(now_ms), changes, *reply[1:]]
            for reply in replies
        ]

    def _rebuild(self, operation: str, *arguments: str, now_ms: int) -> Reply:
        rebuild = self.rebuild if self.rebuild is not None and self.rebuild.life == self.server.life else None
        token, *rest = arguments
        if operation == "begin":
            if self.is_valid:
                return ["valid", self.epoch]
            if self.server.policy.startswith("allkeys"):
                return ["unsafe", self.server.policy]
            deadline_ms = now_ms + _integer(rest[0])
            if rebuild is not None and rebuild.token == token:
                self._check_writable()
                self.rebuild = Rebuild(self.server.life, deadline_ms, token)
                return ["ok"]
            if rebuild is not None and now_ms < rebuild.deadline_ms <= deadline_ms:
                return ["busy"]
            self._check_writable()
            self.rebuild = Rebuild(self.server.life, deadline_ms, token)
            self.epoch, self.claims, self.log, self.seq = None, {}, [], 0
            return ["ok"]
        if rebuild is None or rebuild.token != token:
            return ["busy"]
        if operation == "fill":
            filled = {uid: (0, read_claim(text)) for uid, text in zip(rest[::2], rest[1::2], strict=True)}
            if any(claim.state == "held" for _, claim in filled.values()):
                raise ScriptError("a rebuild writes no holds")
            if filled:
                self._check_writable()
            self.claims.update(filled)
        else:
            self._check_writable()
            self.epoch, self.rebuild = self.server.life + rest[0], None
        return ["ok"]

    def _operate(self, operation: str, *arguments: str, is_behind: bool, now_ms: int) -> list[Reply]:
        match operation, arguments:
            case "sync", ():
                return [["ok"]]
            case (("hold" | "reserve"), (uid, text, lifetime, limits)):
                if operation == "hold" and is_behind:
                    return [["behind"]]
                before, after = self._claim(uid), read_claim(text)
                if before.state not in ("none", "held") and (operation == "hold" or before.text != after.text):
                    return [["differs", self.value(uid)]]
                refusals = self._missing_room(before, after, limits=json.loads(limits))
                if refusals:
                    return refusals
                lifetime_ms = _integer(lifetime)
                self._change(uid, after, deadline_ms=now_ms + lifetime_ms if lifetime_ms > 0 else 0)
                return [["ok"]]
            case (("confirm" | "correct" | "release"), (uid, expected, text)):
                before = self._claim(uid)
                if before.text == text:
                    return [["already"]]
                if before.text != expected:
                    return [["differs", self.value(uid)]]
                self._change(uid, read_claim(text) if text else NONE, deadline_ms=0)
                return [["ok"]]
        raise ScriptError(operation)

    def _claim(self, uid: str) -> ModelClaim:
        return self.claims[uid][1] if uid in self.claims else NONE

    def _missing_room(self, before: ModelClaim, after: ModelClaim, *, limits: Mapping[str, Any]) -> list[Reply]:
        refusals = []
        for gpu, (units, seats) in after.taken.items():
            if gpu not in limits:
                refusals.append(ERROR)
                continue
            used, own = self.used.get(gpu, (0, 0)), before.taken.get(gpu, (0, 0))
            free = [limits[gpu][n] - used[n] + own[n] for n in (0, 1)]
            if units > free[0] or seats > free[1]:
                refusals.append(["full", gpu, *map(str, free)])
        return refusals

    def _drop_expired(self, now_ms: int) -> None:
        # In the order of the sorted set: those that are over, then those that were set before the clock jumped back.
        by_deadline = sorted((deadline, uid) for uid, deadline in self.holds.items())
        for deadline, uid in by_deadline:
            if not now_ms < deadline <= now_ms + LONGEST_HOLD_MS:
                self._change(uid, NONE, deadline_ms=0)

    def _change(self, uid: str, after: ModelClaim, *, deadline_ms: int) -> None:
        if after is NONE:
            self.claims.pop(uid, None)
        else:
            self.claims[uid] = (deadline_ms, after)
        self.seq += 1
        self.log.append((self.seq, uid, self.value(uid)))

    def _check_writable(self) -> None:
        if not self.server.is_master:
            raise ScriptError("READONLY")


def read_claim(text: str) -> ModelClaim:
    """Read a claim's JSON.

    Raises:
        ScriptError: the script ends with an error on it.
    """
    try:
        claim = json.loads(text)
        containers = claim["plan"]["containers"]
        taken: dict[str, tuple[int, int]] = {}
        for share in (share for shares in containers.values() for share in shares):
            gpu = f"{claim['node']}/{share['gpu']}"
            before = taken.get(gpu, (0, 0))
            taken[gpu] = (before[0] + share["units"], before[1] + share["seats"])
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise ScriptError(text) from exc
    if not all(0 <= number <= MAX_AMOUNT and number % 1 == 0 for amounts in taken.values() for number in amounts):
        raise ScriptError(text)
    return ModelClaim(text, claim.get("state"), taken)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as exc:
        raise ScriptError(text) from exc
