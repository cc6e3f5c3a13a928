"""The picture over real HTTP: whole, as it changes, and how much of it one reader may have."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from starlette.responses import PlainTextResponse

from extender.index import Index
from extender.ledger.claims import Entry
from extender.pages.app import create_pages, create_probes
from extender.pages.feed import MAX_READERS, Feed, Reader
from extender.pages.limits import RateLimit
from extender.picture import NodePicture, Picture, WaitingPicture
from fracgpu.names import NodeName, PodUid
from fracgpu.pods import Pod
from fracgpu.process.serving import HttpServer
from fracgpu.quantities import Mib
from playground.api.apiserver import ApiServer
from tests.extender.builders import claim, gpu_node, pod
from tests.extender.replica import Replica, announce, create_pod


class Changes(msgspec.Struct):
    nodes: list[NodePicture]
    gone: list[str]
    waiting: list[WaitingPicture] | None


class Following:
    """One who follows the changes."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def event(self) -> tuple[str, bytes]:
        """The next event: its kind and data."""
        kind = ""
        async with asyncio.timeout(30):
            while True:
                line = await self._answer.content.readline()
                if not line:
                    return "end", b""
                if line.startswith(b"event: "):
                    kind = line[7:].strip().decode()
                if line.startswith(b"data: "):
                    return kind, line[6:]

    async def picture(self) -> Picture:
        kind, data = await self.event()
        assert kind == "picture"
        return msgspec.json.decode(data, type=Picture)

    async def change(self) -> Changes:
        kind, data = await self.event()
        assert kind == "change"
        return msgspec.json.decode(data, type=Changes)


class Served:
    """The pages of an index that only the test changes."""

    def __init__(self) -> None:
        self.index = Index()
        self.pods: list[Pod] = []
        self.feed = Feed(self.index, pods=lambda: self.pods)
        self.url = ""
        self.http: aiohttp.ClientSession

    @classmethod
    @asynccontextmanager
    async def running(cls, *, limit: RateLimit | None = None) -> AsyncIterator["Served"]:
        served = cls()
        extender: Any = NotImplemented  # nothing asks it here
        pages = create_pages(extender, feed=served.feed, metrics=PlainTextResponse("metrics"), limit=limit)
        server = HttpServer(pages, host="127.0.0.1", port=0)
        async with AsyncExitStack() as stack:
            await server.start()
            stack.push_async_callback(server.stop)
            stack.callback(served.feed.close)
            served.url = server.url
            session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=2**24)
            served.http = await stack.enter_async_context(session)
            running = asyncio.create_task(served.feed.run())
            stack.callback(running.cancel)
            yield served

    async def get(self, path: str) -> tuple[int, bytes]:
        async with self.http.get(self.url + path) as answer:
            return answer.status, await answer.read()

    async def follow(self, stack: AsyncExitStack) -> Following:
        answer = await stack.enter_async_context(self.http.get(f"{self.url}/v1/cluster/changes"))
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        return Following(answer)


async def test_the_whole_picture_and_what_changes_of_it() -> None:
    async with Served.running() as served, AsyncExitStack() as stack:
        for name in ("node-1", "node-2"):
            served.index.put_node(gpu_node(name, f"GPU-{name}"))
        served.pods = [pod("large", units=81)]
        status, text = await served.get("/v1/cluster")
        picture = msgspec.json.decode(text, type=Picture)
        assert (status, [node.name for node in picture.nodes]) == (200, ["node-1", "node-2"])
        assert [one.name for one in picture.waiting] == ["large"]

        reader = await served.follow(stack)
        assert await reader.picture() == picture
        await reader.change()  # who waits is told once more, to begin with

        served.index.change_claim(PodUid("x"), Entry(claim("x", node="node-2", gpu="GPU-node-2"), 0))
        change = await reader.change()
        assert [(node.name, node.gpus[0].taken) for node in change.nodes] == [("node-2", 4096)]
        assert (change.gone, change.waiting) == ([], None)

        served.index.remove_node(NodeName("node-2"))
        change = await reader.change()
        assert (change.nodes, change.gone, change.waiting) == ([], ["node-2"], None)

        served.pods = []
        assert (await reader.change()).waiting == []


async def test_an_empty_cluster_is_a_picture_too() -> None:
    async with Served.running() as served:
        _, text = await served.get("/v1/cluster")
        assert msgspec.json.decode(text, type=Picture) == Picture(Mib(512), [], [])


async def test_a_reader_who_was_slow_gets_what_is_newest_once() -> None:
    reader = Reader()
    for taken in (b"1", b"2"):
        reader.nodes[NodeName("node-1")] = taken
    reader.nodes[NodeName("node-2")] = b"3"
    reader.nodes[NodeName("node-2")] = None
    assert reader.take() == b'{"nodes":[2],"gone":["node-2"],"waiting":null}'
    assert reader.take() == b'{"nodes":[],"gone":[],"waiting":null}'


async def test_readers_are_bounded_and_make_room_when_they_go() -> None:
    async with Served.running() as served:
        url = f"{served.url}/v1/cluster/changes"
        async with AsyncExitStack() as stack:
            at_once = [stack.enter_async_context(served.http.get(url)) for _ in range(3 * MAX_READERS)]
            statuses = [answer.status for answer in await asyncio.gather(*at_once)]
            assert (statuses.count(200), statuses.count(503)) == (MAX_READERS, 2 * MAX_READERS)
            status, text = await served.get("/v1/cluster")
            assert status == 503
            assert b"32 readers are there already" in text
        async with asyncio.timeout(10):
            while (await served.get("/v1/cluster"))[0] == 503:
                pass


