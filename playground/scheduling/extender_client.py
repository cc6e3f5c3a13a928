"""kube-scheduler's side of the extender protocol: filter, prioritize and bind over HTTP, with Go's field names.

As a KubeSchedulerConfiguration with ``nodeCacheCapable: true`` makes it: node names only, never nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import msgspec
from msgspec import Struct, field

from playground.cluster import JsonObject

TIMEOUT_SECONDS = 5.0
"""kube-scheduler's default for ``httpTimeout``."""


_Answer = TypeVar("_Answer")


class ExtenderError(Exception):
    """The extender did not do what it was asked; the text is what kube-scheduler would log."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """The nodes that passed, and why each other one did not."""

    nodes: Sequence[str]
    failed: dict[str, str]  # node -> reason


class _FilterResult(Struct, rename="pascal"):
    node_names: list[str] | None = None
    failed_nodes: dict[str, str] | None = None
    unresolvable: dict[str, str] | None = field(default=None, name="FailedAndUnresolvableNodes")
    error: str = ""


class _HostPriority(Struct, rename="pascal"):
    host: str
    score: int


class _BindingResult(Struct, rename="pascal"):
    error: str = ""


class ExtenderClient:
    """Calls one extender.

    Args:
        url: its urlPrefix, such as ``http://127.0.0.1:8888``.
        timeout_seconds: for one call.
    """

    def __init__(self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def filter(self, pod: JsonObject, nodes: Sequence[str]) -> Filtered:
        """Ask which of ``nodes`` can take the pod.

        Raises:
            ExtenderError: no usable answer, or one that says Error.
        """
        result = await self._post("filter", _extender_args(pod, nodes), _FilterResult)
        if result.error:
            raise ExtenderError(result.error)
        passed = result.node_names or []
        for node in passed:
            if node not in nodes:
                raise ExtenderError(
                    f'extender "{self._url}" claims a filtered node "{node}" which is not found in the input node list'
                )
        return Filtered(passed, {**(result.failed_nodes or {}), **(result.unresolvable or {})})

    async def prioritize(self, pod: JsonObject, nodes: Sequence[str]) -> dict[str, int]:
        """Ask how good each node is: node -> score, 10 the best.

        Raises:
            ExtenderError: no usable answer.
        """
        scores = await self._post("prioritize", _extender_args(pod, nodes), list[_HostPriority])
        return {entry.host: entry.score for entry in scores}

    async def bind(self, pod: JsonObject, node: str) -> None:
        """Have the extender bind the pod.

        Raises:
            ExtenderError: it did not.
        """
        metadata = pod["metadata"]
        args = {
            "PodName": metadata["name"],
            "PodNamespace": metadata["namespace"],
            "PodUID": metadata["uid"],
            "Node": node,
        }
        result = await self._post("bind", args, _BindingResult)
        if result.error:
            raise ExtenderError(result.error)

    async def stop(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, verb: str, args: JsonObject, answer: type[_Answer]) -> _Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        url = f"{self._url}/{verb}"
        headers = {"Content-Type": "application/json", "User-Agent": "Go-http-client/1.1"}
        try:
            async with self._session.post(url, data=msgspec.json.encode(args), headers=headers) as response:
                body = await response.read()
                if response.status != 200:
                    raise ExtenderError(f"failed {verb} with extender at URL {url}, code {response.status}")
            return msgspec.json.decode(body, type=answer)
        except TimeoutError as exc:
            raise ExtenderError(f'Post "{url}": context deadline exceeded') from exc
        except (aiohttp.ClientError, msgspec.MsgspecError) as exc:
            raise ExtenderError(f'Post "{url}": {exc}') from exc


def _extender_args(pod: JsonObject, nodes: Sequence[str]) -> JsonObject:
    # What kube-scheduler sends has no type and no managedFields: its cache does not keep them.
    bare = {name: value for name, value in pod.items() if name not in ("apiVersion", "kind")}
    bare["metadata"] = {name: value for name, value in pod["metadata"].items() if name != "managedFields"}
    return {"Pod": bare, "Nodes": None, "NodeNames": list(nodes)}
