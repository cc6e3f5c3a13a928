"""Whatever a pod says in whatever languages, it is decided; and what is let in has at least what its manifest said."""

import copy
from dataclasses import replace
from fractions import Fraction
from typing import Any

import msgspec
from hypothesis import event, example, given
from hypothesis import strategies as st

from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA
from fracgpu.quantities import Mib, capacity_units, parse_quantity, seat_units
from fracgpu.requests import ContainerRequest, request_of
from tests.vocabulary.unhurried import unhurried
from tests.webhook.builders import NO_GPUS, Decided, decide, patched, typed
from tests.webhook.dialects.cases import UNDERSTOOD, all_containers
from webhook.mutation import mutate
from webhook.patches import patch_between
from webhook.pods import limits_of, requests_of
from webhook.policy import DIALECTS, Policy, Rules

GPUSHARE = ("aliyun.com/gpu-mem", "aliyun.com/gpu-count", "aliyun.com/gpu-core.percentage")
HAMI = (
    "nvidia.com/gpu",
    "nvidia.com/gpumem",
    "nvidia.com/gpumem-percentage",
    "nvidia.com/gpucores",
    "nvidia.com/priority",
)
GPU_MANAGER = ("tencent.com/vcuda-core", "tencent.com/vcuda-memory")
FOREIGN = {"gpushare": GPUSHARE, "hami": HAMI, "gpu-manager": GPU_MANAGER, "nvidia": ("nvidia.com/gpu",)}
NOTES = (
    "nvidia.com/use-gputype", "nvidia.com/nouse-gputype", "nvidia.com/use-gpuuuid", "hami.io/gpu-scheduler-policy",
    "gpu-memory", "gpu-fraction", "gpu-fraction-num-devices", "gpu-fraction-container-name", "gpu-memory.limit", "mps",
    "nvidia.com/container.main.gpu-memory.request", "nvidia.com/container.b.gpu-memory.limit",
    "tencent.com/vcuda-core-limit", "fracgpu.io/gpu-memory", "fracgpu.io/gpu-count.main",
)  # fmt: skip

policies = st.builds(
    Policy,
    unit=st.sampled_from([1, 512, 1000]).map(Mib),
    replicas=st.sampled_from([1, 3, 4, 10, 100]),
    dialects=st.one_of(st.just(frozenset(DIALECTS)), st.frozensets(st.sampled_from(DIALECTS))),
    compute_shares=st.sampled_from(["ignore", "seats"]),
    rules=st.builds(Rules, nvidia_gpu=st.sampled_from(["leave", "seat", "whole"])),
)
names = st.sampled_from(["main", "b", "side"])
good = st.sampled_from([0, 1, 2, "4", 25, 50, "100", 3000, "4k", 1.0, 1e3])
amounts = st.one_of(
    good,
    st.integers(-2, 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "4Gi", "1e3", "1e99", "٤", "-0", "+5", "9" * 70, "0.5", "50m", "100000m"]),
)
dialect_limits = st.one_of(
    *(st.dictionaries(st.sampled_from(keys), good, max_size=3) for keys in (GPUSHARE, HAMI, GPU_MANAGER)),
    st.dictionaries(
        st.sampled_from([*GPUSHARE, *HAMI, *GPU_MANAGER, RESOURCE_MEMORY, RESOURCE_REPLICA, "cpu"]), amounts, max_size=3
    ),
)
texts = st.one_of(
    st.sampled_from(["2000", "0.5", "1", "2", "4Gi", "2000Mi", "", " ", "A100, V100", "binpack", "main", "b", "true"]),
    st.text(max_size=12),
)
json = st.recursive(
    st.none() | st.integers(-5, 2**40) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=6,
)
forged_notes = st.one_of(
    st.text(max_size=20),
    json.map(lambda value: msgspec.json.encode(value).decode()),
    st.fixed_dictionaries(
        {"dialect": st.sampled_from([*DIALECTS, "nvidia", "?"])},
        optional={
            "asked": st.dictionaries(
                names,
                st.fixed_dictionaries({}, optional={"limits": dialect_limits, "requests": dialect_limits}),
                max_size=2,
            ),
            "means": st.dictionaries(st.sampled_from(NOTES), texts, max_size=2),
            "seats": st.dictionaries(names, st.integers(-1, 5), max_size=2),
            "schedulerName": st.sampled_from(["", "kai-scheduler", "x"]),
        },
    ).map(lambda value: msgspec.json.encode(value).decode()),
)
resources = st.one_of(
    dialect_limits.map(lambda limits: {"limits": limits}),
    dialect_limits.map(lambda limits: {"limits": limits, "requests": dict(limits)}),
    st.fixed_dictionaries({}, optional={"limits": dialect_limits | st.none(), "requests": dialect_limits | st.none()}),
    st.none(),
)
containers = st.fixed_dictionaries(
    {"name": names}, optional={"resources": resources, "restartPolicy": st.sampled_from(["Always", "Never"])}
)
annotations = st.one_of(st.none(), st.dictionaries(st.sampled_from(NOTES), texts, max_size=3))


