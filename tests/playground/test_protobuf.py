"""Protobuf bodies: what kubectl sends is read by its own tests; here, that nothing else gets through."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from playground.api.protobuf import PREFIX, decode
from playground.cluster import ApiStatusError


@given(body=st.binary(max_size=60), kind=st.sampled_from(["Namespace", "ConfigMap", "Secret", "Pod"]))
@example(body=b"\x12\x05\x0a\xff\xff\xff\xff", kind="Namespace")
@example(body=b"\x12\x80", kind="Namespace")
def test_whatever_comes_is_read_or_refused(body: bytes, kind: str) -> None:
    found: dict[str, Any] = {}
    with contextlib.suppress(ApiStatusError):  # and nothing else
        found = decode(PREFIX + body, kind)
    assert isinstance(found, dict)


def test_a_field_that_is_not_known_is_refused_rather_than_lost() -> None:
    named = b"\x0a\x03\x0a\x01a"
    assert decode(PREFIX + b"\x12\x05" + named, "Namespace") == {"metadata": {"name": "a"}}
    with pytest.raises(ApiStatusError, match="use kubectl apply -f"):
        decode(PREFIX + b"\x12\x08" + named + b"\x7a\x01x", "Namespace")
