"""A client that asks the playground's API server and a real kube-apiserver the same questions."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import aiohttp
import yaml

from playground.api.schemas import CRDS


def custom_resources() -> list[dict[str, Any]]:
    """Our CustomResourceDefinitions as they are deployed, but for their schemas, which would refuse short examples."""
    found = []
    for path in sorted(CRDS.glob("*.yaml")):
        definition: dict[str, Any] = yaml.safe_load(path.read_text())
        for version in definition["spec"]["versions"]:
            version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        found.append(definition)
    return found


class Api:
    """A client that knows nothing: bodies in, status and bodies out."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self.namespace = f"test-{uuid.uuid4().hex[:8]}"
        self.pods = f"/api/v1/namespaces/{self.namespace}/pods"

    async def send(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", accept: str = "*/*"
    ) -> tuple[int, Any]:
        code, answer, _ = await self.send_and_hear(method, path, body, kind=kind, accept=accept)
        return code, answer

    async def send_and_hear(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", accept: str = "*/*"
    ) -> tuple[int, Any, list[str]]:
        """As ``send``, with the warnings beside the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": kind, "Accept": accept}
        async with self._session.request(method, self._url + path, data=data, headers=headers) as response:
            return response.status, json.loads(await response.read()), response.headers.getall("Warning", [])

    async def watch(self, path: str, *, count: int, accept: str = "*/*") -> list[dict[str, Any]]:
        """The first events of a watch."""
        separator = "&" if "?" in path else "?"
        found: list[dict[str, Any]] = []
        async with (
            asyncio.timeout(10),
            self._session.get(f"{self._url}{path}{separator}watch=true", headers={"Accept": accept}) as response,
        ):
            assert response.status == 200
            async for line in response.content:
                found.append(json.loads(line))
                if len(found) == count:
                    break
            # Over TLS a polite close waits for the other side, which goes on streaming.
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()
        return found

    async def events(self, path: str, *, count: int) -> list[tuple[str, str]]:
        """The first events of a watch, as (type, name)."""
        found = await self.watch(path, count=count)
        return [(event["type"], event["object"]["metadata"]["name"]) for event in found]

    async def create_pod(self, name: str, **spec: Any) -> dict[str, Any]:
        code, created = await self.send("POST", self.pods, pod(name, **spec))
        assert code == 201, created
        return dict(created)

    async def bind(self, name: str, *, node: str = "n1", **metadata: Any) -> tuple[int, Any]:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, **metadata},
            "target": {"kind": "Node", "name": node},
        }
        return await self.send("POST", f"{self.pods}/{name}/binding", binding)

    async def version(self) -> str:
        _, listed = await self.send("GET", self.pods)
        return str(listed["metadata"]["resourceVersion"])


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "x"}], **spec},
    }
