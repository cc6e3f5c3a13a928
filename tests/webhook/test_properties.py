"""Whatever is sent, the webhook decides; and what it lets in is what the annotations say."""

from contextlib import suppress
from fractions import Fraction
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from fracgpu.names import PER_CONTAINER_ANNOTATIONS, RESOURCE_MEMORY, RESOURCE_REPLICA, USER_ANNOTATIONS
from fracgpu.quantities import Mib, parse_quantity
from fracgpu.requests import request_of
from tests.vocabulary.unhurried import unhurried
from tests.webhook.builders import NO_GPUS, container, operations_of, patched, pod, review, typed
from webhook.policy import Policy
from webhook.reviews import ReviewError, answer_pod

MIB = 2**20

policies = st.builds(
    Policy,
    unit=st.sampled_from([1, 256, 512, 1000, 1024]).map(Mib),
    replicas=st.sampled_from([1, 2, 3, 4, 7, 8, 10, 100, 1024]),
)
numbers = st.one_of(
    st.integers(-2, 2**40).map(str),
    st.decimals(-1, 100, places=3).map(str),
    st.floats().map(str),
    st.sampled_from(["", " ", "0.25", ".5", "1", "2", "4", "+1", "1.", "1e3", "1e-3", "1e99"]),
)
sizes = st.builds(
    lambda number, suffix: number + suffix,
    numbers,
    st.sampled_from(["", "Mi", "Gi", "Ti", "Ei", "M", "G", "m", "n", "k", "K", "GB", "mi", " Gi", "Gi "]),
)
names = st.sampled_from(["main", "b", "warm", "proxy", ""])
own_keys = st.builds("{}.{}".format, st.sampled_from(PER_CONTAINER_ANNOTATIONS), names)
keys = st.one_of(
    st.sampled_from(USER_ANNOTATIONS), own_keys, st.text(max_size=8).map("fracgpu.io/".__add__), st.text(max_size=8)
)
annotations = st.dictionaries(keys, st.one_of(sizes, names, st.text(max_size=20)), max_size=4)
amounts = st.dictionaries(
    st.sampled_from([RESOURCE_MEMORY, RESOURCE_REPLICA, "cpu", "fracgpu.io/mem"]),
    st.one_of(st.integers(0, 16), st.integers(0, 16).map(str), sizes, st.floats(allow_nan=False, allow_infinity=False)),
    max_size=2,
)
resources = st.one_of(
    st.none(), st.fixed_dictionaries({}, optional={"limits": amounts | st.none(), "requests": amounts | st.none()})
)
containers = st.fixed_dictionaries(
    {"name": names},
    optional={
        "resources": resources,
        "restartPolicy": st.sampled_from(["Always", "Never"]),
        "env": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["A", "CUDA_VISIBLE_DEVICES"])}), max_size=2),
    },
)


def unique(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({each["name"]: each for each in listed}.values())


pods = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({}, optional={"annotations": annotations | st.none()}),
        "spec": st.fixed_dictionaries(
            {"containers": st.lists(containers, max_size=3).map(unique)},
            optional={"initContainers": st.lists(containers, max_size=2).map(unique)},
        ),
    }
)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "spec", "annotations", "containers", "resources", "limits", "name", "env"])
            | st.text(max_size=4),
            children,
            max_size=3,
        )
    ),
    max_leaves=12,
)


def respond(manifest: object, policy: Policy) -> dict[str, Any]:
    """The response, which has exactly the members of its kind."""
    response: dict[str, Any] = msgspec.json.decode(
        answer_pod(msgspec.json.encode(review(manifest)), policy=policy, cluster=NO_GPUS)
    )["response"]
    if not response["allowed"]:
        assert set(response) == {"uid", "allowed", "status"}
        assert response["status"]["message"]
    else:
        assert set(response) - {"patch", "patchType"} == {"uid", "allowed"}
    return response


def check_accepted(manifest: dict[str, Any], response: dict[str, Any], policy: Policy) -> None:
    """What was let in means what the annotations say, and comes out of a second round unchanged."""
    after = patched(manifest, operations_of(response))
    assert respond(after, policy) == {"uid": response["uid"], "allowed": True}, "not idempotent"
    request = request_of(typed(after))
    notes = manifest["metadata"].get("annotations") or {}
    sizes = [key for key in notes if key.startswith(("fracgpu.io/gpu-memory", "fracgpu.io/gpu-fraction"))]
    if not sizes:
        assert after == manifest
        return
    assert request is not None
    for key in sizes:
        base, _, own = key.removeprefix("fracgpu.io/").partition(".")
        named = own or notes.get("fracgpu.io/container")
        gpus = {
            int(text)
            for name in (f"fracgpu.io/gpu-count.{named}", "fracgpu.io/gpu-count")
            if (text := notes.get(name)) is not None
        } | {1}
        shares = [share for share in request.containers if named in (None, share.container) and share.gpus in gpus]
        if base == "gpu-memory":
            size = parse_quantity(notes[key].strip()) / MIB
            assert any((s.units - 1) * policy.unit < size <= s.units * policy.unit for s in shares)
        else:
            part = Fraction(notes[key].strip())
            assert any(Fraction(s.seats, policy.replicas) == part for s in shares)


