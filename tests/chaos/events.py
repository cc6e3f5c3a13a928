"""What can happen to a world, each with its text for the log: the long run and the hypothesis test draw from these."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fracgpu.names import NodeName
from tests.chaos.gateway import BindingFault
from tests.chaos.redis_server import Data
from tests.chaos.service import Echo
from tests.chaos.shapes import Shape
from tests.chaos.world import World


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens.

    Attributes:
        text: what, for the log.
        operation: what does it to a world.
        is_fault: whether it is something that goes wrong, and not daily life or the end of a fault.
    """

    text: str
    operation: Callable[[World], Awaitable[None] | None] = field(repr=False)
    is_fault: bool = True

    async def happen(self, world: World) -> None:
        """Do it; returns without waiting for what comes of it."""
        doing = self.operation(world)
        if doing is not None:
            await doing


# Pods.


def create(pods: Mapping[str, Shape]) -> Event:
    text = ", ".join(f"{name} ({shape})" for name, shape in pods.items())
    return Event(f"create {text}", lambda world: world.create(pods), is_fault=False)


def delete(names: Sequence[str], force: bool) -> Event:
    text = f"{'force-' * force}delete {', '.join(names)}"
    return Event(text, lambda world: world.delete(names, force=force), is_fault=False)


def recreate(name: str, shape: Shape, force: bool) -> Event:
    text = f"{'force-' * force}delete {name} and create it anew: {shape}"
    return Event(text, lambda world: world.recreate(name, shape, force=force), is_fault=False)


def finish(name: str) -> Event:
    return Event(f"{name} ends by itself", lambda world: world.finish(name), is_fault=False)


def crash(name: str, seconds: float) -> Event:
    text = f"{name} crashes, back off {seconds} s"
    return Event(text, lambda world: world.crash(name, back_off_seconds=seconds))


def fail_from_outside(name: str) -> Event:
    return Event(f"mark {name} Failed from outside", lambda world: world.fail_from_outside(name))


# Extenders.


def kill_extender(number: int) -> Event:
    return Event(f"kill -9 extender-{number}", lambda world: world.kill(world.replicas[number]))


def start_extender(number: int) -> Event:
    return Event(f"start extender-{number}", lambda world: world.start_extender(world.replicas[number]), is_fault=False)


def freeze_extender(number: int) -> Event:
    return Event(f"freeze extender-{number}", lambda world: world.replicas[number].freeze())


def thaw_extender(number: int) -> Event:
    text = f"let extender-{number} go on"
    return Event(text, lambda world: world.thaw_extender(world.replicas[number]), is_fault=False)


def echo_binds(echo: Echo, count: int) -> Event:
    text = f"send the next {count} binds to two replicas, to the second with {echo}"
    return Event(text, lambda world: world.service.echo_binds(echo, count=count))


# Redis.


def kill_redis() -> Event:
    return Event("kill -9 Redis", lambda world: world.server.kill())


def start_redis(data: Data) -> Event:
    return Event(f"start Redis, data {data}", lambda world: world.server.start(data), is_fault=False)


def save_redis() -> Event:
    return Event("keep a copy of Redis' data", lambda world: world.server.save(), is_fault=False)


def flush_redis() -> Event:
    return Event("flush Redis", lambda world: world.server.flush())


def set_clock(seconds: float) -> Event:
    return Event(f"set Redis' clock {seconds} s ahead", lambda world: world.server.clock.set(seconds=seconds))


# Nodes.


def kill_plugin(node: NodeName) -> Event:
    return Event(f"kill -9 the plugin of {node}", lambda world: world.kill(world.plugins[node]))


def start_plugin(node: NodeName) -> Event:
    return Event(f"start the plugin of {node}", lambda world: world.start_plugin(node), is_fault=False)


def restart_kubelet(node: NodeName) -> Event:
    return Event(f"restart the kubelet of {node}", lambda world: world.kubelets[node].restart())


def reboot(node: NodeName) -> Event:
    return Event(f"reboot {node}", lambda world: world.reboot(node))


# The API server, as a client sees it.


def fault_bindings(client: str, fault: BindingFault, count: int) -> Event:
    text = f"the next {count} Bindings of {client}: {fault}"
    return Event(text, lambda world: world.gateway.clients[client].bindings.extend([fault] * count))


def cut_off(client: str) -> Event:
    return Event(f"cut {client} off from the API server", lambda world: world.gateway.clients[client].cut())


def slow_down(client: str, seconds: float) -> Event:
    text = f"requests of {client} take {seconds} s longer"
    return Event(text, lambda world: world.gateway.clients[client].slow_down(seconds=seconds))


def refuse_requests(client: str, count: int) -> Event:
    text = f"answer the next {count} requests of {client} with 500"
    return Event(text, lambda world: world.gateway.clients[client].refuse(count=count))


def lag(client: str, resource: str) -> Event:
    return Event(f"{client} sees {resource} late", lambda world: world.gateway.clients[client].lag(resource))


def double_events(client: str) -> Event:
    return Event(f"{client} hears every event twice", lambda world: world.gateway.clients[client].double())


def calm(client: str) -> Event:
    text = f"the way of {client} to the API server is right"
    return Event(text, lambda world: world.gateway.clients[client].calm(), is_fault=False)


def cut_watches(compact: bool) -> Event:
    text = f"cut all watches{', none can resume' * compact}"
    return Event(text, lambda world: world.cut_watches(compact=compact))
