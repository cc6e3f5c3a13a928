"""Which GPUs a pod accepts, by its annotations."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fracgpu.errors import RequestError
from fracgpu.names import USER_ANNOTATIONS, GpuUuid
from fracgpu.selectors import GpuSelector, matches_model, selector_of


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
        {
            "fracgpu.io/gpu-model": "A100 , H100",
            "fracgpu.io/exclude-gpu-model": "*40GB",
            "fracgpu.io/exclude-gpu-uuid": "GPU-3",
        }
    )
    assert selector == GpuSelector(("A100", "H100"), ("*40GB",), (), (GpuUuid("GPU-3"),))
    assert selector.accepts(uuid=GpuUuid("GPU-1"), product="NVIDIA A100-SXM4-80GB")
    assert not selector.accepts(uuid=GpuUuid("GPU-1"), product="NVIDIA A100-SXM4-40GB")
    assert not selector.accepts(uuid=GpuUuid("GPU-3"), product="NVIDIA A100-SXM4-80GB")
    assert not selector.accepts(uuid=GpuUuid("GPU-1"), product="Tesla T4")
    assert str(selector) == "model A100 or H100, not model *40GB, not GPU-3"


def test_a_pod_that_selects_nothing_takes_any_gpu() -> None:
    assert selector_of({"fracgpu.io/gpu-memory": "4Gi"}) is None


@pytest.mark.parametrize("value", ["", " , ", ",".join(["A100"] * 65), "A" * 5000])
@pytest.mark.parametrize("name", ["gpu-model", "exclude-gpu-model", "gpu-uuid", "exclude-gpu-uuid"])
def test_a_selection_of_nothing_is_a_mistake(name: str, value: str) -> None:
    with pytest.raises(RequestError, match=f"annotation fracgpu.io/{name} is .* for example"):
        selector_of({f"fracgpu.io/{name}": value})
    assert f"fracgpu.io/{name}" in USER_ANNOTATIONS


@given(st.text("ab-*?", max_size=8), st.text("aAb- ", max_size=12))
def test_matching_is_that_of_the_regular_expression(pattern: str, product: str) -> None:
    body = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    want = re.search(f"(?<![a-z0-9]){body}(?![a-z0-9])", product, re.IGNORECASE)
    if pattern:
        assert matches_model(pattern, product) is bool(want)
