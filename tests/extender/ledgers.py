"""An extender replica's ledger for tests, with what it is told; reached by a URL of any kind."""

import contextlib
from collections.abc import AsyncIterator, Mapping

import pytest

from extender.ledger.claims import Claim, Entry
from extender.ledger.connecting import connect
from extender.ledger.ledger import Ledger, LedgerLostError
from fracgpu.errors import UnavailableError
from fracgpu.names import GpuUuid, PodUid
from tests.extender.builders import claim

LIMITS = {GpuUuid("GPU-a"): (80, 4)}


class Claims:
    """A reader that keeps what it is told."""

    def __init__(self) -> None:
        self.entries: dict[PodUid, Entry] = {}

    def replace_claims(self, entries: Mapping[PodUid, Entry]) -> None:
        self.entries = dict(entries)

    def change_claim(self, uid: PodUid, entry: Entry | None) -> None:
        self.entries.pop(uid, None)
        if entry is not None:
            self.entries[uid] = entry


class LedgerReplica:
    """An extender replica's ledger, reached by a URL."""

    def __init__(self, url: str) -> None:
        self.claims = Claims()
        self.ledger = Ledger(connect(url), reader=self.claims)

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, url: str) -> "AsyncIterator[LedgerReplica]":
        replica = cls(url)
        try:
            yield replica
        finally:
            await replica.ledger.close()

    async def rebuild(self, *claims: Claim) -> None:
        token = await self.ledger.begin_rebuild(lifetime_seconds=30)
        assert token is not None
        assert await self.ledger.commit_rebuild(token, list(claims))
        await self.ledger.catch_up()

    async def reserve(self, uid: str) -> None:
        await self.ledger.reserve(claim(uid, state="binding"), limits=LIMITS, lifetime_seconds=5)

    async def has_lost_its_ledger(self) -> bool:
        """Whether Redis answers, and says so."""
        try:
            await self.ledger.catch_up()
        except LedgerLostError:
            return True
        except UnavailableError:
            return False
        return False

    async def complaint(self) -> str:
        """What is said of a Redis that does not serve."""
        with pytest.raises(UnavailableError) as caught:
            await self.ledger.catch_up()
        return str(caught.value)

    async def works(self) -> None:
        """Build the ledger and use it."""
        await self.rebuild()
        await self.reserve("pod-1")
        await self.ledger.catch_up()
        assert set(self.claims.entries) == {"pod-1"}
