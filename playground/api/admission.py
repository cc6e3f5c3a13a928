"""Admission webhooks: objects are sent out as AdmissionReview v1 over TLS and come back patched, warned of or refused.

The shape of the review and the wording of refusals are kube-apiserver's (captures in ``tests/``). Webhooks are
configured in Python, not by configuration objects, and are called one after the other, once each: a validating one is
one that answers without a patch. Match conditions and reinvocation are left out.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
import msgspec

from playground.api.errors import internal
from playground.api.patches import json_patch
from playground.api.resources import Resource
from playground.api.warnings import warn
from playground.cluster import ApiStatusError, JsonObject

Operation = Literal["CREATE", "UPDATE"]


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook.

    Attributes:
        name: as refusals quote it.
        url: https, where reviews are POSTed.
        ca_pem: the certificate authority that its certificate must come from.
        resources: plural names of what it is called for.
        operations: when it is called.
        timeout_seconds: for one call; kube-apiserver allows 1 to 30.
        failure_policy: what happens to the pod when the webhook does not answer properly.
    """

    name: str
    url: str
    ca_pem: str
    resources: Sequence[str] = ("pods",)
    operations: Sequence[Operation] = ("CREATE",)
    timeout_seconds: int = 10
    failure_policy: Literal["Fail", "Ignore"] = "Fail"


class Admission:
    """Calls webhooks; ``webhooks`` may be replaced at any time."""

    def __init__(self, webhooks: Sequence[Webhook] = ()) -> None:
        self.webhooks = tuple(webhooks)
        self._session: aiohttp.ClientSession | None = None

    async def admit(
        self, resource: Resource, obj: JsonObject, *, operation: Operation, old: JsonObject | None, dry_run: bool
    ) -> JsonObject:
        """Return the object as the webhooks leave it: itself, if they change nothing.

        Raises:
            ApiStatusError: a webhook refused the object, or failed and may not be ignored.
        """
        for webhook in self.webhooks:
            if operation not in webhook.operations or resource.plural not in webhook.resources:
                continue
            request = _request(resource, obj, operation=operation, old=old, dry_run=dry_run)
            try:
                response = await self._call(webhook, request)
                patched = _patched(obj, response)
            except (aiohttp.ClientError, TimeoutError, ValueError, msgspec.MsgspecError) as exc:
                if webhook.failure_policy == "Ignore":
                    continue
                why = "context deadline exceeded" if isinstance(exc, TimeoutError) else str(exc)
                call = f'failed to call webhook: Post "{_call_url(webhook)}": {why}'
                raise internal(f'failed calling webhook "{webhook.name}": {call}') from exc
            if not response["allowed"]:
                raise _refusal(webhook, response.get("status") or {})
            for warning in response.get("warnings") or []:
                warn(str(warning))
            obj = patched
        return obj

    async def stop(self) -> None:
        """Close the connections to the webhooks."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(self, webhook: Webhook, request: JsonObject) -> JsonObject:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, */*",
            "User-Agent": "kube-apiserver-admission",
        }
        async with (
            asyncio.timeout(webhook.timeout_seconds),
            self._session.post(
                _call_url(webhook),
                data=msgspec.json.encode(review),
                headers=headers,
                ssl=ssl.create_default_context(cadata=webhook.ca_pem),
            ) as answer,
        ):
            body = await answer.read()
            if answer.status != 200:
                raise ValueError(f"the server answered {answer.status}")
        response = msgspec.json.decode(body, type=dict[str, Any]).get("response")
        if not isinstance(response, dict) or not isinstance(response.get("allowed"), bool):
            raise ValueError("expected response.allowed, got none")
        if response.get("uid") != request["uid"]:
            raise ValueError(f'expected response.uid="{request["uid"]}", got "{response.get("uid")}"')
        return response


def _request(
    resource: Resource, obj: JsonObject, *, operation: Operation, old: JsonObject | None, dry_run: bool
) -> JsonObject:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    named = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    options = "CreateOptions" if operation == "CREATE" else "UpdateOptions"
    request: JsonObject = {
        "uid": str(uuid.uuid4()),
        "kind": kind,
        "resource": named,
        "requestKind": kind,
        "requestResource": named,
        "name": obj["metadata"].get("name", ""),
        "namespace": obj["metadata"]["namespace"],
        "operation": operation,
        "userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
        "object": obj,
        "oldObject": old,
        "dryRun": dry_run,
        "options": {"kind": options, "apiVersion": "meta.k8s.io/v1"},
    }
    if not request["name"]:
        del request["name"]  # with generateName the name is made after admission
    return request


def _patched(obj: JsonObject, response: JsonObject) -> JsonObject:
    if not response["allowed"] or not response.get("patch"):
        return obj
    if response.get("patchType") != "JSONPatch":
        raise ValueError(f"unsupported patch type {response.get('patchType')!r}, expected JSONPatch")
    try:
        return json_patch(obj, msgspec.json.decode(base64.b64decode(response["patch"], validate=True)))
    except (ApiStatusError, binascii.Error, TypeError) as exc:
        raise ValueError(f"the patch cannot be applied: {exc}") from exc


def _refusal(webhook: Webhook, status: JsonObject) -> ApiStatusError:
    # As kube-apiserver: a refusal has at least code 400, and keeps the webhook's own reason and code above that.
    explanation = status.get("message") or status.get("reason")
    text = f": {explanation}" if explanation else " without explanation"
    return ApiStatusError(
        max(int(status.get("code") or 0), 400),
        str(status.get("reason") or ""),
        f'admission webhook "{webhook.name}" denied the request{text}',
    )


def _call_url(webhook: Webhook) -> str:
    separator = "&" if "?" in webhook.url else "?"
    return f"{webhook.url}{separator}timeout={webhook.timeout_seconds}s"