async def test_who_asks_for_the_picture_alone_makes_room_again() -> None:
    async with Served.running(limit=RateLimit(per_second=1000, burst=1000)) as served:
        assert {(await served.get("/v1/cluster"))[0] for _ in range(2 * MAX_READERS)} == {200}


async def test_a_pod_that_stopped_waiting_while_a_reader_came_is_not_left_there() -> None:
    async with Served.running() as served, AsyncExitStack() as stack:
        served.pods = [pod("large", units=81)]
        first = await served.follow(stack)
        await first.picture()
        served.pods = []
        assert (await first.change()).waiting == []

        served.pods = [pod("large", units=81)]
        second = await served.follow(stack)
        assert [one.name for one in (await second.picture()).waiting] == ["large"]
        served.pods = []  # before anybody was told that it waits
        assert (await second.change()).waiting == []


async def test_a_picture_that_cannot_be_drawn_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with Served.running() as served, AsyncExitStack() as stack:
        reader = await served.follow(stack)
        await reader.picture()
        await reader.change()
        odd: Any = NotImplemented
        served.pods = [odd]
        async with asyncio.timeout(10):
            while "defect" not in caplog.text:
                await served.get("/healthz")
        served.pods = [pod("large", units=81)]
        assert [one.name for one in (await reader.change()).waiting or ()] == ["large"]


async def test_a_reader_who_reads_nothing_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extender.pages.app._UNREAD_SECONDS", 0.2)
    async with Served.running() as served:
        for number in range(2000):  # more than the system's own buffers take
            served.index.put_node(gpu_node(f"node-{number}", f"GPU-{number}-{'x' * 5000}"))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
        writer.write(b"GET /v1/cluster/changes HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            async with asyncio.timeout(30):
                await reader.readuntil(b"\r\n\r\n")  # and no more
                while served.feed.readers:
                    await served.get("/healthz")
        finally:
            writer.close()


async def test_readers_do_not_keep_the_server_from_ending() -> None:
    async with AsyncExitStack() as stack:
        async with Served.running() as served:
            reader = await served.follow(stack)
            await reader.picture()
            served.feed.close()
            kinds = [(await reader.event())[0] for _ in range(2)]
        assert kinds[-1] == "end"


async def test_one_address_may_not_ask_without_end() -> None:
    async with Served.running(limit=RateLimit(per_second=0, burst=2)) as served:
        assert [(await served.get("/metrics"))[0] for _ in range(3)] == [200, 200, 429]
        assert b"too many requests from 127.0.0.1" in (await served.get("/v1/cluster"))[1]
        assert (await served.get("/healthz"))[0] == 200, "probes are not counted"


def test_a_limit_fills_up_again_for_each_address() -> None:
    limit = RateLimit(per_second=2, burst=3)
    assert [limit.allows("a", now=0) for _ in range(4)] == [True, True, True, False]
    assert limit.allows("b", now=0)
    assert [limit.allows("a", now=0.5) for _ in range(2)] == [True, False]
    assert [limit.allows("a", now=100) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/v1/cluster", "/metrics", "/nothing"])
async def test_every_answer_keeps_the_page_to_itself(path: str) -> None:
    async with Served.running() as served, served.http.get(served.url + path) as answer:
        assert answer.status == (404 if path == "/nothing" else 200)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd"])
async def test_only_the_page_s_own_files_are_served(path: str) -> None:
    async with Served.running() as served:
        _, writer = reader_writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
        writer.write(f"GET /static/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert (await reader_writer[0].read()).startswith(b"HTTP/1.1 404")
        writer.close()


async def test_closed_pages_leave_probes_alone(replicas: tuple[Replica, Replica]) -> None:
    (replica, _) = replicas
    app = create_probes(replica.extender)
    server = HttpServer(app, host="127.0.0.1", port=0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            for path, status in {
                "/readyz": 200,
                "/healthz": 200,
                "/": 404,
                "/metrics": 404,
                "/v1/cluster": 404,
            }.items():
                async with http.get(server.url + path) as answer:
                    assert answer.status == status
    finally:
        await server.stop()


async def test_real_replicas_show_pods_as_they_come(api: ApiServer, replicas: tuple[Replica, Replica]) -> None:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(read_bufsize=2**24))
        readers = []
        for replica in replicas:
            url = f"{replica.pages_url}/v1/cluster/changes"
            readers.append(Following(await stack.enter_async_context(http.get(url))))
            assert (await readers[-1].picture()).nodes == []
        await announce(api, gpu_node("node-1", "GPU-a"))
        for reader in readers:
            while not (await reader.change()).nodes:
                pass
        await asyncio.gather(*(replica.knows("node-1") for replica in replicas))
        created = await create_pod(api, "p", units=8)
        assert await replicas[0].bind(created, "node-1") == ""
        for reader in readers:
            while not any(gpu.pods for node in (await reader.change()).nodes for gpu in node.gpus):
                pass


async def test_a_body_above_the_bound_is_refused_in_words(replicas: tuple[Replica, Replica]) -> None:
    answer = await replicas[0].post("filter", b" " * (64 * 2**20 + 1))
    assert answer["Error"] == "the body is larger than 67108864 bytes"
