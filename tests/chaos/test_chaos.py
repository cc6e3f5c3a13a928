"""Whatever happens, in whatever order: no GPU is over-committed, every pod that fits runs, and nothing leaks.

hypothesis plays a world for a short time; ``make chaos`` plays a larger one for longer, with the same operations. The
processes are real, so what fails need not fail again: there is no shrinking, and the logs are kept.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from cli.simulation import SimulatedNode
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid, NodeName, PodUid
from tests.chaos import events
from tests.chaos.ending import end, leftovers
from tests.chaos.events import Event
from tests.chaos.gateway import BINDING_FAULTS
from tests.chaos.redis_server import DATA
from tests.chaos.script import Script
from tests.chaos.service import ECHOES
from tests.chaos.shapes import Ask, Shape, draw_shape
from tests.chaos.truth import Amount, fits, violations
from tests.chaos.world import World

NODES = (SimulatedNode("node-1", "Test GPU", 10240, 2), SimulatedNode("node-2", "Odd Test GPU", 11264, 2))
NAMES = tuple(NodeName(node.name) for node in NODES)
REPLICAS = 2
EXTENDERS = [f"extender-{number}" for number in range(REPLICAS)]
RULE_SECONDS = 0.15

SETTINGS = settings(
    max_examples=3,
    stateful_step_count=20,
    deadline=None,
    phases=[Phase.generate],
    database=None,
    suppress_health_check=list(HealthCheck),
)

shapes = st.randoms(use_true_random=False).map(draw_shape)
nodes = st.sampled_from(NAMES)
replicas = st.integers(0, REPLICAS - 1)
clients = st.sampled_from([*NAMES, *EXTENDERS])

faults = st.one_of(
    st.just(events.save_redis()),  # first: hypothesis begins with an example of nothing but the simplest
    st.just(events.kill_redis()),
    st.builds(events.start_redis, st.sampled_from(DATA)),
    st.just(events.flush_redis()),
    st.builds(events.set_clock, st.sampled_from([-3600, -3, 0, 3, 3600])),
    st.builds(events.kill_extender, replicas),
    st.builds(events.start_extender, replicas),
    st.builds(events.freeze_extender, replicas),
    st.builds(events.thaw_extender, replicas),
    st.builds(events.echo_binds, st.sampled_from(ECHOES), st.integers(1, 3)),
    st.builds(events.kill_plugin, nodes),
    st.builds(events.start_plugin, nodes),
    st.builds(events.restart_kubelet, nodes),
    st.builds(events.reboot, nodes),
    st.builds(events.fault_bindings, st.sampled_from(EXTENDERS), st.sampled_from(BINDING_FAULTS), st.integers(1, 2)),
    st.builds(events.cut_off, clients),
    st.builds(events.slow_down, clients, st.sampled_from([0.3, 0.9])),
    st.builds(events.lag, clients, st.sampled_from(["pods", "gpunodes"])),
    st.builds(events.double_events, clients),
    st.builds(events.calm, clients),
    st.builds(events.refuse_requests, clients, st.integers(1, 3)),
    st.builds(events.cut_watches, st.booleans()),
)


@dataclass
class Played:
    """A world and the loop that it lives in, which runs only while something is played.

    What goes wrong is noted and not raised: hypothesis would play the example again, and real processes need not do
    the same again. After it nothing more is played.
    """

    world: World
    runner: asyncio.Runner
    directory: Path
    pods: int = 0
    story: list[str] = field(default_factory=list)  # what happened in the present example
    wrong: list[str] = field(default_factory=list)

    def play(self, happening: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(happening)

    def happen(self, event: Event) -> None:
        if not self.wrong:
            self.story.append(event.text)
            self.play(event.happen(self.world))
            self.pass_time(RULE_SECONDS)

    def pass_time(self, seconds: float) -> None:
        if not self.wrong:
            self.play(asyncio.sleep(seconds))
            self.world.truth.check(when=self.story[-1])
            self.wrong += self.world.truth.overcommits()

    def end(self) -> None:
        if not self.wrong:
            self.wrong += self.play(end(self.world))
            self.wrong += self.world.truth.overcommits()

    def new_name(self) -> str:
        self.pods += 1
        return f"p{self.pods}"


class Chaos(RuleBasedStateMachine):
    """Whatever can happen to a world; what is wrong at the end of an example is put right by `end`.

    Few rules with many cases each: hypothesis leaves whole rules out of an example.
    """

    pods = Bundle("pods")
    played: ClassVar[Played]

    def __init__(self) -> None:
        super().__init__()
        if not self.played.wrong:
            self.played.story = ["the world is as new"]

    @initialize(target=pods, wanted=st.lists(shapes, min_size=3, max_size=6))
    def begin(self, wanted: list[Shape]) -> Any:
        return self.create(wanted)

    @rule(target=pods, wanted=st.lists(shapes, min_size=1, max_size=4))
    def create(self, wanted: list[Shape]) -> Any:
        pods = {self.played.new_name(): shape for shape in wanted}
        self.played.happen(events.create(pods))
        return multiple(*pods)

    @rule(name=consumes(pods), force=st.booleans())
    def delete(self, name: str, force: bool) -> None:
        self.played.happen(events.delete([name], force))

    @rule(name=pods, shape=shapes, force=st.booleans())
    def recreate(self, name: str, shape: Shape, force: bool) -> None:
        self.played.happen(events.recreate(name, shape, force))

    @rule(name=pods, what=st.sampled_from([events.finish, events.fail_from_outside]))
    def finish(self, name: str, what: Callable[[str], Event]) -> None:
        self.played.happen(what(name))

    @rule(name=pods, seconds=st.sampled_from([0, 1]))
    def crash(self, name: str, seconds: float) -> None:
        self.played.happen(events.crash(name, seconds))

    @rule(event=faults)
    def go_wrong(self, event: Event) -> None:
        self.played.happen(event)

    @rule(event=faults)
    def go_wrong_again(self, event: Event) -> None:
        self.played.happen(event)

    @rule(seconds=st.sampled_from([0.5, 1, 2]))
    def time_passes(self, seconds: float) -> None:
        self.played.pass_time(seconds)

    def teardown(self) -> None:
        self.played.end()


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))  # tmp_path is too long for Unix sockets
    with asyncio.Runner() as runner:
        world = World(directory, nodes=NODES, replicas=REPLICAS)
        runner.run(world.start())
        played = Played(world, runner, directory)
        try:
            yield played
        finally:
            runner.run(world.stop())
    if not played.wrong:
        shutil.rmtree(directory)


@pytest.mark.timeout(400)
def test_nothing_is_overcommitted_lost_or_leaked_whatever_happens(played: Played) -> None:
    Chaos.played = played
    run_state_machine_as_test(Chaos, settings=SETTINGS)
    assert not played.wrong, "\n".join([*played.story, "=> WRONG:", *played.wrong, f"logs: {played.directory}"])
    assert played.world.truth.started  # something did run


def test_a_leak_is_found(played: Played) -> None:
    async def leak() -> list[str]:
        async with played.world.server.client() as redis:
            await redis.hset("{fracgpu}:claims", "uid-of-nobody", '0|{"node":"node-1"}')
            try:
                return await leftovers(played.world)
            finally:
                await redis.hdel("{fracgpu}:claims", "uid-of-nobody")

    assert played.play(leak()) == ['the ledger claims for pod uid-of-nobody: 0|{"node":"node-1"}']


def test_the_same_seed_gives_the_same_events() -> None:
    def texts(seed: int) -> list[tuple[str, float]]:
        script = Script(seed, replicas=3, nodes=NAMES, can_jump=True)
        return [(step.event.text, step.pause_seconds) for step in script.steps(200)]

    assert texts(7) == texts(7)
    assert texts(7) != texts(8)


A, B = GpuUuid("GPU-a"), GpuUuid("GPU-b")
UNITS = {A: 8, B: 8}


def held(resource: str, *ids: str) -> dict[str, frozenset[str]]:
    return {resource: frozenset(ids)}


def test_more_units_than_a_gpu_has_are_a_violation() -> None:
    full = [f"GPU-a::m{number}" for number in range(8)]
    assert violations({(PodUid("1"), "c"): held(RESOURCE_MEMORY, *full)}, units=UNITS) == []
    seat = held(RESOURCE_REPLICA, "GPU-a::r0")  # takes a quarter of the units with it
    found = violations({(PodUid("1"), "c"): held(RESOURCE_MEMORY, *full), (PodUid("2"), "c"): seat}, units=UNITS)
    assert found == ["GPU-a has 8 units and 4 seats, and 10 units and 1 seats are held"]


def test_a_device_id_in_two_containers_is_a_violation() -> None:
    twice = {(PodUid(uid), "c"): held(RESOURCE_MEMORY, "GPU-b::m3") for uid in "12"}
    assert violations(twice, units=UNITS) == ["GPU-b::m3 is held by 2 containers"]


def test_what_fits_is_found_by_trying_every_way() -> None:
    free = {A: Amount(4, 4), B: Amount(8, 4)}
    sizes = UNITS
    small, large = Ask("c", units=3), Ask("c", units=8)
    assert fits((small, large), free, sizes=sizes)  # the small one must not go where only the large one fits
    assert not fits((small, small, large), free, sizes=sizes)
    assert fits((Ask("c", units=4, gpus=2),), free, sizes=sizes)
    assert not fits((Ask("c", units=5, gpus=2),), free, sizes=sizes)
    assert fits((Ask("c", seats=4),), free, sizes=sizes)
    assert not fits((Ask("c", seats=4), Ask("c", seats=4)), free, sizes=sizes)
