"""The admission of pods with devices: who is asked what, in which order, and what a refusal looks like.

One suite for the playground's kubelet and for a real one. What the real kubelet does is right; the stub follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fracgpu.kubelet import deviceplugin_pb2 as pb
from tests.conformance.lab import IDS, A, B, Lab, last_two, without_devices
from tests.nodebench import make_container
from tests.recordingplugin import Call, answer_env

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_the_preference_is_followed_exactly(lab: Lab) -> None:
    plugin = await lab.plug(prefer=last_two)
    await lab.run("p", c={A: 2})
    asked, allocated = plugin.calls
    assert (asked.method, asked.ids, asked.must_include, asked.size) == (
        "GetPreferredAllocation",
        frozenset(IDS),
        frozenset(),
        2,
    )
    assert (allocated.method, allocated.ids) == ("Allocate", frozenset(IDS[-2:]))
    assert await lab.listing() == {"p": {"c": {A: set(IDS[-2:])}}}


async def test_the_preference_is_asked_even_where_there_is_no_choice(lab: Lab) -> None:
    plugin = await lab.plug(prefer=lambda call: sorted(call.ids))
    await lab.run("p", c={A: 8})
    assert [call.method for call in plugin.calls] == ["GetPreferredAllocation", "Allocate"]


@pytest.mark.parametrize(
    ("prefer", "want"),
    [
        (lambda call: [*sorted(call.ids)[:1], "unknown"], {IDS[0]}),
        (lambda call: sorted(call.ids)[:5], set()),
    ],
    ids=["too few: filled up", "too many: some of them"],
)
async def test_an_imperfect_preference_is_completed(
    lab: Lab,
    prefer: Callable[[Call], list[str]],
    want: set[str],
) -> None:
    plugin = await lab.plug(prefer=prefer)
    await lab.run("p", c={A: 3})
    (got,) = plugin.allocated()
    assert len(got) == 3
    assert want <= got
    if not want:
        assert got <= set(IDS[:5])


async def test_a_plugin_without_preference_is_only_asked_to_allocate(lab: Lab) -> None:
    plugin = await lab.plug()
    await lab.run("p", c={A: 3}, d={A: 3})
    first, second = plugin.allocated()
    assert [call.method for call in plugin.calls] == ["Allocate", "Allocate"]
    assert not first & second


async def test_pod_resources_shows_the_pod_under_admission_as_the_only_one_without_devices(lab: Lab) -> None:
    plugin = await lab.plug(prefer=last_two)
    await lab.run("first", c={A: 2})
    await lab.run("second", c={A: 2})
    assert [sorted(call.listing) for call in plugin.calls] == [["first"]] * 2 + [["first", "second"]] * 2
    assert [without_devices(call.listing) for call in plugin.calls] == [["first"]] * 2 + [["second"]] * 2


async def test_admission_is_serial(lab: Lab) -> None:
    may_answer = asyncio.Event()
    open_calls, most_open = 0, 0

    async def slowly(call: Call) -> pb.ContainerAllocateResponse:
        nonlocal open_calls, most_open
        open_calls += 1
        most_open = max(most_open, open_calls)
        await may_answer.wait()
        open_calls -= 1
        return await answer_env(call)

    plugin = await lab.plug(allocate=slowly)
    await lab.create("p0", c={A: 1})
    await plugin.next_call()
    for name in ("p1", "p2", "p3"):
        await lab.create(name, c={A: 1})
    may_answer.set()
    for name in ("p0", "p1", "p2", "p3"):
        await lab.until_phase(name, "Running")
    assert most_open == 1
    assert [len(without_devices(call.listing)) for call in plugin.calls] == [1] * 4
    assert len(frozenset().union(*plugin.allocated())) == 4


async def test_an_allocate_error_fails_the_pod_with_the_plugins_sentence(lab: Lab) -> None:
    async def refuse(_call: Call) -> pb.ContainerAllocateResponse:
        raise PermissionError("GPU-x still runs the processes of pod old")

    await lab.plug(allocate=refuse)
    await lab.create("p", c={A: 1})
    message = await lab.rejection("p")
    assert message == (
        "Pod was rejected: Allocate failed due to rpc error: code = FailedPrecondition desc = "
        "GPU-x still runs the processes of pod old, which is unexpected"
    )
    assert await lab.listing() == {}


async def test_a_preference_error_fails_the_pod_with_the_plugins_sentence(lab: Lab) -> None:
    def refuse(_call: Call) -> list[str]:
        raise PermissionError("no plan for this pod")

    plugin = await lab.plug(prefer=refuse)
    await lab.create("p", c={A: 1})
    message = await lab.rejection("p")
    assert message == (
        "Pod was rejected: Allocate failed due to device plugin GetPreferredAllocation rpc failed with err: "
        "rpc error: code = ResourceExhausted desc = no plan for this pod, which is unexpected"
    )
    assert plugin.allocated() == []


async def test_too_few_devices_fail_the_pod_and_what_it_had_is_free_again(lab: Lab) -> None:
    await lab.plug()
    await lab.create("big", c={A: 6}, d={A: 3})
    message = await lab.rejection("big")
    assert message == (
        f"Pod was rejected: Allocate failed due to requested number of devices unavailable for {A}. "
        "Requested: 3, Available: 2, which is unexpected"
    )
    await lab.run("next", c={A: 8})


async def test_a_resource_that_no_plugin_ever_offered_is_not_asked_for(lab: Lab) -> None:
    await lab.run("p", c={"example.com/never": 1})
    assert await lab.listing() == {"p": {"c": {}}}


async def test_two_resources_are_two_allocations(lab: Lab) -> None:
    first, second = await lab.plug(A), await lab.plug(B, ["b0", "b1"])
    await lab.run("p", c={A: 2, B: 1})
    (of_a,), (of_b,) = first.allocated(), second.allocated()
    assert await lab.listing() == {"p": {"c": {A: set(of_a), B: set(of_b)}}}


async def test_the_pods_own_env_comes_after_the_plugins_and_cdi_devices_are_passed(lab: Lab) -> None:
    plugin = await lab.plug()
    pod = lab.pod("p")
    pod["spec"]["containers"] = [make_container("c", {A: 1}, env=[{"name": "CHOSEN", "value": "mine"}])]
    uid = await lab.run_pod(pod)
    container = lab.node.container(uid, "c")
    (ids,) = plugin.allocated()
    env = [pair for pair in container.env if pair[0] in ("CHOSEN", "FROM_PLUGIN")]
    assert env[-1] == ("CHOSEN", "mine")
    assert sorted(env[:-1]) == [("CHOSEN", *ids), ("FROM_PLUGIN", "1")]
    assert container.cdi_devices == ("example.com/gpu=0",)


async def test_app_containers_reuse_an_init_containers_devices_unasked(lab: Lab) -> None:
    plugin = await lab.plug(
        prefer=lambda call: [*sorted(call.must_include), *sorted(call.ids - call.must_include)][: call.size]
    )
    pod = lab.pod("p", c={A: 2}, d={A: 4})
    pod["spec"]["initContainers"] = [make_container("warm", {A: 4})]
    await lab.run_pod(pod, init="warm")
    methods = [call.method for call in plugin.calls]
    assert methods == ["GetPreferredAllocation", "Allocate", "Allocate", "GetPreferredAllocation", "Allocate"]
    init, app, other = plugin.allocated()
    assert app < init
    assert init - app < other
    assert plugin.calls[3].must_include == init - app
    assert plugin.calls[3].ids == init - app | (set(IDS) - init)
    assert await lab.listing() == {"p": {"c": {A: set(app)}, "d": {A: set(other)}}}


async def test_a_sidecar_is_listed_and_keeps_its_devices(lab: Lab) -> None:
    plugin = await lab.plug()
    pod = lab.pod("p", c={A: 2})
    pod["spec"]["initContainers"] = [make_container("side", {A: 2}, restartPolicy="Always")]
    await lab.run_pod(pod)
    side, app = plugin.allocated()
    assert not side & app
    assert await lab.listing() == {"p": {"side": {A: set(side)}, "c": {A: set(app)}}}
