"""Which GPUs a pod accepts, by its annotations."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fracgpu.annotations import Asked, PodAnnotations
from fracgpu.errors import RequestError
from fracgpu.names import USER_ANNOTATIONS, GpuUuid
from fracgpu.quantities import Mib
from fracgpu.selectors import GpuSelector, matches_model, selector_of


def asked(annotations: dict[str, str]) -> Asked:
    """What a pod's annotations ask for its container."""
    return PodAnnotations(annotations).about("main", is_target=True)


@pytest.mark.parametrize(
    ("pattern", "product", "want"),
    [
        ("A100", "NVIDIA A100-SXM4-80GB", True),
        ("a100-sxm4-80gb", "NVIDIA A100-SXM4-80GB", True),
        ("A100-*", "NVIDIA A100-SXM4-80GB", True),
        ("nvidia a100*", "NVIDIA A100-SXM4-80GB", True),
        ("80GB", "NVIDIA A100-SXM4-80GB", True),
        ("A10", "NVIDIA A100-SXM4-80GB", False),
        ("A10", "NVIDIA A10", True),
        ("A10?", "NVIDIA A100-SXM4-80GB", True),
        ("00", "NVIDIA A100-SXM4-80GB", False),
        ("A100.SXM4", "NVIDIA A100-SXM4-80GB", False),
        ("*", "Tesla T4", True),
        ("*" * 4000 + "_", "NVIDIA GeForce RTX 4090 Laptop GPU", False),
        ("*a" * 2000, "a" * 100, False),
        ("RTX 40?0", "NVIDIA GeForce RTX 4090 Laptop GPU", True),
        ("RTX*", "NVIDIA GeForce RTX 4090 Laptop GPU", True),
        ("*RTX", "NVIDIA GeForce RTX 4090 Laptop GPU", True),
        ("GPU", "NVIDIA GeForce RTX 4090 Laptop GPU", True),
        ("GP", "NVIDIA GeForce RTX 4090 Laptop GPU", False),
        ("A100", "", False),
        ("*", "", True),
    ],
)
def test_a_pattern_names_whole_words_of_the_product(pattern: str, product: str, want: bool) -> None:
    assert matches_model(pattern, product) is want


def test_all_parts_of_a_selection_have_to_agree() -> None:
    selector = selector_of(
        asked(
            {
                "fracgpu.io/gpu-model": "A100 , H100",
                "fracgpu.io/exclude-gpu-model": "*40GB",
                "fracgpu.io/exclude-gpu-uuid": "GPU-3",
            }
        )
    )
    assert selector is not None
    assert selector == GpuSelector(("A100", "H100"), ("*40GB",), (), (GpuUuid("GPU-3"),))
    assert selector.accepts(uuid=GpuUuid("GPU-1"), product="NVIDIA A100-SXM4-80GB", memory=Mib(81920))
    assert not selector.accepts(uuid=GpuUuid("GPU-1"), product="NVIDIA A100-SXM4-40GB", memory=Mib(81920))
    assert not selector.accepts(uuid=GpuUuid("GPU-3"), product="NVIDIA A100-SXM4-80GB", memory=Mib(81920))
    assert not selector.accepts(uuid=GpuUuid("GPU-1"), product="Tesla T4", memory=Mib(81920))
    assert str(selector) == "model A100 or H100, not model *40GB, not GPU-3"


def test_a_pod_that_selects_nothing_takes_any_gpu() -> None:
    assert selector_of(asked({"fracgpu.io/gpu-memory": "4Gi"})) is None


@pytest.mark.parametrize("value", ["", " , ", ",".join(["A100"] * 65), "A" * 5000])
@pytest.mark.parametrize("name", ["gpu-model", "exclude-gpu-model", "gpu-uuid", "exclude-gpu-uuid"])
def test_a_selection_of_nothing_is_a_mistake(name: str, value: str) -> None:
    with pytest.raises(RequestError, match=f"annotation fracgpu.io/{name} is .* for example"):
        selector_of(asked({f"fracgpu.io/{name}": value}))
    assert f"fracgpu.io/{name}" in USER_ANNOTATIONS


@pytest.mark.parametrize("value", ["0", "gpu-1", "MIG-1", "GPU-1, 1"])
@pytest.mark.parametrize("name", ["gpu-uuid", "exclude-gpu-uuid"])
def test_a_gpu_is_named_by_its_uuid_only(name: str, value: str) -> None:
    with pytest.raises(RequestError, match=rf"fracgpu\.io/{name} is .* is no UUID of a GPU, .* by its index"):
        selector_of(asked({f"fracgpu.io/{name}": value}))


def test_a_selection_that_leaves_no_gpu_is_a_mistake() -> None:
    chosen = {"fracgpu.io/gpu-uuid": "GPU-1,GPU-2"}
    with pytest.raises(RequestError, match="so no GPU is left"):
        selector_of(asked(chosen | {"fracgpu.io/exclude-gpu-uuid": "GPU-2,GPU-3,GPU-1"}))
    assert selector_of(asked(chosen | {"fracgpu.io/exclude-gpu-uuid": "GPU-2"})) is not None


@given(st.text("ab-*?", max_size=8), st.text("aAb- ", max_size=12))
def test_matching_is_that_of_the_regular_expression(pattern: str, product: str) -> None:
    body = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    want = re.search(f"(?<![a-z0-9]){body}(?![a-z0-9])", product, re.IGNORECASE)
    if pattern:
        assert matches_model(pattern, product) is bool(want)


@pytest.mark.parametrize("tail", ["Z", "80GB"])
@pytest.mark.parametrize("bulk", ["*" * 4000, "*?" * 30 + "*" * 3000, "*" * 2000 + "A100" + "*" * 2000])
def test_a_pattern_of_thousands_of_stars_is_decided(bulk: str, tail: str) -> None:
    """One that is not bounded takes minutes, in which the webhook answers nobody: the test would not end in time."""
    products = [f"NVIDIA A100-SXM4-{number}-80GB" for number in range(100)]
    found = {matches_model(bulk + tail, product) for product in products}
    assert found == {tail == "80GB" and "?" not in bulk}


def test_the_size_of_the_card_counts_and_not_what_is_offered_of_it() -> None:
    selector = selector_of(asked({"fracgpu.io/min-gpu-memory": "24G"}))
    assert selector == GpuSelector(min_memory=22889)
    assert selector.accepts(uuid=GpuUuid("GPU-1"), product="NVIDIA L4", memory=Mib(23034))
    assert not selector.accepts(uuid=GpuUuid("GPU-2"), product="Tesla T4", memory=Mib(15360))
    assert str(selector) == "with at least 22.35 GiB in all"


@pytest.mark.parametrize("value", ["", "80", "0", "-1Gi", "80GB", "1Ei", "NaN"])
def test_a_card_of_no_size_is_a_mistake(value: str) -> None:
    with pytest.raises(RequestError, match=r"annotation fracgpu\.io/min-gpu-memory is .* for example"):
        selector_of(asked({"fracgpu.io/min-gpu-memory": value}))


def test_a_selection_for_one_container_goes_before_that_of_the_pod() -> None:
    annotations = PodAnnotations({"fracgpu.io/gpu-model": "T4", "fracgpu.io/gpu-model.big": "A100"})
    assert selector_of(annotations.about("big", is_target=False)) == GpuSelector(("A100",))
    assert selector_of(annotations.about("other", is_target=False)) == GpuSelector(("T4",))
