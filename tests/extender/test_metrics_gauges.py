"""The cluster's GPUs in numbers."""

from collections.abc import Mapping

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from extender.exposition.gpus import GPU_HELP, NodeRow, gpu_lines, row_of
from extender.exposition.models import ModelTotals, add_to, fragmentation_of, model_lines
from extender.exposition.text import head
from extender.index import Index
from extender.ledger.claims import Claim, Entry
from extender.placement.mix import Ask
from fracgpu.gpunodes import GpuNode, UsedMemory
from fracgpu.hosts import NOTHING
from fracgpu.names import GpuUuid, NodeName, PodUid
from fracgpu.quantities import Mib
from fracgpu.selectors import GpuSelector
from tests.extender.builders import UNIT, claim, gpu_node

GIB = 2**30
NODE = NodeName("node-1")


def row(node: GpuNode, *claims: Claim) -> NodeRow:
    """A node as the index sees it, with claims on it."""
    index = Index()
    index.put_node(node)
    for found in claims:
        index.change_claim(found.uid, Entry(found, 0))
    view = index.view(node.node)
    assert view is not None
    return row_of(node, view, unit=UNIT)


def values(found: NodeRow) -> dict[str, dict[str, float]]:
    """GPU -> name of the gauge without its prefix -> value."""
    text = "".join(head(name, help_) + "".join(gpu_lines(name, [found])) for name, help_ in GPU_HELP.items())
    gauges: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels["node"] == "node-1"
            gauges.setdefault(sample.labels["gpu"], {})[sample.name.removeprefix("fracgpu_gpu_")] = sample.value
    return gauges


def used(node: GpuNode, **mib: int) -> GpuNode:
    usage = tuple(UsedMemory(PodUid("1"), "main", GpuUuid(gpu), Mib(size)) for gpu, size in mib.items())
    return msgspec.structs.replace(node, status=msgspec.structs.replace(node.status, usage=usage))


def test_what_is_taken_free_and_used_of_each_gpu() -> None:
    node = used(gpu_node("node-1", "a", "b"), a=1024)

    found = values(row(node, claim("p", gpu="a", units=16), claim("q", gpu="a", units=4, state="held")))

    assert found["a"] == {
        "info": 1,
        "memory_bytes": 40 * GIB,
        "memory_offered_bytes": 40 * GIB,
        "memory_claimed_bytes": 10 * GIB,
        "memory_free_bytes": 30 * GIB,
        "memory_used_bytes": 1 * GIB,
        "seats": 4,
        "seats_claimed": 0,
        "usable": 1,
    }
    assert found["b"]["memory_used_bytes"] == 0  # measured, and nobody uses it
    assert found["b"]["memory_free_bytes"] == 40 * GIB


def test_what_was_not_measured_is_not_said() -> None:
    assert "memory_used_bytes" not in values(row(gpu_node("node-1", "a")))["a"]


def test_an_overdrawn_gpu_has_nothing_free_and_more_claimed_than_it_offers() -> None:
    found = values(row(gpu_node("node-1", "a"), claim("p", gpu="a", units=60), claim("q", gpu="a", units=30)))["a"]

    assert (found["memory_claimed_bytes"], found["memory_free_bytes"]) == (45 * GIB, 0)


UNUSABLE = {
    "its plugin has not spoken": gpu_node("node-1", "a", observed=""),
    "another memory unit": gpu_node("node-1", "a", unit=256),
}


@pytest.mark.parametrize("node", UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_is_not_free(node: GpuNode) -> None:
    found = values(row(node))["a"]
    totals: dict[str, ModelTotals] = {}
    add_to(totals, row(node))

    assert (found["usable"], found["memory_free_bytes"]) == (0, 0)
    assert found["memory_offered_bytes"] == 80 * node.spec.memory_unit * 2**20
    assert (totals["Test GPU"].usable_gpus, totals["Test GPU"].free, totals["Test GPU"].largest_free) == (0, 0, 0)


def test_names_are_escaped() -> None:
    odd = gpu_node("node-1", "a")
    gpu = msgspec.structs.replace(odd.spec.gpus[0], product='A "B"\\\nC')
    node = msgspec.structs.replace(odd, spec=msgspec.structs.replace(odd.spec, gpus=(gpu,)))
    (family,) = text_string_to_metric_families("".join(gpu_lines("fracgpu_gpu_info", [row(node)])))
    assert family.samples[0].labels["product"] == 'A "B"\\\nC'


def test_models_are_the_sums_of_their_gpus() -> None:
    totals: dict[str, ModelTotals] = {}
    add_to(totals, row(used(gpu_node("node-1", "a", "b"), a=2048, b=1024), claim("p", gpu="a", units=70)))
    add_to(totals, row(gpu_node("node-2", "c"), claim("q", node="node-2", gpu="c", units=80)))

    found = {
        family.name.removeprefix("fracgpu_cluster_"): sample.value
        for family in text_string_to_metric_families("".join(model_lines(totals)))
        for sample in family.samples
    }

    assert found == {
        "gpus": 3,
        "usable_gpus": 3,
        "memory_offered_bytes": 120 * GIB,
        "memory_claimed_bytes": 75 * GIB,
        "memory_free_bytes": 45 * GIB,
        "memory_used_bytes": 3 * GIB,
        "seats": 12,
        "seats_claimed": 0,
        "largest_free_bytes": 40 * GIB,
    }


def fragmentation(mix: Mapping[Ask, float], *claimed: int) -> float:
    """Of GPUs of 80 units, of which so many are claimed."""
    totals: dict[str, ModelTotals] = {}
    for number, units in enumerate(claimed):
        name = f"node-{number}"
        add_to(totals, row(gpu_node(name, "a"), *([claim("p", node=name, gpu="a", units=units)] if units else [])))
    return fragmentation_of("Test GPU", totals["Test GPU"], mix)


def ask(units: int = 0, *, seats: int = 0, selector: GpuSelector | None = None) -> Ask:
    return Ask(1, units, seats, None, selector, NOTHING)


FRAGMENTATION = {
    "empty GPUs take all that can be asked": ({ask(80): 1.0}, [0, 0], 0.0),
    "a piece that is too small for all": ({ask(20): 1.0}, [70], 1.0),
    "half of what is free is in such a piece": ({ask(20): 1.0}, [70, 70, 60], 0.5),
    "half of the requests could use it": ({ask(20): 0.5, ask(10): 0.5}, [70], 0.5),
    "seats take memory with them": ({ask(seats=2): 1.0}, [50], 1.0),
    "requests for other models do not count": ({ask(20, selector=GpuSelector(models=("A100",))): 1.0}, [70], 0.0),
    "nor those that no such GPU could take": ({ask(81): 0.9, ask(10): 0.1}, [70], 0.0),
    "nothing is free": ({ask(20): 1.0}, [80], 0.0),
    "nothing was asked yet": ({}, [70], 0.0),
}  # case -> the mix, claimed units, what is lost


@pytest.mark.parametrize(("mix", "claimed", "want"), FRAGMENTATION.values(), ids=FRAGMENTATION)
def test_fragmentation_is_what_a_usual_request_could_not_use(
    mix: Mapping[Ask, float], claimed: list[int], want: float
) -> None:
    assert fragmentation(mix, *claimed) == pytest.approx(want)
