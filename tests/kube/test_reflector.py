"""The reflector against a server whose every misbehaviour is scripted."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from fracgpu.kube.client import KubeClient
from fracgpu.pods import Pod
from fracgpu.trouble import Backoff
from tests.kube.following import PATIENCE_SECONDS, Follower, running
from tests.kube.server import Server, Watch, make_pod, status


async def connected(server: Server) -> Watch:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await server.watches.get()


@pytest.fixture
async def follower(client: KubeClient, server: Server) -> AsyncIterator[Follower]:
    """Follows two pods, at version 10, with a watch that waits in `server.watches`."""
    server.pods = [make_pod("a", version=3), make_pod("b", version=5)]
    server.version = 10
    async with running(Follower(client)) as running_follower:
        await running_follower.reaches(10)
        running_follower.take_told()
        yield running_follower


async def test_first_list_then_watch_from_there(client: KubeClient, server: Server) -> None:
    server.pods = [make_pod(f"u{i}", version=i) for i in range(1200)]
    server.version = 2000
    follower = Follower(client, field_selector="status.phase!=Failed")
    assert not follower.reflector.synced.is_set()
    async with running(follower):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await follower.reflector.synced.wait()
        assert follower.told == [("ADDED", f"u{i}", str(i)) for i in range(1200)]
        assert server.count("list") == 3
        watch = await connected(server)
    assert watch.query["resourceVersion"] == "2000"
    assert watch.query["fieldSelector"] == "status.phase!=Failed"
    assert watch.query["allowWatchBookmarks"] == "true"
    assert 240 <= int(watch.query["timeoutSeconds"]) <= 300


async def test_events_become_changes(follower: Follower, server: Server) -> None:
    watch = await connected(server)
    watch.send("ADDED", make_pod("c", version=11))
    watch.send("MODIFIED", make_pod("a", version=12))
    watch.send("DELETED", make_pod("b", version=13))
    await follower.reaches(13)
    assert follower.told == [("ADDED", "c", "11"), ("MODIFIED", "a", "12"), ("DELETED", "b", "13")]
    assert set(follower.reflector.objects) == {"a", "c"}
    assert follower.reflector.resource_version == "13"


async def test_an_ended_watch_goes_on_from_the_last_bookmark_without_a_list(follower: Follower, server: Server) -> None:
    watch = await connected(server)
    watch.bookmark(70)
    await follower.reaches(70)
    watch.end()
    assert (await connected(server)).query["resourceVersion"] == "70"
    assert server.count("list") == 1
    assert follower.told == []


async def test_a_cut_watch_goes_on_from_the_last_event_without_a_list(follower: Follower, server: Server) -> None:
    watch = await connected(server)
    watch.send("ADDED", make_pod("c", version=11))
    watch.send_bytes(b'{"type":"ADDED","object":{"metadata":{"uid":"d"')
    watch.cut()
    watch = await connected(server)
    assert watch.query["resourceVersion"] == "11"
    watch.send("ADDED", make_pod("d", version=12))
    await follower.reaches(12)
    assert follower.told == [("ADDED", "c", "11"), ("ADDED", "d", "12")]
    assert server.count("list") == 1


@pytest.mark.parametrize("how", ["in the stream", "as status"])
async def test_after_410_a_new_list_tells_what_was_missed(follower: Follower, server: Server, how: str) -> None:
    watch = await connected(server)
    server.pods = [make_pod("b", version=80), make_pod("c", version=81)]
    server.version = 90
    if how == "in the stream":
        watch.send("ERROR", status(410, "Expired"))
    else:
        server.refuse("watch", 410, "Expired")
        watch.cut()
    await follower.reaches(90)
    assert follower.told == [("DELETED", "a", "3"), ("MODIFIED", "b", "80"), ("ADDED", "c", "81")]
    assert set(follower.reflector.objects) == {"b", "c"}
    assert (await connected(server)).query["resourceVersion"] == "90"


async def test_a_pod_recreated_under_its_name_while_disconnected_is_another_pod(
    follower: Follower, server: Server
) -> None:
    watch = await connected(server)
    server.pods = [make_pod("a2", version=80, name="a"), make_pod("b", version=5)]
    server.version = 90
    watch.send("ERROR", status(410, "Expired"))
    await follower.reaches(90)
    assert follower.told == [("DELETED", "a", "3"), ("ADDED", "a2", "80")]


async def test_a_list_that_expires_between_its_pages_begins_again(client: KubeClient, server: Server) -> None:
    server.pods = [make_pod("a", version=1)]
    server.refuse("list", 410, "Expired")
    async with running(Follower(client)) as follower:
        await follower.reaches(1)
    assert follower.told == [("ADDED", "a", "1")]


async def test_what_is_not_kept_is_told_as_deleted(client: KubeClient, server: Server) -> None:
    server.pods = [make_pod("a", version=1), make_pod("x", version=2, status={"phase": "Failed"})]
    server.version = 10
    async with running(Follower(client, keep=lambda pod: None if pod.is_terminal else pod)) as follower:
        watch = await connected(server)
        watch.send("MODIFIED", make_pod("a", version=11, status={"phase": "Succeeded"}))
        watch.send("MODIFIED", make_pod("x", version=12, status={"phase": "Failed"}))
        watch.send("DELETED", make_pod("x", version=13, status={"phase": "Failed"}))
        await follower.reaches(13)
    assert follower.told == [("ADDED", "a", "1"), ("DELETED", "a", "11")]
    assert follower.reflector.objects == {}


async def test_an_unreadable_object_is_skipped_with_one_warning(
    follower: Follower, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    watch = await connected(server)
    watch.send("MODIFIED", make_pod("a", version=11, spec=5))
    watch.send("MODIFIED", make_pod("a", version=12, spec=6))
    watch.send("ADDED", make_pod("c", version=13))
    await follower.reaches(13)
    assert follower.told == [("ADDED", "c", "13")]
    assert follower.reflector.objects["a"].metadata.resource_version == "3"
    assert [record.__dict__["uid"] for record in caplog.records if "cannot be read" in record.message] == ["a"]


async def test_an_unreadable_object_stays_over_a_list_until_it_is_deleted(follower: Follower, server: Server) -> None:
    watch = await connected(server)
    server.pods = [make_pod("a", version=80, spec=5), make_pod("b", version=5)]
    server.version = 90
    watch.send("ERROR", status(410, "Expired"))
    await follower.reaches(90)
    assert follower.take_told() == []
    (await connected(server)).send("DELETED", make_pod("a", version=91, spec=5))
    await follower.reaches(91)
    assert follower.told == [("DELETED", "a", "3")]


async def test_garbage_in_the_stream_leads_to_a_new_list(follower: Follower, server: Server) -> None:
    watch = await connected(server)
    server.version = 20
    watch.send_bytes(b"<html>\n")
    await follower.reaches(20)
    assert server.count("list") == 2


async def test_trouble_is_met_with_growing_delays_and_few_words(
    client: KubeClient, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.refuse("list", 503, times=5)
    clock = asyncio.get_running_loop().time
    began = clock()
    backoff = Backoff(initial_seconds=0.01, max_seconds=0.08)
    async with running(Follower(client, backoff=backoff)) as follower:
        await follower.reaches(1)
        assert clock() - began >= (0.01 + 0.02 + 0.04 + 0.08 + 0.08) / 2
        assert server.count("list") == 6
        (await connected(server)).bookmark(2)
        await follower.reaches(2)
    assert [record.message for record in caplog.records if record.name.startswith("fracgpu")] == [
        "trouble",
        "listed",
        "recovered",
    ]


async def test_watches_that_end_at_once_are_not_asked_for_in_a_loop(client: KubeClient, server: Server) -> None:
    clock = asyncio.get_running_loop().time
    backoff = Backoff(initial_seconds=0.01, max_seconds=0.08)
    async with running(Follower(client, backoff=backoff)):
        (await connected(server)).end()
        began = clock()
        for _ in range(4):
            (await connected(server)).end()
    assert clock() - began >= (0.02 + 0.04 + 0.08) / 2


async def test_a_watch_that_says_410_for_ever_does_not_list_in_a_loop(client: KubeClient, server: Server) -> None:
    clock = asyncio.get_running_loop().time
    server.refuse("watch", 410, "Expired", times=5)
    began = clock()
    async with running(Follower(client, backoff=Backoff(initial_seconds=0.01, max_seconds=0.08))):
        await connected(server)
    assert clock() - began >= (0.01 + 0.02 + 0.04 + 0.08 + 0.08) / 2
    assert server.count("list") == 6


async def test_a_server_that_went_away_is_found_again(client: KubeClient, server: Server) -> None:
    server.pods = [make_pod("a", version=1)]
    for what in ("list", "watch"):
        server.refuse(what, 500)
    async with running(Follower(client)) as follower:
        await follower.reaches(1)
        await connected(server)
    assert follower.told == [("ADDED", "a", "1")]


async def test_an_error_of_the_reader_ends_the_run(client: KubeClient, server: Server) -> None:
    def refuse(pod: Pod) -> Pod:
        raise LookupError(pod.uid)

    server.pods = [make_pod("a", version=1)]
    with pytest.raises(LookupError, match="a"):
        await Follower(client, keep=refuse).reflector.run()
