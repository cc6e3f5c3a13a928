"""The ledger's script and its model in Python go the same way, step by step, whatever they are asked and by whom."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from redis import Redis

from tests.extender.ledger_arguments import (
    EXPECTED,
    FILLED,
    KNOWN,
    LIMITS,
    STEPS,
    TEXTS,
    UIDS,
    WISHES,
    Known,
    Step,
    Stored,
    Text,
    Wish,
)
from tests.extender.ledger_model import LONGEST_HOLD_MS, LedgerModel, Reply, read_claim
from tests.extender.ledger_server import LedgerServer, State
from tests.redisservers import RedisServer
from tests.vocabulary.unhurried import unhurried


@pytest.mark.timeout(400)  # it takes a fraction of that; but a failure is looked at for up to five minutes
async def test_the_script_does_what_the_model_does(server: RedisServer) -> None:
    redis = Redis(port=server.port, decode_responses=True, protocol=2)

    class Ledgers(TwoLedgers):
        def __init__(self) -> None:
            super().__init__(LedgerServer(redis))

    try:
        long = settings(unhurried, max_examples=45, stateful_step_count=50)
        await asyncio.to_thread(run_state_machine_as_test, Ledgers, settings=long)
    finally:
        redis.close()


class TwoLedgers(RuleBasedStateMachine):
    """The ledger in Redis and the model, asked the same."""

    def __init__(self, redis: LedgerServer) -> None:
        super().__init__()
        self._redis = redis
        self._model = LedgerModel(redis.identity())
        self._state = redis.state()
        self._now_ms = 0
        self._earlier_epoch = "an epoch of another Redis"
        self._snapshots: list[tuple[str, int, dict[str, str]]] = []  # epoch, number of the last change, claims
        self._lives = 0

    @initialize(filled=FILLED)
    def a_ledger(self, filled: dict[str, str]) -> None:
        self._rebuild(filled)

    # What extenders ask, with whatever they know and believe.

    @rule(operation=st.sampled_from(["sync", "sync", "snapshot", "seize"]), known=KNOWN)
    def read(self, operation: str, known: Known) -> None:
        reply = self._operate(operation, known=known)
        if operation == "snapshot" and reply[0] == "ok":
            _, seq, _, _, epoch, claims = reply
            self._snapshots.append((epoch, int(seq), claims))

    @rule(wishes=WISHES)
    def hold(self, wishes: Sequence[Wish]) -> None:
        for wish in wishes:
            self._claim("hold", wish)

    @rule(wishes=WISHES)
    def reserve(self, wishes: Sequence[Wish]) -> None:
        for wish in wishes:
            self._claim("reserve", wish)

    @rule(uid=UIDS, expected=EXPECTED, known=KNOWN)
    def confirm(self, uid: str, expected: Text, known: Known) -> None:
        self._operate("confirm", uid, self._look_up(uid, expected), self._look_up(uid, Stored("bound")), known=known)

    @rule(uid=UIDS, expected=EXPECTED, text=TEXTS, known=KNOWN)
    def correct(self, uid: str, expected: Text, text: Text, known: Known) -> None:
        self._operate("correct", uid, self._look_up(uid, expected), self._look_up(uid, text), known=known)

    @rule(uid=UIDS, expected=EXPECTED, known=KNOWN)
    def release(self, uid: str, expected: Text, known: Known) -> None:
        self._operate("release", uid, self._look_up(uid, expected), "", known=known)

    @rule(steps=STEPS)
    def steps_of_rebuilds(self, steps: Sequence[Step]) -> None:
        for step in steps:
            token = self._model.rebuild.token if step.token == "present" and self._model.rebuild else step.token
            self._lives += 1
            pairs = [text for pair in step.filled.items() for text in pair]
            rest = {"begin": [step.lifetime], "fill": pairs, "commit": [str(self._lives)]}[step.operation]
            self._operate(step.operation, token, *rest, known=Known(times=step.times))

    # What happens to the server.

    @rule(
        event=st.sampled_from(["promoted", "demoted", "flushed", "rolled back", "told to evict"]),
        steps=STEPS,
        rebuilt=st.none() | FILLED,
    )
    def the_server_is(self, event: str, steps: Sequence[Step], rebuilt: dict[str, str] | None) -> None:
        model = self._model
        if event == "promoted":
            self._redis.promote()
            assert self._redis.identity().life != model.server.life
        elif event == "demoted":
            self._redis.demote()
        elif event == "told to evict":
            self._redis.let_evict()
        elif event == "flushed" and model.server.is_master:
            self._redis.flush()
            model = LedgerModel(model.server)
        elif event == "rolled back" and model.server.is_master:
            epoch = "run-id-of-yesterday/replication-id-of-yesterday:1"
            self._redis.set_epoch(epoch)
            model = replace(model, epoch=epoch)
        self._happened(model)
        self.steps_of_rebuilds(steps)
        if rebuilt is not None:
            self._redis.put_right()
            self._happened(self._model)
            self._rebuild(rebuilt)

    # What holds whatever the model says.

    @invariant()
    def what_is_used_is_the_sum_of_the_claims(self) -> None:
        total: Counter[str] = Counter()
        for text in self._state.texts.values():
            claim = json.loads(text)
            for share in (share for shares in claim["plan"]["containers"].values() for share in shares):
                gpu = f"{claim['node']}/{share['gpu']}"
                total.update({f"{gpu}#u": share["units"], f"{gpu}#s": share["seats"]})
        assert self._state.used == {field: number for field, number in total.items() if number}

    @invariant()
    def every_snapshot_and_the_changes_since_are_the_claims(self) -> None:
        for epoch, seq, snapshot in self._snapshots:
            if epoch != self._state.epoch:
                continue
            claims = dict(snapshot)
            for number, change in self._state.log:
                if int(number.partition("-")[0]) > seq:
                    claims.pop(change["uid"], None)
                    if change["value"]:
                        claims[change["uid"]] = change["value"]
            assert claims == self._state.claims

    @invariant()
    def every_hold_will_end(self) -> None:
        held = {uid for uid, text in self._state.texts.items() if json.loads(text)["state"] == "held"}
        assert set(self._state.holds) == held

    def _claim(self, operation: str, wish: Wish) -> None:
        before, text = self._state, self._look_up(wish.uid, wish.text)
        reply = self._operate(operation, wish.uid, text, wish.lifetime, json.dumps(wish.limits), known=wish.known)
        for gpu, limit in LIMITS.items():
            was, used = before.used_of(gpu), self._state.used_of(gpu)
            assert all(used[n] <= max(limit[n], was[n]) for n in (0, 1)), f"{gpu} is overdrawn by a {operation}"
        if reply[0] == "ok":
            for gpu in read_claim(text).taken:
                used = self._state.used_of(gpu)
                assert all(used[n] <= wish.limits[gpu][n] for n in (0, 1)), (
                    f"{gpu} was overdrawn, and took a {operation}"
                )

    def _rebuild(self, filled: dict[str, str]) -> None:
        """Rebuild the ledger where it is lost; where another replica is at it already, in its place."""
        if self._operate("begin", "token-1", "60000")[0] == "valid":
            return
        token = self._model.rebuild.token if self._model.rebuild else ""
        for uid, text in filled.items():
            self._operate("fill", "token of another", uid, text)
            self._operate("fill", token, uid, text, known=Known(times=2))
        self._lives += 1
        assert self._operate("commit", "token of another", str(self._lives)) == ["busy"]
        assert self._operate("commit", token, str(self._lives)) == ["ok"]
        self.read("snapshot", Known("earlier"))

    def _operate(self, operation: str, *arguments: str, known: Known = Known()) -> Reply:  # noqa: B008 (frozen)
        """Ask both the same, once or twice at once; returns the last answer."""
        epoch = {"present": self._model.epoch or "", "earlier": self._earlier_epoch}.get(known.epoch, known.epoch)
        seq = max(0, self._model.seq + known.seq)
        reply = self._call(operation, epoch, seq, *arguments)
        if known.times == 1:
            return reply
        before = self._state
        again = self._call(operation, epoch, seq, *arguments)
        is_over = any(not self._now_ms < end <= self._now_ms + LONGEST_HOLD_MS for end in before.holds.values())
        takes_over = operation == "begin" and (reply, again) == (["busy"], ["ok"])
        # who claims to know a change that is only about to come is behind no more once it has
        catches_up = operation == "hold" and reply[0] == "behind" and known.seq > 0
        if not is_over and not takes_over and not catches_up:  # nothing that only time has brought
            after = self._state
            assert (after.epoch, after.texts, after.used) == (before.epoch, before.texts, before.used)
            assert set(after.holds) == set(before.holds)
        return again

    def _call(self, operation: str, epoch: str, seq: int, *arguments: str) -> Reply:
        answered = self._redis.call(operation, epoch, str(seq), *arguments)
        # Not every answer says when it was given: then it was at one of these times.
        times = range(answered.earliest_ms, answered.latest_ms + 1)
        if len(answered.reply) > 3:
            assert int(answered.reply[2]) in times
            times = range(int(answered.reply[2]), int(answered.reply[2]) + 1)
        for self._now_ms in times:
            model = self._model.copy()
            right = model.call(operation, epoch, seq, *arguments, now_ms=self._now_ms)
            if answered.reply in right and State.of(model) == answered.state:
                break
        assert answered.reply in right
        self._go_on(model, answered.state)
        return answered.reply

    def _happened(self, model: LedgerModel) -> None:
        """Something happened to the server, and not by the script."""
        self._go_on(replace(model, server=self._redis.identity()), self._redis.state())

    def _go_on(self, model: LedgerModel, state: State) -> None:
        assert state == State.of(model)
        if self._model.epoch not in (None, model.epoch):
            self._earlier_epoch = self._model.epoch
        self._model, self._state = model, state

    def _look_up(self, uid: str, text: Text) -> str:
        if isinstance(text, str):
            return text
        stored = self._state.texts.get(uid)
        if stored is None:
            return text.otherwise
        return json.dumps({**json.loads(stored), "state": text.state}) if text.state else stored
