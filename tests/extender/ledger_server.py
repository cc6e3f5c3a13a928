"""The ledger of a real Redis, asked in the script's own words: for tests that pass what no extender would pass.

Nothing of `Ledger` is in between. What is asked and all that Redis holds afterwards are one transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ResponseError

from extender.ledger.ledger import KEYS, SCRIPT
from tests.extender.ledger_model import ERROR, LedgerModel, Reply, Server

EPOCH, CLAIMS, USED, LOG, SEQ, HOLDS, REBUILD = KEYS
NOWHERE: Final = ("127.0.0.1", 1)
"""Where no server listens."""


@dataclass(frozen=True)
class State:
    """All that Redis holds of the ledger."""

    epoch: str | None
    claims: dict[str, str]  # uid -> deadline and claim
    used: dict[str, int]  # GPU and kind -> units or seats
    log: list[tuple[str, dict[str, str]]]
    seq: int
    holds: dict[str, float]  # uid -> deadline
    rebuild: str | None

    @classmethod
    def of(cls, model: LedgerModel) -> "State":
        """What Redis should hold."""
        rebuild = model.rebuild
        return cls(
            model.epoch,
            {uid: model.value(uid) for uid in model.claims},
            fields_of(model.used),
            [(f"{seq}-0", {"uid": uid, "value": value}) for seq, uid, value in model.log],
            model.seq,
            {uid: float(deadline) for uid, deadline in model.holds.items()},
            f"{rebuild.life}{rebuild.deadline_ms}|{rebuild.token}" if rebuild else None,
        )

    @classmethod
    def read(cls, values: Sequence[Any]) -> "State":
        """What Redis holds, from the answers to what `_ask_for_all` asks."""
        epoch, claims, used, log, seq, holds, rebuild = values
        amounts = {field: int(number) for field, number in used.items()}
        return cls(epoch, claims, amounts, log, int(seq or 0), dict(holds), rebuild)

    @property
    def texts(self) -> dict[str, str]:
        """uid -> claim, without its deadline."""
        return {uid: value.partition("|")[2] for uid, value in self.claims.items()}

    def used_of(self, gpu: str) -> tuple[int, int]:
        """Units and seats that are taken of a GPU."""
        return self.used.get(f"{gpu}#u", 0), self.used.get(f"{gpu}#s", 0)


def fields_of(used: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """The fields of the hash of what is used: nothing is told of what is not."""
    fields = {f"{gpu}#{kind}": n for gpu, amounts in used.items() for kind, n in zip("us", amounts, strict=True)}
    return {field: number for field, number in fields.items() if number}


@dataclass(frozen=True)
class Answered:
    """What the script answered, between which times of the server, in ms, and what Redis held then."""

    reply: Reply
    earliest_ms: int
    latest_ms: int
    state: State


class LedgerServer:
    """A Redis with nothing in it, and the script."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.put_right()
        redis.flushall()
        self._sha = str(redis.script_load(SCRIPT))

    def call(self, *arguments: str) -> Answered:
        """Call the script with all of its arguments."""
        with self._redis.pipeline(transaction=True) as step:
            step.time()
            step.evalsha(self._sha, len(KEYS), *KEYS, *arguments)
            step.time()
            _ask_for_all(step)
            earliest, reply, latest, *values = step.execute(raise_on_error=False)
        if isinstance(reply, ResponseError):
            reply = ERROR
        elif arguments[0] == "snapshot" and reply[0] == "ok":
            *rest, flat = reply
            reply = [*rest, dict(zip(flat[::2], flat[1::2], strict=True))]
        earliest_ms, latest_ms = (seconds * 1000 + micros // 1000 for seconds, micros in (earliest, latest))
        return Answered(reply, earliest_ms, latest_ms, State.read(values))

    def state(self) -> State:
        """What Redis holds of the ledger."""
        with self._redis.pipeline(transaction=True) as step:
            _ask_for_all(step)
            return State.read(step.execute())

    def identity(self) -> Server:
        """What the script can know of the server."""
        server, replication, memory = (self._redis.info(part) for part in ("server", "replication", "memory"))
        is_master = replication["role"] == "master"
        return Server(server["run_id"], replication["master_replid"], is_master, memory["maxmemory_policy"])

    def demote(self) -> None:
        """Make it a replica, of a server that never answers."""
        self._redis.replicaof(*NOWHERE)

    def promote(self) -> None:
        """Make it a master that has been a replica, with all of its data."""
        self.demote()
        self._redis.replicaof("NO", "ONE")

    def let_evict(self) -> None:
        """Let it throw away what it likes when it is full, which it is not."""
        self._redis.config_set("maxmemory-policy", "allkeys-lru")

    def put_right(self) -> None:
        """Make it a master that may hold the ledger."""
        self._redis.replicaof("NO", "ONE")
        self._redis.config_set("maxmemory-policy", "noeviction")

    def flush(self) -> None:
        """Forget everything."""
        self._redis.flushall()

    def set_epoch(self, epoch: str) -> None:
        """Put another epoch in the place of the ledger's."""
        self._redis.set(EPOCH, epoch)


def _ask_for_all(step: Pipeline) -> None:
    step.get(EPOCH)
    step.hgetall(CLAIMS)
    step.hgetall(USED)
    step.xrange(LOG)
    step.get(SEQ)
    step.zrange(HOLDS, 0, -1, withscores=True)
    step.get(REBUILD)
