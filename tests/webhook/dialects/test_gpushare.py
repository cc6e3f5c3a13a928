"""gpushare's manifests: memory in GiB, and the label for several GPUs."""

import pytest

from tests.webhook.builders import container
from tests.webhook.dialects.cases import (
    IGNORING,
    MEMORY,
    WITHOUT,
    Becomes,
    Refused,
    Untouched,
    check,
    one,
    several,
)

MEM = "aliyun.com/gpu-mem"
COUNT = "aliyun.com/gpu-count"
FOUR = {COUNT: "4"}

CASES: dict[str, Becomes | Refused | Untouched] = {
    "GiB become memory": Becomes(one({MEM: 4}), {"gpu-memory": "4096Mi"}, {"main": {MEMORY: "8"}}),
    "a quoted number": Becomes(one({MEM: "4"}), {"gpu-memory": "4096Mi"}, {"main": {MEMORY: "8"}}),
    "a number with a point": Becomes(one({MEM: 4.0}), {"gpu-memory": "4096Mi"}, {"main": {MEMORY: "8"}}),
    "a number with an exponent": Becomes(one({MEM: "2e1"}), {"gpu-memory": "20480Mi"}, {"main": {MEMORY: "40"}}),
    "the request that the API server adds goes too": Becomes(
        one({MEM: 4, "cpu": 1}, requests={MEM: "4", "cpu": 1}),
        {"gpu-memory": "4096Mi"},
        {"main": {MEMORY: "8", "cpu": 1}},
    ),
    "a request alone": Becomes(one({}, requests={MEM: 4}), {"gpu-memory": "4096Mi"}, {"main": {MEMORY: "8"}}),
    "the label divides the total": Becomes(
        one({MEM: 8}, labels=FOUR), {"gpu-memory": "2048Mi", "gpu-count": "4"}, {"main": {MEMORY: "16"}}
    ),
    "one GPU counted in the container": Becomes(
        one({MEM: 8, COUNT: 1}), {"gpu-memory": "8192Mi"}, {"main": {MEMORY: "16"}}
    ),
    "two containers": Becomes(
        several([container("a", {MEM: 1}), container("b", {MEM: 2}), container("c", {MEM: 0})]),
        {"gpu-memory.a": "1024Mi", "gpu-memory.b": "2048Mi"},
        {"a": {MEMORY: "2"}, "b": {MEMORY: "4"}},
    ),
    "the second container": Becomes(
        several([container("a"), container("b", {MEM: 2})]),
        {"gpu-memory": "2048Mi", "container": "b"},
        {"b": {MEMORY: "4"}},
    ),
    "a sidecar": Becomes(
        several([container("a")], init=(container("side", {MEM: 2}, restart="Always"),)),
        {"gpu-memory": "2048Mi", "container": "side"},
        {"side": {MEMORY: "4"}},
    ),
    "a part of the computing power of 0 asks nothing": Becomes(
        one({MEM: 4, "aliyun.com/gpu-core.percentage": 0}), {"gpu-memory": "4096Mi"}, {"main": {MEMORY: "8"}}
    ),
    "annotations that its scheduler wrote mean nothing": Becomes(
        one({MEM: 4}, {"ALIYUN_COM_GPU_MEM_IDX": "0"}), {"gpu-memory": "4096Mi"}, {"main": {MEMORY: "8"}}
    ),
    "0 is no GPU": Untouched(one({MEM: 0})),
    "the label alone is none": Untouched(one({}, labels=FOUR)),
    "switched off": Untouched(one({MEM: 4}, labels=FOUR), policy=WITHOUT),
    "a negative number": Refused(one({MEM: -1}), (f"container 'main' asks for {MEM}: '-1'", "in GiB", '"4"')),
    "no whole number": Refused(one({MEM: "5.5"}), (f"{MEM}: '5.5'", "a whole number from 0 to 16384")),
    "a size with its suffix": Refused(one({MEM: "4Gi"}), (f"{MEM}: '4Gi'", "in GiB")),
    "no number": Refused(one({MEM: "four"}), (f"{MEM}: 'four'",)),
    "digits of another script": Refused(one({MEM: "٤"}), (f"{MEM}: '٤'",)),
    "a number without end": Refused(one({MEM: "9" * 500}), (f"{MEM}: '999",)),
    "more than any GPU has": Refused(one({MEM: 16385}), ("16384",)),
    "a request that differs": Refused(one({MEM: 4}, requests={MEM: 2}), ("'4' as its limit and '2' as its request",)),
    "a total that does not divide": Refused(
        one({MEM: 9}, labels=FOUR), (f"{MEM}: 9 on 4 GPUs together (label {COUNT})", "a multiple of 4, for example 12")
    ),
    "less than a GiB on each": Refused(one({MEM: 3}, labels=FOUR), ("a multiple of 4, for example 4",)),
    "a label that is no number": Refused(one({MEM: 4}, labels={COUNT: "all"}), (f"label {COUNT} is 'all'", '"2"')),
    "a label of 0": Refused(one({MEM: 4}, labels={COUNT: "0"}), (f"label {COUNT} is '0'", "from 1 to 64")),
    "a label of too many": Refused(one({MEM: 130}, labels={COUNT: "65"}), ("from 1 to 64",)),
    "several GPUs counted in the container": Refused(one({MEM: 8, COUNT: 2}), (f"{COUNT}: 2", f"the label {COUNT}")),
    "one GPU in the container and four in the label": Refused(one({MEM: 8, COUNT: 1}, labels=FOUR), (f"{COUNT}: 1",)),
    "a number of GPUs without memory": Refused(one({COUNT: 1}), (f"{COUNT}: 1 and not for {MEM}", f"{MEM}: 4")),
    "a part of the computing power": Refused(
        one({MEM: 4, "aliyun.com/gpu-core.percentage": 30}),
        ("asks for aliyun.com/gpu-core.percentage: 30, which fracgpu cannot give", "fracgpu.io/gpu-fraction"),
    ),
    "a part of the computing power, where such are left out": Becomes(
        one({MEM: 4, "aliyun.com/gpu-core.percentage": 30}),
        {"gpu-memory": "4096Mi"},
        {"main": {MEMORY: "8"}},
        policy=IGNORING,
        warnings=("container 'main' asks for aliyun.com/gpu-core.percentage: 30, which fracgpu leaves out here",),
    ),
    "computing power in TFLOPS": Refused(one({MEM: 4, "aliyun.com/gpu-core.tflops": 1}), ("gpu-core.tflops",)),
    "an ordinary init container": Refused(
        several([container("main")], init=(container("warm", {MEM: 4}),)),
        ("init container 'warm' asks for a GPU (gpushare)", "restartPolicy: Always"),
    ),
    "a long name beside another container": Refused(
        several([container("a", {MEM: 1}), container("b" * 49, {MEM: 2})]), ("more than 48 characters", "shorter name")
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gpushare(name: str) -> None:
    check(CASES[name], dialect="gpushare")


def test_the_longest_name_beside_another_container() -> None:
    name = "b" * 48

    check(
        Becomes(
            several([container("a", {MEM: 1}), container(name, {MEM: 2})]),
            {"gpu-memory.a": "1024Mi", f"gpu-memory.{name}": "2048Mi"},
            {"a": {MEMORY: "2"}, name: {MEMORY: "4"}},
        ),
        dialect="gpushare",
    )