@st.composite
def mixed(draw: st.DrawFn) -> dict[str, Any]:
    """Anything of any dialect."""
    listed = draw(st.lists(containers, max_size=3, unique_by=lambda each: each["name"]))
    at = draw(st.integers(0, len(listed)))
    labels = st.fixed_dictionaries({}, optional={"aliyun.com/gpu-count": st.sampled_from(["1", "2", "x"])})
    return {
        "metadata": {"annotations": draw(annotations), "labels": draw(labels | st.none())},
        "spec": {"containers": listed[:at] or None, "initContainers": listed[at:], "schedulerName": draw(texts)},
    }


LIKELY: dict[str, Any] = {
    "gpushare": {"aliyun.com/gpu-mem": st.sampled_from([0, 2, "4", 8.0])},
    "hami": {
        "nvidia.com/gpu": st.sampled_from([1, "2"]),
        "nvidia.com/gpumem": st.sampled_from([100, "3000", "4k", 12345]),
        "nvidia.com/gpucores": st.sampled_from([0, 10, 25, 50, 100]),
    },
    "gpu-manager": {
        "tencent.com/vcuda-core": st.sampled_from([10, 25, "50", 100, 200]),
        "tencent.com/vcuda-memory": st.sampled_from([1, "30", 77]),
    },
    "nvidia": {"nvidia.com/gpu": st.sampled_from([0, 1, "2"])},
}  # dialect -> resource -> amounts that make sense


@st.composite
def likely(draw: st.DrawFn) -> dict[str, Any]:
    """What somebody might write in one dialect."""
    dialect = draw(st.sampled_from([*DIALECTS, "nvidia"]))
    listed: list[dict[str, Any]] = []
    for name in draw(st.lists(names, min_size=1, unique=True)):
        asks = draw(st.fixed_dictionaries({}, optional=LIKELY.get(dialect, {})))
        listed.append({"name": name, "resources": {"limits": asks}, "restartPolicy": "Always"})
        if draw(st.booleans()):
            listed[-1]["resources"]["requests"] = dict(asks)
    notes = None
    if dialect == "kai":
        notes = draw(st.sampled_from([{"gpu-memory": "2000"}, {"gpu-memory": "1"}, {"gpu-fraction": "0.5"}]))
        if draw(st.booleans()):
            notes = {**notes, "gpu-fraction-container-name": draw(st.sampled_from(listed))["name"]}
    elif dialect == "kai-gpu-fractioning":
        wanted = draw(st.lists(st.sampled_from(listed), min_size=1, unique_by=lambda each: str(each["name"])))
        kinds, values = st.sampled_from(["request", "limit"]), st.sampled_from(["4Gi", "500M", " 1Ti"])
        notes = {f"nvidia.com/container.{each['name']}.gpu-memory.{draw(kinds)}": draw(values) for each in wanted}
    at = draw(st.integers(1, len(listed)))
    labels = {"aliyun.com/gpu-count": "2"} if dialect == "gpushare" and draw(st.booleans()) else None
    return {
        "metadata": {"annotations": notes, "labels": labels},
        "spec": {
            "containers": listed[:at],
            "initContainers": listed[at:],
            "schedulerName": draw(st.sampled_from(["", "kai-scheduler", "hami-scheduler"])),
        },
    }


