"""What an admission leaves behind for people: a log line, and spans in the pod's own trace."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fracgpu.errors import ConflictError
from fracgpu.plans import Share
from fracgpu.process.logs import facts_of
from plugin.granting.admission import Claim
from plugin.granting.deciding import deciding
from tests.plugin.builders import A, make_pod
from tests.plugin.node import NODE, SimulatedNode
from tests.process.receiver import traced


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The facts of each such line."""
    return [facts_of(record) for record in caplog.records if record.message == event]


async def test_what_is_granted_and_what_is_refused(node: SimulatedNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with traced("plugin") as receiver, node.plugin():
        first = await node.create("first", {"main": [Share(A, 40)]})
        await node.until_phase("first", "Running")
        second = await node.create("second", {"main": [Share(A, 41)]})
        await node.until_phase("second", "Failed")
    (granted,) = told(caplog, "granted")
    assert 0 < granted.pop("ms") < 60_000
    assert granted == {
        "pod": "team-a/first",
        "uid": first,
        "node": NODE,
        "container": "main",
        "gpus": {A: 40},
    }
    refused = told(caplog, "refused")[-1]
    assert (refused["pod"], refused["uid"], refused["node"]) == ("team-a/second", second, NODE)
    assert refused["sentence"]

    spans = {(found.attributes["k8s.pod.uid"], found.name): found for found in receiver.spans}
    allocated = spans[first, "allocate"]
    assert allocated.trace == first.replace("-", "")
    assert spans[first, "prefer"].trace == allocated.trace
    assert allocated.attributes == {
        "k8s.pod.uid": first,
        "k8s.namespace.name": "team-a",
        "k8s.pod.name": "first",
        "k8s.node.name": NODE,
        "fracgpu.container": "main",
        "fracgpu.gpus": [f"{A}=40"],
    }
    failed = [found for (uid, _), found in spans.items() if uid == second]
    assert [found.error for found in failed if found.error] == [refused["sentence"]]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ConflictError("somebody was faster"), "Conflict"), (ZeroDivisionError("odd"), "ZeroDivisionError")],
)
async def test_whatever_goes_wrong_is_the_spans_error(error: Exception, kind: str) -> None:
    claim = Claim(make_pod("p", {"main": [Share(A, 8)]}), "main")
    async with traced("plugin") as receiver:
        with pytest.raises(type(error)), deciding("allocate", claim, began=0.0, facts={}):
            raise error
    (span,) = receiver.spans
    assert (span.error, span.attributes["error.type"]) == (str(error), kind)
