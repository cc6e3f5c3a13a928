"""Requests and answers of the client, as bytes on a real connection."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fracgpu.errors import SettingError
from fracgpu.gpunodes import GpuNode
from fracgpu.kube.client import EventKind, KubeClient, WatchEvent
from fracgpu.kube.errors import KubeError
from fracgpu.kube.resources import GPUNODES, PODS
from fracgpu.names import NodeName, PodUid
from fracgpu.pods import ObjectMeta, Pod
from tests.kube.server import Server, Watch, make_pod, status


async def bind(client: KubeClient, *, timeout_seconds: float = 5) -> None:
    await client.bind(
        namespace="default",
        name="train",
        uid=PodUid("u1"),
        node=NodeName("node-1"),
        annotations={"fracgpu.io/allocation": "{}"},
        timeout_seconds=timeout_seconds,
    )


async def test_get_reads_one_object(client: KubeClient, server: Server) -> None:
    server.answers.append(make_pod("u1", version=7, name="train"))
    pod = await client.get(PODS, "train", namespace="default")
    assert (pod.key, pod.uid, pod.metadata.resource_version) == ("default/train", "u1", "7")
    assert server.seen[0].path == "/api/v1/namespaces/default/pods/train"
    assert server.seen[0].headers["authorization"] == "Bearer secret"


async def test_get_of_what_is_not_there(client: KubeClient, server: Server) -> None:
    server.refuse("GET", 404, "NotFound")
    with pytest.raises(KubeError, match="GET /api/v1/namespaces/default/pods/train with 404 NotFound") as caught:
        await client.get(PODS, "train", namespace="default")
    assert (caught.value.status, caught.value.kube_reason, caught.value.outcome_unknown) == (404, "NotFound", False)


async def test_a_failed_read_never_has_an_unknown_outcome(client: KubeClient, server: Server) -> None:
    server.refuse("GET", 503)
    with pytest.raises(KubeError) as caught:
        await client.get(PODS, "train", namespace="default")
    assert not caught.value.outcome_unknown


async def test_a_namespace_is_given_exactly_where_the_kind_has_one(client: KubeClient) -> None:
    with pytest.raises(ValueError, match="pods are namespaced"):
        await client.get(PODS, "train")
    with pytest.raises(ValueError, match="gpunodes are not namespaced"):
        await client.get(GPUNODES, "node-1", namespace="default")


async def test_list_reads_page_by_page(client: KubeClient, server: Server) -> None:
    server.pods = [make_pod(f"u{i}", version=i) for i in range(7)]
    server.version = 42
    listing = await client.list(PODS, field_selector="status.phase!=Succeeded", page_size=3)
    assert [pod.uid for pod in listing.items] == [f"u{i}" for i in range(7)]
    assert listing.resource_version == "42"
    assert [seen.query.get("continue") for seen in server.seen] == [None, "3", "6"]
    assert {seen.query["fieldSelector"] for seen in server.seen} == {"status.phase!=Succeeded"}


async def test_list_names_what_it_cannot_read(client: KubeClient, server: Server) -> None:
    server.pods = [make_pod("u1", version=1), make_pod("u2", version=2, spec="not a spec")]
    listing = await client.list(PODS)
    assert [pod.uid for pod in listing.items] == ["u1"]
    assert list(listing.unreadable) == ["u2"]
    assert "$.spec" in listing.unreadable["u2"]


async def test_an_answer_that_is_not_a_list(client: KubeClient, server: Server) -> None:
    server.refuse("list", 200, body=b"<html>login</html>")
    with pytest.raises(KubeError, match="something other than a list of pods"):
        await client.list(PODS)


async def test_watch_yields_events_and_bookmarks(client: KubeClient, server: Server) -> None:
    events = client.watch(PODS, resource_version="5", field_selector="spec.nodeName=n", timeout_seconds=240)
    first = asyncio.create_task(anext(events))
    watch = await server.watches.get()
    watch.send("ADDED", make_pod("u1", version=6))
    watch.bookmark(9)
    watch.send("DELETED", make_pod("u1", version=10))
    watch.end()
    got = [await first, *[event async for event in events]]
    assert [(event.kind, event.uid, event.resource_version) for event in got] == [
        (EventKind.ADDED, "u1", "6"),
        (EventKind.BOOKMARK, "", "9"),
        (EventKind.DELETED, "u1", "10"),
    ]
    assert watch.query == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "5",
        "fieldSelector": "spec.nodeName=n",
        "timeoutSeconds": "240",
    }


async def open_watch(client: KubeClient, server: Server) -> tuple[Watch, asyncio.Task[list[WatchEvent[Pod]]]]:
    async def read() -> list[WatchEvent[Pod]]:
        return [event async for event in client.watch(PODS, resource_version="1", timeout_seconds=240)]

    task = asyncio.create_task(read())
    return await server.watches.get(), task


async def test_a_watch_survives_lines_of_many_mebibytes(client: KubeClient, server: Server) -> None:
    watch, events = await open_watch(client, server)
    pod = make_pod("u1", version=6)
    pod["metadata"]["annotations"] = {"big": "x" * (9 * 2**20)}
    watch.send("ADDED", pod)
    watch.send("ADDED", make_pod("u2", version=7))
    watch.end()
    first, second = await events
    assert first.object is not None
    assert len(first.object.annotations["big"]) == 9 * 2**20
    assert second.uid == "u2"


async def test_an_error_event_has_the_code_that_it_carries(client: KubeClient, server: Server) -> None:
    watch, events = await open_watch(client, server)
    watch.send("ERROR", status(410, "Expired", "too old resource version: 1 (5)"))
    with pytest.raises(KubeError, match="too old resource version") as caught:
        await events
    assert (caught.value.status, caught.value.kube_reason) == (410, "Expired")


async def test_a_watch_that_is_refused(client: KubeClient, server: Server) -> None:
    server.refuse("watch", 410, "Expired")
    with pytest.raises(KubeError) as caught:
        await anext(client.watch(PODS, resource_version="1", timeout_seconds=240))
    assert caught.value.status == 410


async def test_a_connection_cut_in_mid_line(client: KubeClient, server: Server) -> None:
    watch, events = await open_watch(client, server)
    watch.send_bytes(b'{"type":"ADDED","object":{"metada')
    watch.cut()
    with pytest.raises(KubeError, match="broke") as caught:
        await events
    assert caught.value.status == 0


async def test_a_line_that_is_no_event(client: KubeClient, server: Server) -> None:
    watch, events = await open_watch(client, server)
    watch.send_bytes(b"\n\nhello\n")
    with pytest.raises(KubeError, match="something other than an event of pods") as caught:
        await events
    assert caught.value.status == 200


async def test_a_silent_watch_ends(client: KubeClient, server: Server) -> None:
    events = client.watch(PODS, resource_version="1", timeout_seconds=240, silence_seconds=0.05)
    assert [event async for event in events] == []
    assert server.watches.qsize() == 1


async def test_bind_is_one_binding_with_plan_and_precondition(client: KubeClient, server: Server) -> None:
    server.answers.append({"kind": "Status", "status": "Success"})
    await bind(client)
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", "/api/v1/namespaces/default/pods/train/binding")
    assert json.loads(seen.body) == {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "name": "train",
            "namespace": "default",
            "uid": "u1",
            "annotations": {"fracgpu.io/allocation": "{}"},
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node-1"},
    }


@pytest.mark.parametrize(
    ("code", "want_unknown"), [(409, False), (404, False), (429, False), (500, True), (503, True), (504, True)]
)
async def test_which_refusals_of_a_bind_leave_it_open(
    client: KubeClient, server: Server, code: int, want_unknown: bool
) -> None:
    server.refuse("POST", code, "Conflict")
    with pytest.raises(KubeError) as caught:
        await bind(client)
    assert (caught.value.status, caught.value.outcome_unknown) == (code, want_unknown)


async def test_a_bind_without_an_answer_is_left_open(client: KubeClient, server: Server) -> None:
    server.hang = asyncio.Event()
    with pytest.raises(KubeError, match="did not answer in time") as caught:
        await bind(client, timeout_seconds=0.1)
    assert (caught.value.status, caught.value.outcome_unknown) == (0, True)
    server.hang.set()


async def test_a_bind_whose_connection_breaks_is_left_open(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        client = await KubeClient.connect(kubeconfig=Server().kubeconfig(tmp_path, url=url))
        with pytest.raises(KubeError, match="broke") as caught:
            await bind(client)
        await client.close()
    assert (caught.value.status, caught.value.outcome_unknown) == (0, True)


async def test_a_bind_that_never_left_did_not_happen(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connecting is refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        client = await KubeClient.connect(kubeconfig=Server().kubeconfig(tmp_path, url=url))
        with pytest.raises(KubeError, match="cannot be reached") as caught:
            await bind(client)
        await client.close()
    assert (caught.value.status, caught.value.outcome_unknown) == (0, False)


GPUNODE = {
    "apiVersion": "fracgpu.io/v1alpha1",
    "kind": "GPUNode",
    "metadata": {"name": "node-1"},
    "status": {"observedPods": "7"},
}


async def test_apply_sends_a_dict_as_it_is(client: KubeClient, server: Server) -> None:
    server.answers.append(GPUNODE)
    node = await client.apply(GPUNODES, "node-1", GPUNODE, field_manager="fracgpu-plugin", subresource="status")
    assert node.status.observed_pods == "7"
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("PATCH", "/apis/fracgpu.io/v1alpha1/gpunodes/node-1/status")
    assert seen.query == {"fieldManager": "fracgpu-plugin", "force": "true"}
    assert seen.headers["content-type"] == "application/apply-patch+yaml"
    assert json.loads(seen.body) == GPUNODE


async def test_apply_encodes_a_struct(client: KubeClient, server: Server) -> None:
    server.answers.append(GPUNODE)
    await client.apply(GPUNODES, "node-1", GpuNode(metadata=ObjectMeta(name="node-1")), field_manager="f")
    assert json.loads(server.seen[0].body)["apiVersion"] == "fracgpu.io/v1alpha1"


async def test_an_unreadable_answer_to_a_write_leaves_it_open(client: KubeClient, server: Server) -> None:
    server.answers.append({"spec": {}})
    with pytest.raises(KubeError, match="something other than one of gpunodes") as caught:
        await client.apply(GPUNODES, "node-1", GPUNODE, field_manager="f")
    assert caught.value.outcome_unknown


class TestCredentials:
    async def test_outside_a_cluster_without_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with pytest.raises(SettingError, match="--kubeconfig"):
            await KubeClient.connect(kubeconfig=None)

    async def test_a_file_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match=r"nothing\.yaml does not exist"):
            await KubeClient.connect(kubeconfig=tmp_path / "nothing.yaml")

    @pytest.mark.parametrize("text", ["", "just text", "a: [", "{}", "current-context: x\ncontexts: 5"])
    async def test_a_file_that_is_no_kubeconfig(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "broken"
        path.write_text(text)
        with pytest.raises(SettingError, match="broken cannot be used"):
            await KubeClient.connect(kubeconfig=path)

    @pytest.fixture
    async def file_client(self, server: Server, tmp_path: Path) -> AsyncIterator[KubeClient]:
        path = server.kubeconfig(tmp_path)
        config = json.loads(path.read_text())
        config["users"][0]["user"] = {"tokenFile": str(tmp_path / "token")}
        path.write_text(json.dumps(config))
        (tmp_path / "token").write_text("one\n")
        client = await KubeClient.connect(kubeconfig=path)
        yield client
        await client.close()

    async def test_a_renewed_token_file_is_read_again(
        self, file_client: KubeClient, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.answers.extend([make_pod("u1", version=1)] * 2)
        await file_client.get(PODS, "p", namespace="default")
        (tmp_path / "token").write_text("two\n")
        monkeypatch.setattr("fracgpu.kube.credentials._CREDENTIALS_SECONDS", 0.0)
        await file_client.get(PODS, "p", namespace="default")
        assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer one", "Bearer two"]