pods = st.one_of(likely(), mixed())


@st.composite
def noted(draw: st.DrawFn) -> dict[str, Any]:
    """A pod with a note that somebody wrote: of any JSON, or a true one on a pod that was changed since."""
    manifest: dict[str, Any] = draw(pods)
    text = draw(forged_notes)
    if draw(st.booleans()):
        decided = decide(draw(likely()), policy=Policy(rules=Rules(nvidia_gpu="seat")))
        text = decided.annotations.get(UNDERSTOOD, text)
        if draw(st.booleans()):
            manifest = copy.deepcopy(decided.manifest)
            changed = draw(st.sampled_from(all_containers({"spec": _spec(manifest)})))
            changed["resources"] = draw(resources)
    manifest["metadata"]["annotations"] = {**(manifest["metadata"]["annotations"] or {}), UNDERSTOOD: text}
    return manifest


def judged(manifest: dict[str, Any], policy: Policy) -> Decided:
    """As `decide`, where a member that is empty may also be absent: a note can put one in and the translation out."""
    before = typed(manifest)
    decision = mutate(before, namespace="team-a", policy=policy, cluster=NO_GPUS)
    operations = msgspec.to_builtins(patch_between(before, decision.pod))
    after = patched(manifest, operations)
    if not decision.refusal:
        again = mutate(typed(after), namespace="team-a", policy=policy, cluster=NO_GPUS)
        assert (again.refusal, patch_between(typed(after), again.pod)) == ("", []), "not idempotent"
    return Decided(decision.refusal, decision.warnings, operations, after)


def amount(container: dict[str, Any], resource: str) -> Fraction:
    given_amounts = container.get("resources") or {}
    for place in ("limits", "requests"):
        if resource in (given_amounts.get(place) or {}):
            return parse_quantity(str(given_amounts[place][resource]))
    return Fraction(0)


def wanted_mib(manifest: dict[str, Any], container: dict[str, Any], dialect: str) -> Fraction:
    """The memory on each GPU that the manifest names, by the tool's own documentation; 0 where it names none."""
    notes = manifest["metadata"]["annotations"] or {}
    name = container["name"]
    if dialect == "gpushare":
        gpus = int((manifest["metadata"]["labels"] or {}).get("aliyun.com/gpu-count", "1"))
        return amount(container, "aliyun.com/gpu-mem") * 1024 / gpus
    if dialect == "hami":
        return amount(container, "nvidia.com/gpumem")
    if dialect == "gpu-manager" and amount(container, "tencent.com/vcuda-core") < 100:
        return amount(container, "tencent.com/vcuda-memory") * 256
    if dialect == "kai" and "gpu-memory" in notes:
        target = notes.get("gpu-fraction-container-name", (manifest["spec"]["containers"] or [container])[0]["name"])
        return Fraction(notes["gpu-memory"]) if target == name else Fraction(0)
    if dialect == "kai-gpu-fractioning":
        keys = [f"nvidia.com/container.{name}.gpu-memory.{kind}" for kind in ("request", "limit")]
        return max((parse_quantity(notes[key].strip()) / 2**20 for key in keys if key in notes), default=Fraction(0))
    return Fraction(0)


def least_mib(share: ContainerRequest, policy: Policy) -> int:
    """The memory that a share has on each GPU at least, where no memory of GPUs is set aside."""
    if share.units:
        return share.units * policy.unit
    smallest = Mib(share.selector.min_memory if share.selector else 0)
    units = capacity_units(smallest, reserved=Mib(0), unit=policy.unit)
    return seat_units(share.seats, replicas=policy.replicas, units=units) * policy.unit


