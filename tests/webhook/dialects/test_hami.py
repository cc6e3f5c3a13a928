"""HAMi's manifests: number, memory, percentage and computing power, and the annotations that choose GPUs."""

import pytest

from fracgpu.quantities import Mib
from tests.webhook.builders import container
from tests.webhook.dialects.cases import (
    IGNORING,
    MEMORY,
    REPLICA,
    WITHOUT,
    Becomes,
    Refused,
    Untouched,
    check,
    one,
    several,
)
from webhook.policy import Policy

GPU = "nvidia.com/gpu"
MEM = "nvidia.com/gpumem"
PERCENT = "nvidia.com/gpumem-percentage"
CORES = "nvidia.com/gpucores"
PRIORITY = "nvidia.com/priority"
SMALL = {GPU: 1, MEM: 3000}
BY_MEMORY = {"gpu-memory": "3000Mi"}
SIX = {"main": {MEMORY: "6"}}
WHOLE = {"gpu-fraction": "1"}
ALL_SEATS = {"main": {REPLICA: "4"}}
OWN_SCHEDULER = Policy(unit=Mib(512), replicas=4, scheduler_name="fracgpu-scheduler")


def chosen(notes: dict[str, str], want: dict[str, str]) -> Becomes:
    return Becomes(one(SMALL, notes), {**BY_MEMORY, **want}, SIX)


