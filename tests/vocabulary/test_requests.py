"""What a pod asks, read from its limits: the one reading that webhook, placement and plugin share."""

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fracgpu.annotations import MAX_GPUS, Written, parse_fraction, parse_gpu_count
from fracgpu.errors import FracgpuError, RequestError
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, GpuUuid
from fracgpu.pods import Container, ObjectMeta, Pod, PodSpec, Quantity, Resources
from fracgpu.requests import (
    ContainerRequest,
    PodRequest,
    gpu_resource_names,
    request_of,
)
from fracgpu.selectors import GpuSelector
from tests.vocabulary.unhurried import unhurried


def box(
    name: str = "main", *, units: Quantity | None = None, seats: Quantity | None = None, sidecar: bool = False
) -> Container:
    """A container with limits of the two resources."""
    named: tuple[tuple[str, Quantity | None], ...] = ((RESOURCE_MEMORY, units), (RESOURCE_REPLICA, seats))
    limits = {key: value for key, value in named if value is not None}
    return Container(name, Resources(limits=limits), restart_policy="Always" if sidecar else None)


def pod(*containers: Container, init: tuple[Container, ...] = (), **annotations: str) -> Pod:
    """A pod; annotations are named without the domain and with underscores."""
    notes = {f"fracgpu.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return Pod(ObjectMeta(annotations=notes), PodSpec(containers=containers, init_containers=init))


def units(container: str, units: int, *, gpus: int = 1) -> ContainerRequest:
    return ContainerRequest(container, gpus, units=units, seats=0)


def seats(container: str, seats: int, *, gpus: int = 1, replicas: int | None = None) -> ContainerRequest:
    return ContainerRequest(container, gpus, units=0, seats=seats, replicas=replicas)


READ: dict[str, tuple[Pod, tuple[ContainerRequest, ...]]] = {
    "units": (pod(box(units="8")), (units("main", 8),)),
    "units as a number": (pod(box(units=8)), (units("main", 8),)),
    "seats go to a GPU of any R": (pod(box(seats="2")), (seats("main", 2),)),
    "seats by fraction go to a GPU of that R": (
        pod(box(seats="1"), gpu_fraction="0.25"),
        (seats("main", 1, replicas=4),),
    ),
    "seats of two GPUs by fraction": (
        pod(box(seats="4"), gpu_fraction="0.5", gpu_count="2"),
        (seats("main", 2, gpus=2, replicas=4),),
    ),
    "any of several models, for every container": (
        pod(box("a", units="8"), box("b", units="2"), gpu_model="A100, h100-*", exclude_gpu_uuid="GPU-1"),
        tuple(
            ContainerRequest(name, 1, n, 0, selector=GpuSelector(("A100", "h100-*"), (), (), (GpuUuid("GPU-1"),)))
            for name, n in (("a", 8), ("b", 2))
        ),
    ),
    "one GPU by name": (
        pod(box(units="8"), gpu_uuid="GPU-1"),
        (ContainerRequest("main", 1, 8, 0, selector=GpuSelector(uuids=(GpuUuid("GPU-1"),))),),
    ),
    "a whole GPU by fraction": (pod(box(seats="4"), gpu_fraction="1"), (seats("main", 4, replicas=4),)),
    "units over two GPUs": (pod(box(units="8"), gpu_count="2"), (units("main", 4, gpus=2),)),
    "the count is for the first app container": (
        pod(box("a", units=4), box("b", units=3), gpu_count="2"),
        (units("a", 2, gpus=2), units("b", 3)),
    ),
    "the count is for the first app container that asks": (
        pod(box("a"), box("b", units=4), gpu_count="2"),
        (units("b", 2, gpus=2),),
    ),
    "the count is for the named container": (
        pod(box("a", units=3), box("b", units=4), gpu_count="2", container="b"),
        (units("a", 3), units("b", 2, gpus=2)),
    ),
    "the count is not for a sidecar that stands before": (
        pod(box("app", units=4), init=(box("proxy", units=1, sidecar=True),), gpu_count="2"),
        (units("proxy", 1), units("app", 2, gpus=2)),
    ),
    "the count is for a sidecar where only it asks": (
        pod(box("app"), init=(box("proxy", units=4, sidecar=True),), gpu_count="2"),
        (units("proxy", 2, gpus=2),),
    ),
    "the fraction is for the named container": (
        pod(box("a", seats=1), box("b", seats=1), gpu_fraction="0.5", container="b"),
        (seats("a", 1), seats("b", 1, replicas=2)),
    ),
    "a request without a limit counts": (
        pod(Container("main", Resources(requests={RESOURCE_MEMORY: "3"}))),
        (units("main", 3),),
    ),
}

NOTHING = {
    "no containers": Pod(),
    "no resources": pod(Container("main")),
    "null limits": pod(Container("main", Resources())),
    "other resources": pod(Container("main", Resources(limits={"nvidia.com/gpu": "1"}))),
    "zero": pod(box(units="0", seats=0)),
    "zero on an init container": pod(box(), init=(box("warm", units=0),)),
    "annotations alone": pod(box(), gpu_count="2"),
}


@dataclass(frozen=True)
class Refused:
    pod: Pod
    want: str


REFUSED = {
    "an ordinary init container": Refused(pod(box(), init=(box("warm", units=8),)), "init container 'warm' asks for"),
    "units and seats in one container": Refused(pod(box(units=8, seats=1)), "both fracgpu.io/memory and"),
    "units and seats in two": Refused(pod(box("a", units=8), box("b", seats=1)), "'a' fracgpu.io/memory, 'b'"),
    "units in a sidecar and seats in the app": Refused(
        pod(box(seats=1), init=(box("proxy", units=1, sidecar=True),)), "both"
    ),
    "half a unit": Refused(pod(box(units="500m")), "limit fracgpu.io/memory: '500m'"),
    "a negative limit": Refused(pod(box(units=-1)), "limit fracgpu.io/memory: '-1'"),
    "a word": Refused(pod(box(units="many")), "limit fracgpu.io/memory: 'many'"),
    "bytes": Refused(pod(box(units="4Gi")), "units or seats, not bytes"),
    "a limit that the count does not divide": Refused(pod(box(units=3), gpu_count="2"), "multiple of 2"),
    "a broken count": Refused(pod(box(units=3), gpu_count="two"), "gpu-count is 'two'"),
    "a broken fraction": Refused(pod(box(seats=3), gpu_fraction="most"), "gpu-fraction is 'most'"),
    "seats that are not that fraction of any R": Refused(
        pod(box(seats=1), gpu_fraction="0.4"), "not the part 0.4 of a whole number of seats"
    ),
}


@pytest.mark.parametrize(("case", "want"), READ.values(), ids=READ)
def test_a_request(case: Pod, want: tuple[ContainerRequest, ...]) -> None:
    assert request_of(case) == PodRequest(want)


@pytest.mark.parametrize("case", NOTHING.values(), ids=NOTHING)
def test_a_pod_that_asks_nothing(case: Pod) -> None:
    assert request_of(case) is None


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_contradiction(case: Refused) -> None:
    with pytest.raises(RequestError) as caught:
        request_of(case.pod)

    assert case.want in str(caught.value)


@unhurried
@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, MAX_GPUS))
def test_every_share_of_every_replica_count_is_read_back(seats: int, replicas: int, gpus: int) -> None:
    """As far as a decimal number can write it: the annotation is what a person wrote."""
    seats = min(seats, replicas)
    text = f"{float(Fraction(seats, replicas)):.15f}"
    if Fraction(text) != Fraction(seats, replicas):
        return
    request = request_of(pod(box(seats=seats * gpus), gpu_fraction=text, gpu_count=str(gpus)))

    assert request == PodRequest((ContainerRequest("main", gpus, units=0, seats=seats, replicas=replicas),))


