"""``ClusterApi`` over HTTP, for tests that talk to a real API server."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator

import aiohttp

from playground.cluster import ApiStatusError, JsonObject, WatchEvent

_GROUPS = {"pods": "/api/v1", "nodes": "/api/v1", "events": "/api/v1"}


class HttpCluster:
    """The verbs of ``ClusterApi`` for pods and nodes, and for reading events."""

    def __init__(self, url: str, *, token: str, context: ssl.SSLContext) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"},
            connector=aiohttp.TCPConnector(ssl=context),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )

    async def close(self) -> None:
        await self._session.close()

    async def create(self, resource: str, obj: JsonObject) -> JsonObject:
        return await self._send("POST", self._path(resource, namespace="default"), body=obj)

    async def get(self, resource: str, name: str, *, namespace: str = "") -> JsonObject:
        return await self._send("GET", self._path(resource, name, namespace=namespace))

    async def list(self, resource: str, *, field_selector: str = "") -> tuple[list[JsonObject], str]:
        answer = await self._send("GET", self._path(resource), query={"fieldSelector": field_selector})
        return answer["items"], answer["metadata"]["resourceVersion"]

    async def patch(
        self, resource: str, name: str, patch: JsonObject, *, namespace: str = "", subresource: str = ""
    ) -> JsonObject:
        path = self._path(resource, name, namespace=namespace) + (f"/{subresource}" if subresource else "")
        return await self._send("PATCH", path, body=patch, content_type="application/merge-patch+json")

    async def delete(
        self, resource: str, name: str, *, namespace: str = "", grace_seconds: int | None = None, uid: str = ""
    ) -> None:
        options: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._send("DELETE", self._path(resource, name, namespace=namespace), body=options)

    async def watch(
        self, resource: str, *, resource_version: str, field_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        query = {"watch": "1", "resourceVersion": resource_version, "fieldSelector": field_selector}
        async with self._session.get(self._url + self._path(resource), params=query) as response:
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _status_error(event["object"])
                yield WatchEvent(event["type"], event["object"])

    def _path(self, resource: str, name: str = "", *, namespace: str = "") -> str:
        middle = f"/namespaces/{namespace}" if resource == "pods" and namespace else ""
        return f"{_GROUPS[resource]}{middle}/{resource}" + (f"/{name}" if name else "")

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: JsonObject | None = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> JsonObject:
        async with self._session.request(
            method,
            self._url + path,
            params=query,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type},
        ) as response:
            answer: JsonObject = await response.json()
            if response.status >= 400:
                raise _status_error(answer)
            return answer


def _status_error(status: JsonObject) -> ApiStatusError:
    return ApiStatusError(status["code"], status.get("reason", ""), status.get("message", ""))
