"""Plain ``nvidia.com/gpu``: left alone, a seat, or whole GPUs, as the administrator wants it in each namespace."""

from dataclasses import replace

import pytest

from tests.webhook.builders import POLICY, container, decide
from tests.webhook.dialects.cases import REPLICA, Becomes, Refused, Untouched, check, one, several
from webhook.policy import NamespaceRules, Policy, Rules

GPU = "nvidia.com/gpu"
SEAT = replace(POLICY, rules=Rules(nvidia_gpu="seat"))
WHOLE = replace(POLICY, rules=Rules(nvidia_gpu="whole"))
WITHOUT_HAMI = replace(SEAT, dialects=POLICY.dialects - {"hami"})
TWO = several([container("a", {GPU: 2}), container("b", {GPU: 1}), container("c", {GPU: 0})])

CASES: dict[str, Becomes | Refused | Untouched] = {
    "left alone": Untouched(one({GPU: 1})),
    "a mistake left alone": Untouched(one({GPU: "-1"})),
    "a seat": Becomes(one({GPU: 1}), {}, {"main": {REPLICA: "1"}}, policy=SEAT),
    "a seat on each of two GPUs": Becomes(one({GPU: 2}), {"gpu-count": "2"}, {"main": {REPLICA: "2"}}, policy=SEAT),
    "seats in two containers": Becomes(
        TWO, {"gpu-count.a": "2"}, {"a": {REPLICA: "2"}, "b": {REPLICA: "1"}}, policy=SEAT
    ),
    "a seat in a sidecar": Becomes(
        several([container()], init=(container("side", {GPU: 1}, restart="Always"),)),
        {"container": "side"},
        {"side": {REPLICA: "1"}},
        policy=SEAT,
    ),
    "a whole GPU": Becomes(one({GPU: "1"}), {"gpu-fraction": "1"}, {"main": {REPLICA: "4"}}, policy=WHOLE),
    "two whole GPUs": Becomes(
        one({GPU: 2}, requests={GPU: "2"}),
        {"gpu-fraction": "1", "gpu-count": "2"},
        {"main": {REPLICA: "8"}},
        policy=WHOLE,
    ),
    "whole GPUs in two containers": Becomes(
        TWO,
        {"gpu-fraction.a": "1", "gpu-count.a": "2", "gpu-fraction.b": "1"},
        {"a": {REPLICA: "8"}, "b": {REPLICA: "4"}},
        policy=WHOLE,
    ),
    "0": Untouched(one({GPU: 0}), SEAT),
    "a part of a card's MIG slices": Untouched(one({"nvidia.com/mig-1g.5gb": 1, "nvidia.com/gpu.shared": 1}), SEAT),
    "HAMi's memory beside, which HAMi itself serves": Untouched(one({GPU: 1, "nvidia.com/gpumem": 3000}), WITHOUT_HAMI),
    "HAMi's choice of models, which HAMi itself serves": Untouched(
        one({GPU: 1}, {"nvidia.com/use-gputype": "A100"}), WITHOUT_HAMI
    ),
    "too many": Refused(one({GPU: 65}), (f"{GPU}: 65", "from 1 to 64"), policy=SEAT),
    "negative": Refused(one({GPU: "-1"}), (f"{GPU}: '-1'", "from 0"), policy=WHOLE),
    "broken": Refused(one({GPU: 0.5}), (f"{GPU}: '0.5'",), policy=WHOLE),
    "a request that differs": Refused(one({GPU: 2}, requests={GPU: 1}), ("'2' as its limit and '1'",), policy=SEAT),
    "an ordinary init container": Refused(
        several([container()], init=(container("warm", {GPU: 1}),)), ("init container 'warm' asks",), policy=SEAT
    ),
    "more than the namespace may": Refused(
        one({GPU: 3}),
        ("3 GPUs", "at most 2"),
        policy=replace(POLICY, rules=Rules(nvidia_gpu="seat", max_gpu_count=2)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_nvidia(name: str) -> None:
    check(CASES[name], dialect="nvidia")


@pytest.mark.parametrize(("namespace", "want"), [("web", "1"), ("train-a", "4"), ("hami-system", 1)])
def test_namespaces_differ(namespace: str, want: str | int) -> None:
    policy = Policy(
        unit=POLICY.unit,
        replicas=POLICY.replicas,
        rules=Rules(nvidia_gpu="seat"),
        namespaces=(
            NamespaceRules(("hami-*",), {"nvidia_gpu": "leave"}),
            NamespaceRules(("train-*",), {"nvidia_gpu": "whole"}),
        ),
    )

    decided = decide(one({GPU: 1}), policy=policy, namespace=namespace)

    assert decided.limits() == {GPU if namespace == "hami-system" else REPLICA: want}
