"""Watches: bookmarks, the end of a watch, and readers that are cut off or fall behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from playground.api.resources import GPUNODES, NODES, Key
from playground.api.selectors import select
from playground.api.store import Store
from playground.api.watching import Notice, Watches
from playground.cluster import ApiStatusError


def write(store: Store, name: str, *, resource: str = "nodes") -> None:
    store.create(Key(resource, "", name), {"metadata": {}})


async def take(watch: AsyncGenerator[Notice, None], count: int) -> list[tuple[str, Any]]:
    async with asyncio.timeout(5):
        found = [await anext(watch) for _ in range(count)]
    return [(kind, obj["metadata"].get("name") or obj["metadata"]["resourceVersion"]) for kind, obj in found]


async def test_a_watch_sees_past_and_future_changes_of_its_own_kind() -> None:
    store = Store()
    watches = Watches(store)
    write(store, "n1")
    async with aclosing(watches.follow(select(NODES), since=0)) as watch:
        assert await take(watch, 1) == [("ADDED", "n1")]
        reading = asyncio.create_task(take(watch, 1))
        await asyncio.sleep(0)
        write(store, "g1", resource="gpunodes")
        write(store, "n2")
        assert await reading == [("ADDED", "n2")]


async def test_bookmarks_carry_the_version_up_to_which_nothing_was_missed() -> None:
    store = Store()
    write(store, "n1")
    watches = Watches(store, bookmark_seconds=0.01)
    async with aclosing(watches.follow(select(GPUNODES), since=0, bookmarks=True)) as watch:
        assert await take(watch, 1) == [("BOOKMARK", "1")]
        write(store, "n2")
        assert await take(watch, 1) == [("BOOKMARK", "2")]


async def test_a_watch_ends_after_its_time_with_a_last_bookmark() -> None:
    store = Store()
    write(store, "n1")
    async with asyncio.timeout(5):
        watch = Watches(store).follow(select(NODES), since=1, bookmarks=True, seconds=0.01)
        assert [kind async for kind, _ in watch] == ["BOOKMARK"]
        quiet = Watches(store).follow(select(NODES), since=1, seconds=0.01)
        assert [kind async for kind, _ in quiet] == []


async def test_a_cut_ends_every_watch() -> None:
    store = Store()
    watches = Watches(store)

    async def read() -> list[str]:
        return [kind async for kind, _ in watches.follow(select(NODES), since=0)]

    readers = [asyncio.create_task(read()) for _ in range(2)]
    await asyncio.sleep(0)
    watches.cut()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*readers) == [[], []]


async def test_a_reader_that_falls_behind_gets_410() -> None:
    store = Store(log_limit=2)
    watches = Watches(store)
    write(store, "n1")
    async with aclosing(watches.follow(select(NODES), since=0)) as watch:
        assert await take(watch, 1) == [("ADDED", "n1")]
        for name in ("n2", "n3", "n4"):
            write(store, name)
        with pytest.raises(ApiStatusError) as caught:
            await take(watch, 1)
    assert caught.value.code == 410