amounts = st.one_of(st.none(), st.integers(-1, 20), st.text("0123456789.kMi-", max_size=5), st.floats())
containers = st.builds(box, st.sampled_from("abc"), units=amounts, seats=amounts, sidecar=st.booleans())


@unhurried
@given(st.lists(containers, max_size=3), st.lists(containers, max_size=2), st.text(max_size=4), st.text(max_size=4))
def test_any_pod_has_a_request_or_an_error_of_ours(
    apps: list[Container], init: list[Container], count: str, fraction: str
) -> None:
    case = pod(*apps, init=tuple(init), gpu_count=count, gpu_fraction=fraction)
    try:
        request = request_of(case)
    except FracgpuError:
        return
    for asked in request.containers if request else ():
        assert asked.gpus >= 1
        assert (asked.units > 0) != (asked.seats > 0)


@pytest.mark.parametrize(("text", "want"), [("1", 1), ("64", 64), (" 2 ", 2), ("007", 7)])
def test_a_count(text: str, want: int) -> None:
    assert parse_gpu_count(Written("fracgpu.io/gpu-count", text)) == want


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "1.0", "+1", "1e1", "٢", "²", "1" * 5000, "two", "0x2", "1_0"])
def test_no_count(text: str) -> None:
    with pytest.raises(RequestError, match=r"fracgpu\.io/gpu-count"):
        parse_gpu_count(Written("fracgpu.io/gpu-count", text))


@pytest.mark.parametrize(
    ("text", "want"),
    [("0.25", Fraction(1, 4)), (".5", Fraction(1, 2)), ("1", 1), ("1.0", 1), (" 250m", Fraction(1, 4))],
)
def test_a_fraction(text: str, want: Fraction) -> None:
    assert parse_fraction(Written("fracgpu.io/gpu-fraction", text)) == want


@pytest.mark.parametrize("text", ["", "0", "0.0", "-0.5", "1.01", "2", "25%", "1/4", "half", "nan", "inf", "1e-99"])
def test_no_fraction(text: str) -> None:
    with pytest.raises(RequestError, match=r"fracgpu\.io/gpu-fraction"):
        parse_fraction(Written("fracgpu.io/gpu-fraction", text))


def test_which_resources_a_container_asks_for() -> None:
    assert gpu_resource_names(box()) == ()
    assert gpu_resource_names(box(units=0, seats=2)) == (RESOURCE_REPLICA,)
    assert gpu_resource_names(box(units=1, seats=2)) == (RESOURCE_MEMORY, RESOURCE_REPLICA)