@unhurried
@given(pods, policies)
def test_every_pod_is_decided_and_accepted_ones_are_finished(manifest: dict[str, Any], policy: Policy) -> None:
    response = respond(manifest, policy)

    if response["allowed"]:
        check_accepted(manifest, response, policy)


@unhurried
@given(sizes, st.integers(1, 64), policies)
@example("4Gi", 2, Policy())
def test_any_size(size: str, count: int, policy: Policy) -> None:
    manifest = pod({"gpu-memory": size, "gpu-count": str(count)}, container())

    response = respond(manifest, policy)

    if response["allowed"]:
        check_accepted(manifest, response, policy)


@unhurried
@given(st.fractions(0, 1, max_denominator=1024), policies)
def test_a_fraction_is_accepted_exactly_if_it_is_a_whole_number_of_seats(part: Fraction, policy: Policy) -> None:
    """As far as a decimal number can write it."""
    text = f"{float(part):.12f}"

    response = respond(pod({"gpu-fraction": text}), policy)

    seats = Fraction(text) * policy.replicas
    assert response["allowed"] is (seats > 0 and seats.denominator == 1)


@unhurried
@given(json)
def test_any_json_as_a_pod_is_decided(manifest: object) -> None:
    response = respond(manifest, Policy())

    if response["allowed"]:
        operations_of(response)


@unhurried
@given(st.text(max_size=64), st.sampled_from(USER_ANNOTATIONS))
def test_any_annotation_text_is_decided(text: str, key: str) -> None:
    respond(
        pod({key: text, "fracgpu.io/gpu-memory": "1Gi"} if "count" in key or "container" in key else {key: text}),
        Policy(),
    )


@unhurried
@given(json | st.binary(max_size=64).map(msgspec.Raw))
def test_any_body_is_answered_or_a_review_error(body: object) -> None:
    with suppress(ReviewError):
        answer_pod(msgspec.json.encode(body), policy=Policy(), cluster=NO_GPUS)


@unhurried
@given(
    st.dictionaries(own_keys | st.sampled_from(USER_ANNOTATIONS), sizes | names | st.sampled_from(["1", "2", "A100"])),
    policies,
)
def test_annotations_of_several_containers(notes: dict[str, str], policy: Policy) -> None:
    manifest = pod({}, container("main"), container("b"), init=(container("proxy", restart="Always"),))
    manifest["metadata"]["annotations"] = notes

    response = respond(manifest, policy)

    if response["allowed"]:
        check_accepted(manifest, response, policy)


@unhurried
@given(
    sizes=st.dictionaries(st.sampled_from(["", ".main", ".b", ".proxy"]), st.sampled_from(["1Gi", "4Gi"]), min_size=1),
    counts=st.dictionaries(st.sampled_from(["", ".main", ".b", ".proxy"]), st.sampled_from(["1", "2", "3"])),
    named=st.sampled_from([None, "main", "b", "proxy"]),
)
def test_what_a_container_gets_is_what_was_written_for_it(
    sizes: dict[str, str], counts: dict[str, str], named: str | None
) -> None:
    """Limits are made of size and count, and read as so many GPUs again: both have to mean the same container."""
    notes = {f"gpu-memory{own}": size for own, size in sizes.items()} | {
        f"gpu-count{own}": n for own, n in counts.items()
    }
    manifest = pod(
        notes | ({"container": named} if named else {}),
        container("main"),
        container("b"),
        init=(container("proxy", restart="Always"),),
    )

    response = respond(manifest, Policy())

    if not response["allowed"]:
        return
    request = request_of(typed(patched(manifest, operations_of(response))))
    assert request is not None
    for share in request.containers:
        own = f".{share.container}"
        size, count = sizes.get(own, sizes.get("")), counts.get(own, counts.get("", "1") if own not in sizes else "1")
        assert share.units == (2 if size == "1Gi" else 8)
        if own in counts or "" not in counts:
            assert share.gpus == int(count)
    assert sum(share.gpus for share in request.containers) == sum(
        int(counts.get(f".{share.container}", "0")) for share in request.containers
    ) + sum(
        int(counts[""]) if "" in counts and share.gpus != 1 else share.gpus
        for share in request.containers
        if f".{share.container}" not in counts
    )
