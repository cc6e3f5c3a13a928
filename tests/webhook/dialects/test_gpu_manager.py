"""gpu-manager's manifests: computing power of which 100 is a GPU, and memory in units of 256 MiB."""

import pytest

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

CORE = "tencent.com/vcuda-core"
MEM = "tencent.com/vcuda-memory"
CEILING = "tencent.com/vcuda-core-limit"
HALF = {CORE: 50, MEM: 30}

CASES: dict[str, Becomes | Refused | Untouched] = {
    "half of a GPU that is large enough": Becomes(
        one(HALF), {"gpu-fraction": "0.5", "min-gpu-memory": "16384Mi"}, {"main": {REPLICA: "2"}}
    ),
    "a quarter with the smallest memory": Becomes(
        one({CORE: "25", MEM: "1"}), {"gpu-fraction": "0.25", "min-gpu-memory": "2048Mi"}, {"main": {REPLICA: "1"}}
    ),
    "a whole GPU, with all its memory": Becomes(
        one({CORE: 100, MEM: 30}), {"gpu-fraction": "1"}, {"main": {REPLICA: "4"}}
    ),
    "whole GPUs without memory": Becomes(
        one({CORE: 200}), {"gpu-fraction": "1", "gpu-count": "2"}, {"main": {REPLICA: "8"}}
    ),
    "computing power left out": Becomes(
        one({CORE: 30, MEM: 30}),
        {"gpu-memory": "7680Mi"},
        {"main": {MEMORY: "15"}},
        warnings=(f"container 'main' asks for {CORE}: 30, which fracgpu leaves out",),
        policy=IGNORING,
    ),
    "a ceiling left out": Becomes(
        one(HALF, {CEILING: "50"}),
        {"gpu-memory": "7680Mi"},
        {"main": {MEMORY: "15"}},
        warnings=(f"container 'main' asks for {CORE}: 50", f"annotation {CEILING} is '50'"),
        policy=IGNORING,
    ),
    "whole GPUs are never left out": Becomes(
        one({CORE: 100}), {"gpu-fraction": "1"}, {"main": {REPLICA: "4"}}, policy=IGNORING
    ),
    "a ceiling that is none": Becomes(
        one({CORE: 100}, {CEILING: "100"}), {"gpu-fraction": "1"}, {"main": {REPLICA: "4"}}
    ),
    "two containers": Becomes(
        several([container("a", HALF), container("b", {CORE: 100})]),
        {"gpu-fraction.a": "0.5", "min-gpu-memory.a": "16384Mi", "gpu-fraction.b": "1"},
        {"a": {REPLICA: "2"}, "b": {REPLICA: "4"}},
    ),
    "a sidecar": Becomes(
        several([container("main")], init=(container("side", {CORE: 100}, restart="Always"),)),
        {"gpu-fraction": "1", "container": "side"},
        {"side": {REPLICA: "4"}},
    ),
    "other resources stay": Becomes(
        one({CORE: 100, "cpu": 2}, requests={CORE: "100", "cpu": 1}),
        {"gpu-fraction": "1"},
        {"main": {REPLICA: "4", "cpu": 2}},
    ),
    "0 is no GPU": Untouched(one({CORE: 0, MEM: 0})),
    "a ceiling without resources": Untouched(one({}, {CEILING: "50"})),
    "switched off": Untouched(one(HALF, {CEILING: "50"}), policy=WITHOUT),
    "no multiple of 100": Refused(one({CORE: 150}), (f"{CORE}: 150", "a multiple of 100, for example 200")),
    "too many GPUs": Refused(one({CORE: 6500}), (f"{CORE}: 6500", "from 1 to 64")),
    "computing power without memory": Refused(one({CORE: 50}), (f"{CORE}: 50 and for {MEM}: 0", f"{MEM}: 30")),
    "memory without computing power": Refused(one({MEM: 30}), (f"{CORE}: 0 and for {MEM}: 30", "both")),
    "memory with computing power of 0": Refused(one({CORE: 0, MEM: 30}), ("both",)),
    "no whole number of seats": Refused(
        one({CORE: 30, MEM: 30}), (f"{CORE}: 30", "4 seats", "one of 25, 50, 75, 100", '"50"')
    ),
    "negative computing power": Refused(one({CORE: -50, MEM: 30}), (f"{CORE}: '-50'", "100 for each GPU")),
    "memory in bytes": Refused(one({CORE: 50, MEM: "8Gi"}), (f"{MEM}: '8Gi'", "in units of 256 MiB", '"30"')),
    "memory of more than any GPU": Refused(one({CORE: 50, MEM: 65537}), (f"{MEM}: 65537", "more than any GPU has")),
    "computing power in another script": Refused(one({CORE: "٥٠", MEM: 30}), (f"{CORE}: ",)),
    "a request that differs": Refused(one({CORE: 50, MEM: 30}, requests={CORE: 25}), ("'50' as its limit and '25'",)),
    "a ceiling": Refused(one(HALF, {CEILING: "50"}), (f"{CEILING} is '50'", "no bound on computing power", '"100"')),
    "a ceiling that is no number": Refused(one(HALF, {CEILING: "half"}), (f"{CEILING} is 'half'", '"100"')),
    "a share and whole memory in one pod": Refused(
        several([container("a", {CORE: 30, MEM: 30}), container("b", {CORE: 100})]),
        (f"both {MEMORY} and {REPLICA}",),
        policy=IGNORING,
    ),
    "an ordinary init container": Refused(
        several([container("main")], init=(container("warm", HALF),)), ("init container 'warm' asks",)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gpu_manager(name: str) -> None:
    check(CASES[name], dialect="gpu-manager")
