"""What happens in a run, drawn from its seed alone: the same seed gives the same events on the same names.

The script knows only what it has drawn itself, never what became of it. What is wrong for a while gets its end drawn
with its beginning, some steps later. Pure.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fracgpu.names import NodeName
from tests.chaos import events
from tests.chaos.events import Event
from tests.chaos.gateway import BINDING_FAULTS
from tests.chaos.redis_server import DATA
from tests.chaos.service import ECHOES
from tests.chaos.shapes import draw_shape

MAX_PODS = 32
"""They ask for more than the GPUs have: what comes free is taken at once. More would only wait."""

PAUSES_SECONDS = (0, 0, 0.1, 0.3, 0.6, 1, 1.5)


@dataclass(frozen=True, slots=True)
class Step:
    """An event, and the seconds that pass after it."""

    event: Event
    pause_seconds: float


class Script:
    """Draws a run.

    Args:
        seed: what it is drawn from.
        replicas: how many extenders there are.
        nodes: the nodes' names.
        can_jump: whether Redis' clock can be shifted.
    """

    def __init__(self, seed: int, *, replicas: int, nodes: Sequence[NodeName], can_jump: bool) -> None:
        self._created = 0
        self._rng = random.Random(seed)
        self._replicas = range(replicas)
        self._nodes = nodes
        self._extenders = [f"extender-{number}" for number in self._replicas]
        self._clients = [*self._extenders, *nodes]
        self._pods: list[str] = []  # created, and not deleted by us
        self._wrong: set[str] = set()  # what is down, frozen or disturbed
        self._due: list[tuple[int, Event, str]] = []  # step, what ends a fault, its name in `_wrong`
        self._step = 0
        draw, integer = self._rng.choice, self._rng.randint
        self._draws: list[tuple[float, Callable[[], Event | None]]] = [  # how often, what: None where it cannot be
            (42, self._create),
            (24, self._delete),
            (4, lambda: self._to_a_pod(lambda name: events.recreate(name, draw_shape(self._rng), self._force()))),
            (4, lambda: self._to_a_pod(lambda name: events.crash(name, draw([0, 0.5, 2])))),
            (5, lambda: self._to_a_pod(events.finish)),
            (3, lambda: self._to_a_pod(events.fail_from_outside)),
            (5, self._kill_extender),
            (4, self._freeze_extender),
            (6, lambda: events.echo_binds(draw(ECHOES), integer(1, 4))),
            (2.5, self._kill_redis),
            (3, events.save_redis),
            (0.7, lambda: None if "redis" in self._wrong else events.flush_redis()),
            (3 if can_jump else 0, lambda: events.set_clock(draw([-7200, -90, -5, -1, 0, 1, 3, 10, 120, 10800]))),
            (3, self._kill_plugin),
            (1.5, lambda: events.restart_kubelet(draw(self._nodes))),
            (1, self._reboot),
            (8, lambda: events.fault_bindings(draw(self._extenders), draw(BINDING_FAULTS), integer(1, 3))),
            (3, lambda: self._disturb(events.cut_off(client := draw(self._clients)), client)),
            (3, lambda: self._disturb(events.slow_down(client := draw(self._clients), draw([0.1, 0.4, 0.9])), client)),
            (4, lambda: self._disturb(events.lag(client := draw(self._clients), draw(["pods", "gpunodes"])), client)),
            (1, lambda: self._disturb(events.double_events(client := draw(self._clients)), client)),
            (2, lambda: events.refuse_requests(draw(self._clients), integer(1, 5))),
            (2, lambda: events.cut_watches(draw([True, False]))),
        ]

    def steps(self, count: int) -> Iterator[Step]:
        """Draw so many steps."""
        for self._step in range(count):
            yield Step(self._next(), self._rng.choice(PAUSES_SECONDS))

    def _next(self) -> Event:
        for entry in self._due:
            due, event, name = entry
            if due <= self._step:
                self._due.remove(entry)
                self._wrong.discard(name)
                return event
        weights = [weight for weight, _ in self._draws]
        while True:
            (draw,) = self._rng.choices([draw for _, draw in self._draws], weights)
            drawn = draw()
            if drawn is not None:
                return drawn

    def _begin(self, event: Event, *, wrong: str, until: Event, after: tuple[int, int]) -> Event | None:
        """Something is wrong from now on, and that ends after some steps; None where it is wrong already."""
        if wrong in self._wrong:
            return None
        self._wrong.add(wrong)
        self._due.append((self._step + self._rng.randint(*after), until, wrong))
        return event

    def _force(self) -> bool:
        return self._rng.random() < 0.35

    def _create(self) -> Event | None:
        pods = {}
        for _ in range(min(self._rng.choice([1, 1, 2, 4]), MAX_PODS - len(self._pods))):
            self._created += 1
            pods[f"p{self._created}"] = draw_shape(self._rng)
        self._pods += pods
        return events.create(pods) if pods else None

    def _delete(self) -> Event | None:
        count = min(self._rng.choice([1, 1, 2, 3]), len(self._pods))
        names = [self._pods.pop(self._rng.randrange(len(self._pods))) for _ in range(count)]
        return events.delete(names, self._force()) if names else None

    def _to_a_pod(self, what: Callable[[str], Event]) -> Event | None:
        return what(self._rng.choice(self._pods)) if self._pods else None

    def _kill_extender(self) -> Event | None:
        number = self._rng.choice(self._replicas)
        until = events.start_extender(number)
        return self._begin(events.kill_extender(number), wrong=f"extender-{number}", until=until, after=(1, 8))

    def _freeze_extender(self) -> Event | None:
        number = self._rng.choice(self._replicas)
        until = events.thaw_extender(number)
        return self._begin(events.freeze_extender(number), wrong=f"extender-{number}", until=until, after=(2, 10))

    def _kill_redis(self) -> Event | None:
        until = events.start_redis(self._rng.choice(DATA))
        return self._begin(events.kill_redis(), wrong="redis", until=until, after=(1, 5))

    def _kill_plugin(self) -> Event | None:
        node = self._rng.choice(self._nodes)
        return self._begin(events.kill_plugin(node), wrong=node, until=events.start_plugin(node), after=(1, 8))

    def _reboot(self) -> Event | None:
        node = self._rng.choice(self._nodes)
        return None if node in self._wrong else events.reboot(node)

    def _disturb(self, event: Event, client: str) -> Event | None:
        return self._begin(event, wrong=f"way of {client}", until=events.calm(client), after=(2, 12))
