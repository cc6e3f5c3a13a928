"""Runs a reflector and lets a test wait for what it tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fracgpu.kube.client import KubeClient
from fracgpu.kube.reflector import Change, Reflector
from fracgpu.kube.resources import PODS
from fracgpu.pods import Pod
from fracgpu.trouble import Backoff

PATIENCE_SECONDS = 10.0


class Follower:
    """A reflector of pods, what it told, and how far it came."""

    def __init__(
        self,
        client: KubeClient,
        *,
        keep: Callable[[Pod], Pod | None] = lambda pod: pod,
        backoff: Backoff | None = None,
        field_selector: str = "",
    ) -> None:
        self.told: list[tuple[str, str, str]] = []  # kind, UID, resourceVersion
        self._progress: asyncio.Queue[str] = asyncio.Queue()
        self.reflector = Reflector(
            client,
            PODS,
            on_change=self._on_change,
            on_progress=self._progress.put_nowait,
            keep=keep,
            field_selector=field_selector,
            backoff=backoff or Backoff(initial_seconds=0.001, max_seconds=0.01),
        )

    def _on_change(self, change: Change[Pod]) -> None:
        meta = change.object.metadata
        self.told.append((change.kind.value, meta.uid, meta.resource_version))

    def take_told(self) -> list[tuple[str, str, str]]:
        """What was told since the last call."""
        told, self.told = self.told, []
        return told

    async def reaches(self, version: int | str) -> None:
        """Wait until the reflector has come so far."""
        while await self.advances() != str(version):
            pass

    async def advances(self) -> str:
        """Wait until the reflector has come further; return how far."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._progress.get()


@asynccontextmanager
async def running(follower: Follower) -> AsyncIterator[Follower]:
    task = asyncio.create_task(follower.reflector.run())
    try:
        yield follower
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
