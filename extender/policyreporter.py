"""Writes into each SharingPolicy what has become of it; what that is, `sharingpolicies` says.

Every replica does so: they see the same nodes and come to the same words, and one that finds them written writes
nothing. Scheduling does not wait for any of it. A cluster without this custom resource is none the worse.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from extender.sharingpolicies import own_part, statuses
from fracgpu.gpunodes import GpuNode
from fracgpu.kube.client import KubeClient
from fracgpu.kube.errors import KubeError
from fracgpu.kube.reflector import Reflector
from fracgpu.kube.resources import SHARINGPOLICIES
from fracgpu.names import NodeName
from fracgpu.sharing import SharingPolicy, SharingPolicyStatus
from fracgpu.timestamps import timestamp
from fracgpu.trouble import TroubleLog

FIELD_MANAGER: Final = "fracgpu-extender"
_INTERVAL_SECONDS: Final = 5.0  # a policy of many nodes changes them one by one: it is written at most that often
_ABSENT_SECONDS: Final = 60.0  # the custom resource is looked for that often where it is not installed
_GONE: Final = frozenset({404, 409})  # the policy was deleted, and perhaps made anew: its watch says so
_logger = logging.getLogger(__name__)


class PolicyReporter:
    """Follows the policies, and writes their statuses while `run` runs.

    Args:
        kube: how to reach the API server.
        nodes: node name -> its GPUNode, as it is now.
        nodes_known: set when `nodes` is complete: before that, nothing can be said.
        interval_seconds: between two looks.
        absent_seconds: between two looks for the custom resource where it is not installed.
    """

    def __init__(
        self,
        *,
        kube: KubeClient,
        nodes: Mapping[NodeName, GpuNode],
        nodes_known: asyncio.Event,
        interval_seconds: float = _INTERVAL_SECONDS,
        absent_seconds: float = _ABSENT_SECONDS,
    ) -> None:
        self._kube = kube
        self._nodes = nodes
        self._nodes_known = nodes_known
        self._interval_seconds = interval_seconds
        self._absent_seconds = absent_seconds
        self._policies = Reflector(kube, SHARINGPOLICIES, on_change=lambda _: self.wake())
        self._changed = asyncio.Event()
        self._trouble = TroubleLog(_logger, subject="writing what became of sharingpolicies", clock=time.monotonic)

    def wake(self) -> None:
        """What some node says of the policies has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Write what changes until cancelled."""
        await self._find()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._policies.run(), name="follow-sharingpolicies")
            tasks.create_task(self._report(), name="report-sharingpolicies")

    async def _find(self) -> None:
        """Wait until the custom resource is installed."""
        while True:
            try:
                await self._kube.list(SHARINGPOLICIES)
            except KubeError as exc:
                if exc.status == 404:
                    await asyncio.sleep(self._absent_seconds)
                    continue
            return  # of any other trouble the reflector will speak

    async def _report(self) -> None:
        await self._policies.synced.wait()
        await self._nodes_known.wait()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self._policies.objects:
                continue
            try:
                await self._write_all()
            except KubeError as exc:
                self._trouble.failed(exc)
                self._changed.set()  # tried again at the next look
            else:
                self._trouble.succeeded()
            await asyncio.sleep(self._interval_seconds)

    async def _write_all(self) -> None:
        policies = {policy.metadata.name: policy for policy in self._policies.objects.values()}
        said = {name: node.status.sharing for name, node in self._nodes.items()}
        now = timestamp(datetime.now(UTC))
        for name, status in statuses(policies.values(), said, now=now).items():
            if status != own_part(policies[name].status):
                await self._write(policies[name], status)

    async def _write(self, policy: SharingPolicy, status: SharingPolicyStatus) -> None:
        body = {
            "apiVersion": policy.api_version,
            "kind": policy.kind,
            # With the UID, the status of a policy that was deleted does not go to one of the same name.
            "metadata": {"name": policy.metadata.name, "uid": policy.metadata.uid},
            "status": msgspec.to_builtins(status),
        }
        try:
            await self._kube.apply(
                SHARINGPOLICIES, policy.metadata.name, body, field_manager=FIELD_MANAGER, subresource="status"
            )
        except KubeError as exc:
            if exc.status not in _GONE:
                raise