CASES: dict[str, Becomes | Refused | Untouched] = {
    "memory on one GPU": Becomes(one(SMALL), BY_MEMORY, SIX),
    "memory without a number is one GPU": Becomes(one({MEM: "3000"}), BY_MEMORY, SIX),
    "memory on each of two GPUs": Becomes(
        one({GPU: "2", MEM: 3000}), {**BY_MEMORY, "gpu-count": "2"}, {"main": {MEMORY: "12"}}
    ),
    "a multiple by suffix": Becomes(one({MEM: "4k"}), {"gpu-memory": "4000Mi"}, {"main": {MEMORY: "8"}}),
    "requests alone": Becomes(one({}, requests=SMALL), BY_MEMORY, SIX),
    "limits in part and requests in part": Becomes(one({GPU: 1}, requests={MEM: 3000}), BY_MEMORY, SIX),
    "other resources stay": Becomes(
        one({**SMALL, "cpu": "2"}, requests={**SMALL, "cpu": 1}), BY_MEMORY, {"main": {MEMORY: "6", "cpu": "2"}}
    ),
    "half of the memory is half of the seats": Becomes(
        one({PERCENT: 50}), {"gpu-fraction": "0.5"}, {"main": {REPLICA: "2"}}
    ),
    "half of each of two": Becomes(
        one({GPU: 2, PERCENT: 50}), {"gpu-fraction": "0.5", "gpu-count": "2"}, {"main": {REPLICA: "4"}}
    ),
    "all of the memory is the GPU": Becomes(one({PERCENT: 100}), WHOLE, ALL_SEATS),
    "computing power above the memory's part": Becomes(
        one({PERCENT: 25, CORES: 75}), {"gpu-fraction": "0.75"}, {"main": {REPLICA: "3"}}
    ),
    "computing power below the memory's part": Becomes(
        one({PERCENT: 50, CORES: 30}), {"gpu-fraction": "0.5"}, {"main": {REPLICA: "2"}}
    ),
    "memory with computing power is seats of a GPU that is large enough": Becomes(
        one({**SMALL, CORES: 50}), {"gpu-fraction": "0.5", "min-gpu-memory": "6144Mi"}, {"main": {REPLICA: "2"}}
    ),
    "memory with all computing power": Becomes(
        one({**SMALL, CORES: 100}), {"gpu-fraction": "1", "min-gpu-memory": "4096Mi"}, ALL_SEATS
    ),
    "more than all computing power is all": Becomes(
        one({**SMALL, CORES: 400}), {"gpu-fraction": "1", "min-gpu-memory": "4096Mi"}, ALL_SEATS
    ),
    "computing power left out": Becomes(
        one({**SMALL, CORES: 30}),
        BY_MEMORY,
        SIX,
        warnings=(f"container 'main' asks for {CORES}: 30, which fracgpu leaves out",),
        policy=IGNORING,
    ),
    "all computing power is never left out": Becomes(
        one({**SMALL, CORES: 100}),
        {"gpu-fraction": "1", "min-gpu-memory": "4096Mi"},
        ALL_SEATS,
        policy=IGNORING,
    ),
    "computing power of 0 is no bound": Becomes(one({**SMALL, CORES: 0}), BY_MEMORY, SIX),
    "computing power alone leaves all the memory": Becomes(one({CORES: 30}), WHOLE, ALL_SEATS),
    "memory of 0 beside a number is all of it": Becomes(one({GPU: 1, MEM: 0}), WHOLE, ALL_SEATS),
    "a percentage of 0 beside memory": Becomes(one({MEM: 3000, PERCENT: 0}), BY_MEMORY, SIX),
    "low priority is the default": Becomes(one({**SMALL, PRIORITY: 1}), BY_MEMORY, SIX),
    "a whole GPU of a model": Becomes(
        one({GPU: 1}, {"nvidia.com/use-gputype": "A100"}), {**WHOLE, "gpu-model": "*A100*"}, ALL_SEATS
    ),
    "two containers": Becomes(
        several([container("a", SMALL), container("b", {GPU: 2, MEM: 1000})]),
        {"gpu-memory.a": "3000Mi", "gpu-memory.b": "1000Mi", "gpu-count.b": "2"},
        {"a": {MEMORY: "6"}, "b": {MEMORY: "4"}},
    ),
    "a container that asks for no GPU": Becomes(
        several([container("a", {GPU: 0, MEM: 0}), container("b", SMALL)]),
        {**BY_MEMORY, "container": "b"},
        {"b": {MEMORY: "6"}},
    ),
    "a sidecar": Becomes(
        several([container("main")], init=(container("side", SMALL, restart="Always"),)),
        {**BY_MEMORY, "container": "side"},
        {"side": {MEMORY: "6"}},
    ),
    "models are parts of names": chosen({"nvidia.com/use-gputype": "A10, v100,"}, {"gpu-model": "*A10*,*v100*"}),
    "models are excluded": chosen({"nvidia.com/nouse-gputype": "1080"}, {"exclude-gpu-model": "*1080*"}),
    "a name with HAMi's prefix": chosen({"nvidia.com/use-gputype": "nvidia-Tesla P4"}, {"gpu-model": "*Tesla P4*"}),
    "UUIDs": chosen({"nvidia.com/use-gpuuuid": "GPU-a, GPU-b"}, {"gpu-uuid": "GPU-a,GPU-b"}),
    "UUIDs are excluded": chosen({"nvidia.com/nouse-gpuuuid": "GPU-a"}, {"exclude-gpu-uuid": "GPU-a"}),
    "blank lists choose nothing": chosen(
        {"nvidia.com/use-gputype": " , ", "nvidia.com/nouse-gputype": "", "nvidia.com/use-gpuuuid": ","}, {}
    ),
    "the way of dividing that it has by default": chosen({"nvidia.com/vgpu-mode": "hami-core"}, {}),
    "one of several ways of dividing": chosen({"nvidia.com/vgpu-mode": "mig,hami-core"}, {}),
    "no binding to NUMA nodes": chosen({"nvidia.com/numa-bind": "false"}, {}),
    "a policy for nodes": chosen({"hami.io/node-scheduler-policy": "spread"}, {"policy": "spread"}),
    "a policy for GPUs": chosen({"hami.io/gpu-scheduler-policy": "binpack"}, {"policy": "binpack"}),
    "the same policy for both": chosen(
        {"hami.io/gpu-scheduler-policy": "spread", "hami.io/node-scheduler-policy": " spread"}, {"policy": "spread"}
    ),
    "blank policies": chosen({"hami.io/gpu-scheduler-policy": " "}, {}),
    "HAMi's scheduler": Becomes(one(SMALL, scheduler="hami-scheduler"), BY_MEMORY, SIX, scheduler="default-scheduler"),
    "HAMi's scheduler, where another is set": Becomes(
        one(SMALL, scheduler="hami-scheduler"), BY_MEMORY, SIX, scheduler="fracgpu-scheduler", policy=OWN_SCHEDULER
    ),
    "another scheduler stays": Becomes(one(SMALL, scheduler="volcano"), BY_MEMORY, SIX, scheduler="volcano"),
    "the number alone is not HAMi's": Untouched(one({GPU: 1})),
    "no GPU": Untouched(one({GPU: 0, MEM: 0})),
    "annotations without resources": Untouched(one({}, {"nvidia.com/use-gputype": "A100"})),
    "switched off": Untouched(one(SMALL, {"nvidia.com/use-gputype": "A100"}, scheduler="hami-scheduler"), WITHOUT),
    "memory and percentage": Refused(
        one({**SMALL, PERCENT: 50}), (f"{MEM}: 3000 and for {PERCENT}: 50", "for example the percentage")
    ),
    "memory in bytes": Refused(one({MEM: "4Gi"}), (f"{MEM}: '4Gi'", "on each GPU in MiB", '"3000"')),
    "memory of more than any GPU": Refused(one({MEM: 2**24 + 1}), ("more than any GPU has", f"{MEM}: 3000")),
    "negative memory": Refused(one({MEM: "-3000"}), (f"{MEM}: '-3000'", "from 0")),
    "broken memory": Refused(one({MEM: 0.5}), (f"{MEM}: '0.5'",)),
    "memory that is no number": Refused(one({MEM: "³"}), (f"{MEM}: '³'",)),
    "memory of 0 alone is a whole GPU to HAMi": Refused(one({MEM: 0}), (f"{MEM}: 0 and not for {GPU}", f"{GPU}: 1")),
    "computing power of 0 alone": Refused(one({CORES: 0}), (f"{CORES}: 0 and not for {GPU}",)),
    "memory on no GPU": Refused(one({GPU: 0, MEM: 3000}), (f"{GPU}: 0", "from 1 to 64")),
    "too many GPUs": Refused(one({GPU: 65, MEM: 3000}), (f"{GPU}: 65", "from 1 to 64")),
    "a percentage above 100": Refused(one({PERCENT: 101}), (f"{PERCENT}: '101'", "from 0 to 100")),
    "a percentage that is no whole number of seats": Refused(
        one({PERCENT: 30}), (f"{PERCENT}: 30", "4 seats", "one of 25, 50, 75, 100", '"50"')
    ),
    "computing power that is no whole number of seats": Refused(
        one({**SMALL, CORES: 30}), (f"{CORES}: 30", "4 seats of a GPU", "one of 25, 50, 75, 100", '"50"')
    ),
    "a percentage and computing power that is no whole number of seats": Refused(
        one({PERCENT: 50, CORES: 60}), (f"{CORES}: 60", "4 seats")
    ),
    "high priority": Refused(one({**SMALL, PRIORITY: 0}), (f"{PRIORITY}: 0, which fracgpu cannot give", "equals")),
    "another priority": Refused(one({**SMALL, PRIORITY: 2}), (f"{PRIORITY}: '2'", "from 0 to 1")),
    "a priority without a GPU": Refused(one({PRIORITY: 1}), (f"{PRIORITY} and for no GPU", f"{MEM}: 3000")),
    "a request that differs": Refused(one({MEM: 3000}, requests={MEM: 2000}), ("'3000' as its limit and '2000'",)),
    "a model with an asterisk": Refused(
        one(SMALL, {"nvidia.com/use-gputype": "A100*"}), ("has 'A100*'", "literally", '"A100"')
    ),
    "fewer UUIDs than GPUs": Refused(
        one({GPU: 2, MEM: 3000}, {"nvidia.com/use-gpuuuid": "GPU-a"}), ("fewer GPUs than container 'main'",)
    ),
    "MIG": Refused(one(SMALL, {"nvidia.com/vgpu-mode": "mig"}), ("annotation nvidia.com/vgpu-mode is 'mig'", "node")),
    "binding to NUMA nodes": Refused(
        one(SMALL, {"nvidia.com/numa-bind": "T"}), ("annotation nvidia.com/numa-bind is 'T'", "Topology Manager")
    ),
    "another policy": Refused(
        one(SMALL, {"hami.io/gpu-scheduler-policy": "topology-aware"}), ("'topology-aware'", "binpack and spread")
    ),
    "two policies": Refused(
        one(SMALL, {"hami.io/gpu-scheduler-policy": "spread", "hami.io/node-scheduler-policy": "binpack"}),
        ("('binpack')", "('spread') differ", "the same value"),
    ),
    "weights": Refused(
        one(SMALL, {"hami.io/device-scoring-weights": "used=2"}), ("hami.io/device-scoring-weights is 'used=2'",)
    ),
    "a share and a whole GPU in one pod": Refused(
        several([container("a", SMALL), container("b", {GPU: 1})]), (f"both {MEMORY} and {REPLICA}",)
    ),
    "an ordinary init container": Refused(
        several([container("main")], init=(container("warm", SMALL),)), ("init container 'warm' asks for a GPU (hami)",)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_hami(name: str) -> None:
    check(CASES[name], dialect="hami")
