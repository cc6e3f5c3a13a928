"""The patch formats, on plain objects."""

from __future__ import annotations

from typing import Any

import pytest

from playground.api.applying import apply_owned, owned_fields
from playground.api.patches import json_patch, merge_patch
from playground.api.schemas import schema_of
from playground.api.strategic import strategic_merge_patch
from playground.cluster import ApiStatusError

MERGES: dict[str, tuple[Any, Any, Any]] = {
    "set": ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    "remove": ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
    "deep": ({"a": {"b": 1, "c": 2}}, {"a": {"c": None}}, {"a": {"b": 1}}),
    "a list is replaced whole": ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    "null inside a new object is dropped": ({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
}


@pytest.mark.parametrize("case", MERGES)
def test_merge_patch(case: str) -> None:
    obj, patch, want = MERGES[case]
    assert merge_patch(obj, patch) == want


def test_strategic_merge_joins_containers_and_conditions_by_key() -> None:
    pod = {"spec": {"containers": [{"name": "a", "image": "x", "tty": True}, {"name": "b"}]}}
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "image": "y"}, {"name": "b", "$patch": "delete"}, {"name": "c"}],
        }
    }
    want = {"spec": {"containers": [{"name": "a", "image": "y", "tty": True}, {"name": "c"}]}}
    assert strategic_merge_patch(pod, patch, schema=schema_of("pods")) == want


JSON_PATCHES: dict[str, tuple[Any, list[dict[str, Any]], Any]] = {
    "add to a map": ({"a": {}}, [{"op": "add", "path": "/a/b", "value": 1}], {"a": {"b": 1}}),
    "append": ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
    "insert": ({"a": [1]}, [{"op": "add", "path": "/a/0", "value": 0}], {"a": [0, 1]}),
    "replace": ({"a": [1]}, [{"op": "replace", "path": "/a/0", "value": 5}], {"a": [5]}),
    "remove": ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
    "move": ({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
    "copy": ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
    "escapes": ({"a/b": {"c~d": 1}}, [{"op": "remove", "path": "/a~1b/c~0d"}], {"a/b": {}}),
    "the whole": ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 1}}], {"b": 1}),
    "a test that holds": ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1}),
}


@pytest.mark.parametrize("case", JSON_PATCHES)
def test_json_patch(case: str) -> None:
    obj, operations, want = JSON_PATCHES[case]
    assert json_patch(obj, operations) == want


@pytest.mark.parametrize(
    ("operations", "want_code"),
    [
        ({"op": "add"}, 400),
        ([{"op": "remove", "path": "/nope"}], 422),
        ([{"op": "replace", "path": "/list/9", "value": 1}], 422),
        ([{"op": "add", "path": "/list/01", "value": 1}], 422),
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "add", "path": "nope", "value": 1}], 422),
        ([{"op": "what", "path": "/a"}], 422),
        ([{"path": "/a"}], 422),
    ],
)
def test_json_patches_that_cannot_be_applied(operations: Any, want_code: int) -> None:
    obj = {"a": 1, "list": [1]}
    with pytest.raises(ApiStatusError) as caught:
        json_patch(obj, operations)
    assert caught.value.code == want_code
    assert obj == {"a": 1, "list": [1]}


def test_apply_removes_only_what_the_manager_had_named() -> None:
    first = {"spec": {"mine": {"x": 1, "y": 2}, "list": [1]}}
    live = {"spec": {"mine": {"x": 1, "y": 2}, "list": [1], "theirs": 3}}
    second = {"spec": {"mine": {"x": 5}}}
    owned = owned_fields(first, schema={})
    assert apply_owned(live, second, owned=owned, schema={}) == {"spec": {"mine": {"x": 5}, "theirs": 3}}
    assert apply_owned(live, {}, owned=owned, schema={}) == {"spec": {"theirs": 3}}


def test_apply_takes_items_away_by_their_key() -> None:
    schema = schema_of("pods")
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    first = {"spec": {"containers": [{"name": "c", "image": "x", "env": env}]}}
    live = {"spec": {"containers": [{"name": "c", "image": "x", "env": env, "tty": True}, {"name": "theirs"}]}}
    second = {"spec": {"containers": [{"name": "c", "image": "y", "env": env[:1]}]}}
    applied = apply_owned(live, second, owned=owned_fields(first, schema=schema), schema=schema)
    want = [{"name": "c", "image": "y", "env": env[:1], "tty": True}, {"name": "theirs"}]
    assert applied == {"spec": {"containers": want}}


STRATEGIC: dict[str, tuple[Any, Any, Any]] = {
    "a strategy of another type drops what belonged to the first": (
        {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}},
        {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
        {"strategy": {"type": "Recreate"}},
    ),
    "containers of a template come in the order that is asked for": (
        {"template": {"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}}},
        {"template": {"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}}},
        {"template": {"spec": {"containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}}},
    ),
    "a list without a key is replaced whole": (
        {"template": {"spec": {"containers": [{"name": "a", "args": ["x", "y"]}]}}},
        {"template": {"spec": {"containers": [{"name": "a", "args": ["z"]}]}}},
        {"template": {"spec": {"containers": [{"name": "a", "args": ["z"]}]}}},
    ),
    "everything may be replaced": (
        {"replicas": 1, "paused": True},
        {"$patch": "replace", "replicas": 2},
        {"replicas": 2},
    ),
}


@pytest.mark.parametrize("case", STRATEGIC)
def test_strategic_merge_of_a_deployment(case: str) -> None:
    spec, patch, want = STRATEGIC[case]
    assert strategic_merge_patch({"spec": spec}, {"spec": patch}, schema=schema_of("deployments")) == {"spec": want}


def test_strategic_merge_of_finalizers_takes_single_values_away() -> None:
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}
    patched = strategic_merge_patch({"metadata": {"finalizers": ["a", "b"]}}, patch, schema=schema_of("pods"))
    assert patched == {"metadata": {"finalizers": ["b", "c"]}}
