"""Made-up traces: Hypothesis' random ones, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from fracgpu.hosts import HostAmount
from replay.workloads import TraceNode, TracePod

MODELS = ("T4", "G2", "V100M16")


def nodes() -> st.SearchStrategy[list[TraceNode]]:
    """Some nodes, at least one with GPUs."""
    node = st.builds(
        lambda cpu, memory, gpus, model: (HostAmount(1000 * cpu, 1024 * memory), gpus, model),
        st.integers(0, 64),
        st.integers(0, 128),
        st.integers(0, 8),
        st.sampled_from(MODELS),
    )
    several = st.lists(node, min_size=1, max_size=6).filter(lambda found: any(gpus for _, gpus, _ in found))
    return several.map(lambda found: [TraceNode(f"node-{number}", *rest) for number, rest in enumerate(found)])


def pods() -> st.SearchStrategy[list[TracePod]]:
    """Some pods: of parts of a GPU, of several whole ones, and without."""
    gpus = st.one_of(
        st.just((0, 0)),
        st.integers(1, 1000).map(lambda milli: (1, milli)),
        st.integers(2, 8).map(lambda count: (count, 1000)),
    )
    models = st.lists(st.sampled_from(MODELS), unique=True, max_size=2).map(tuple)
    pod = st.tuples(st.integers(0, 16000), st.integers(0, 32768), gpus, models)
    return st.lists(pod, min_size=1, max_size=25).map(
        lambda found: [
            TracePod(f"pod-{number}", HostAmount(cpu, memory), *asked, wanted if asked[0] else ())
            for number, (cpu, memory, asked, wanted) in enumerate(found)
        ]
    )


def write_nodes(file: Path, nodes: Sequence[TraceNode]) -> Path:
    lines = [f"{node.name},{node.host.cpu_milli},{node.host.memory_mib},{node.gpus},{node.model}" for node in nodes]
    file.write_text("\n".join(["sn,cpu_milli,memory_mib,gpu,model", *lines, ""]))
    return file


def write_pods(file: Path, pods: Sequence[TracePod]) -> Path:
    lines = [
        f"{pod.name},{pod.host.cpu_milli},{pod.host.memory_mib},{pod.gpus},{pod.gpu_milli},{'|'.join(pod.models)}"
        for pod in pods
    ]
    file.write_text("\n".join(["name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec", *lines, ""]))
    return file