@unhurried
@given(pods, policies)
@example({"metadata": {}, "spec": {"containers": None}}, Policy())
def test_what_is_let_in_has_what_its_manifest_said(manifest: dict[str, Any], policy: Policy) -> None:
    decided = decide(manifest, policy=policy)  # and once more

    if decided.refusal or UNDERSTOOD not in decided.annotations:
        event("refused" if decided.refusal else "not translated")
        return
    dialect = msgspec.json.decode(decided.annotations[UNDERSTOOD])["dialect"]
    event(dialect)
    request = request_of(typed(decided.manifest))
    assert request is not None
    shares = {share.container: share for share in request.containers}
    listed = zip(*(all_containers({"spec": _spec(each)}) for each in (manifest, decided.manifest)), strict=True)
    for before, after in listed:
        amounts_after = after.get("resources") or {}
        left = {**(amounts_after.get("limits") or {}), **(amounts_after.get("requests") or {})}
        assert not left.keys() & set(FOREIGN.get(dialect, ()))
        asks_any = any(amount(before, key) for key in FOREIGN.get(dialect, ()))
        assert not asks_any or before["name"] in shares
        wanted = wanted_mib(manifest, before, dialect)
        if wanted:
            assert least_mib(shares[before["name"]], policy) >= wanted
        if dialect in ("hami", "nvidia") and amount(before, "nvidia.com/gpu"):
            assert shares[before["name"]].gpus == amount(before, "nvidia.com/gpu")


def _spec(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: manifest["spec"].get(key) or [] for key in ("containers", "initContainers")}


@unhurried
@given(noted(), policies)
def test_a_note_that_somebody_wrote_is_worth_no_more_than_its_manifest(
    manifest: dict[str, Any], policy: Policy
) -> None:
    decided = judged(manifest, policy)
    if decided.refusal:
        return
    described = copy.deepcopy(manifest)
    note = msgspec.json.decode(described["metadata"]["annotations"].pop(UNDERSTOOD))
    for key in note.get("means", {}):
        described["metadata"]["annotations"].pop(key, None)
    for each in all_containers({"spec": _spec(described)}):
        if (asked := note.get("asked", {}).get(each["name"])) is not None:
            each["resources"] = {
                place: {**((each.get("resources") or {}).get(place) or {}), **asked.get(place, {})}
                for place in ("limits", "requests")
            }
    if UNDERSTOOD in decided.annotations:  # limits of ours were compared with what the translation says
        for each in all_containers({"spec": _spec(described)}):
            for place in (each.get("resources") or {}).values():
                for resource in (RESOURCE_MEMORY, RESOURCE_REPLICA):
                    (place or {}).pop(resource, None)
    if note.get("schedulerName"):
        described["spec"]["schedulerName"] = note["schedulerName"]
    honest = judged(described, policy)
    event("honest too" if not honest.refusal else "honest is refused")
    if UNDERSTOOD in decided.annotations:
        assert honest.refusal == ""
        assert _shares(decided.manifest) == _shares(honest.manifest)


def _shares(manifest: dict[str, Any]) -> list[ContainerRequest]:
    """What is asked, in some order; whoever has it, as a container may have been put in front since."""
    request = request_of(typed(manifest))
    assert request is not None
    return sorted((replace(share, container="") for share in request.containers), key=str)


@unhurried
@given(noted(), pods, policies)
def test_containers_of_one_name_end_in_a_decision_and_a_patch_that_applies(
    manifest: dict[str, Any], other: dict[str, Any], policy: Policy
) -> None:
    """kube-apiserver refuses such a pod, but only after the webhooks."""
    manifest["spec"]["containers"] = _spec(manifest)["containers"] + _spec(other)["containers"]
    before = typed(manifest)

    decision = mutate(before, namespace="team-a", policy=policy, cluster=NO_GPUS)

    operations = msgspec.to_builtins(patch_between(before, decision.pod))
    after = typed(patched(manifest, operations))
    for (_, _, made), (_, _, wanted) in zip(after.listed(), decision.pod.listed(), strict=True):
        assert (limits_of(made), requests_of(made)) == (limits_of(wanted), requests_of(wanted))
