"""The GPUNode on the wire; that the API server keeps all of it is tested in tests/deploy."""

import json

import msgspec
import pytest

from fracgpu.gpunodes import Gpu, GpuNode, GpuNodeSpec, GpuNodeStatus, Grant, UsedMemory, written
from fracgpu.names import GpuUuid, PodUid
from fracgpu.plans import Share
from fracgpu.pods import ObjectMeta
from fracgpu.quantities import Mib

GPU = Gpu(GpuUuid("GPU-a"), 0, "Tesla T4", Mib(15360), units=30, replicas=4, numa_node=1)
GRANT = Grant(PodUid("uid-1"), "team-a", "chat", {"main": (Share(GpuUuid("GPU-a"), 8),)})
BARE = Gpu(GpuUuid("GPU-b"), 1, "Tesla T4", Mib(15360), units=30, replicas=4)
NODE = GpuNode(
    ObjectMeta(name="node-1"), GpuNodeSpec(Mib(512), (GPU, BARE)), GpuNodeStatus("42", (GRANT,), (PodUid("uid-2"),))
)


def test_the_form_on_the_wire() -> None:
    assert (NODE.api_version, NODE.kind) == ("fracgpu.io/v1alpha1", "GPUNode")
    assert written(NODE.spec) == {
        "memoryUnitMiB": 512,
        "gpus": [
            {
                "uuid": "GPU-a",
                "index": 0,
                "product": "Tesla T4",
                "memoryMiB": 15360,
                "units": 30,
                "replicas": 4,
                "numaNode": 1,
            },
            {"uuid": "GPU-b", "index": 1, "product": "Tesla T4", "memoryMiB": 15360, "units": 30, "replicas": 4},
        ],
        "numaHints": False,
    }
    assert written(NODE.status) == {
        "observedPods": "42",
        "grants": [
            {
                "podUID": "uid-1",
                "namespace": "team-a",
                "name": "chat",
                "containers": {"main": [{"gpu": "GPU-a", "units": 8, "seats": 0}]},
            }
        ],
        "endedPods": ["uid-2"],
    }
    used = UsedMemory(PodUid("uid-1"), "", GpuUuid("GPU-a"), Mib(100))
    status = written(GpuNodeStatus("42", usage=(used,), usage_time="2026-11-21T20:00:00Z"))
    assert (status["usage"], status["usageTime"]) == (
        [{"podUID": "uid-1", "container": "", "gpu": "GPU-a", "usedMiB": 100}],
        "2026-11-21T20:00:00Z",
    )


def test_a_gpunode_is_read_as_it_was_written() -> None:
    assert msgspec.json.decode(msgspec.json.encode(NODE), type=GpuNode) == NODE


def test_a_gpunode_of_a_plugin_that_has_not_reported_yet() -> None:
    node = msgspec.json.decode(b'{"metadata":{"name":"node-1"},"spec":{"memoryUnitMiB":512,"gpus":[]}}', type=GpuNode)

    assert (node.node, node.spec.gpus) == ("node-1", ())
    assert node.status == GpuNodeStatus(observed_pods="", grants=())


@pytest.mark.parametrize("missing", ["uuid", "index", "product", "memoryMiB", "units", "replicas"])
def test_a_gpu_without_one_of_its_facts_is_not_read(missing: str) -> None:
    text = json.loads(msgspec.json.encode(NODE))
    del text["spec"]["gpus"][0][missing]

    with pytest.raises(msgspec.ValidationError, match=missing):
        msgspec.json.decode(json.dumps(text), type=GpuNode)


def test_health_and_numa_node_may_be_left_out() -> None:
    text = json.loads(msgspec.json.encode(NODE))
    assert text["spec"]["gpus"][1].keys().isdisjoint({"healthy", "numaNode"})

    gpu = msgspec.json.decode(json.dumps(text), type=GpuNode).spec.gpus[1]
    assert (gpu.healthy, gpu.numa_node, gpu.problem) == (True, None, "")
