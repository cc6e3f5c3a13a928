"""Which cluster is asked, as whom, and in which namespace; on real files, and over real TLS."""

import asyncio
import base64
import json
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from cli.kubectl.access import find_entrance
from cli.kubectl.flags import Where
from cli.kubectl.kubeconfig import read_kubeconfigs
from cli.kubectl.session import connected
from fracgpu.errors import SettingError


def config(
    *, server: str = "https://one:6443", name: str = "one", user: dict[str, Any] | None = None, **context: str
) -> dict[str, Any]:
    return {
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
    }


def written(file: Path, content: object) -> Path:
    file.write_text(json.dumps(content))
    return file


def test_of_several_files_the_first_that_says_something_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(tmp_path / "a", config(name="one", namespace="team-a"))
    second = written(tmp_path / "b", config(name="two") | {"users": config(name="one")["users"]})
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}:{first}:{second}")

    found = read_kubeconfigs(None)

    assert found is not None
    assert (found.current_context, sorted(found.contexts), sorted(found.users)) == ("one", ["one", "two"], ["one"])
    assert (found.login().namespace, found.login().cluster["server"]) == ("team-a", "https://one:6443")
    with pytest.raises(SettingError, match=r"the context 'two' is for the user 'two', whom the kubeconfig does not"):
        found.login("two")
    with pytest.raises(SettingError, match=r"no context 'three'; its contexts are one, two"):
        found.login("three")


def test_the_named_file_alone_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(written(tmp_path / "a", config(name="one"))))

    found = read_kubeconfigs(written(tmp_path / "b", config(name="two")))

    assert found is not None
    assert list(found.contexts) == ["two"]
    assert found.login().namespace == "default"
    with pytest.raises(SettingError, match=r"--kubeconfig .*absent does not exist"):
        read_kubeconfigs(tmp_path / "absent")


def test_the_usual_file_is_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_kubeconfigs(None) is None
    (tmp_path / ".kube").mkdir()
    written(tmp_path / ".kube" / "config", config())

    found = read_kubeconfigs(None)

    assert found is not None
    assert found.login().context == "one"


@pytest.mark.parametrize("text", ["[1, 2]", "{{", "clusters: [{cluster: {}}]", "users: secret-words", "- a\n- b"])
def test_what_is_no_kubeconfig_is_told_without_a_word_of_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)

    with pytest.raises(SettingError, match="is no kubeconfig") as told:
        read_kubeconfigs(file)

    assert "secret" not in str(told.value)


async def test_without_any_cluster_the_sentence_says_where_was_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SettingError, match="no kubeconfig file was found"):
        await find_entrance(kubeconfig=None, context="")
    with pytest.raises(SettingError, match="so no context 'x'"):
        await find_entrance(kubeconfig=None, context="x")


@pytest.mark.parametrize(
    ("user", "want"),
    [
        ({"token": "t"}, "Bearer t"),
        ({"tokenFile": "token"}, "Bearer from-file"),  # beside the kubeconfig, wherever we are
        ({"token": "t", "tokenFile": "token"}, "Bearer from-file"),
        ({"username": "u", "password": "p:q"}, f"Basic {base64.b64encode(b'u:p:q').decode()}"),
        ({}, None),
    ],
)
async def test_logins(tmp_path: Path, user: dict[str, str], want: str | None) -> None:
    (tmp_path / "token").write_text("from-file\n")

    found = await find_entrance(kubeconfig=written(tmp_path / "c", config(user=user)), context="")

    assert await found.access.authorization() == want


async def test_a_login_by_a_program_is_left_to_the_one_who_knows_it(tmp_path: Path) -> None:
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "made"}}
    command = [sys.executable, "-c", f"print({json.dumps(answer)!r})"]
    user = {"exec": {"apiVersion": answer["apiVersion"], "command": command[0], "args": command[1:]}}

    found = await find_entrance(kubeconfig=written(tmp_path / "c", config(user=user, namespace="n")), context="")

    assert await found.access.authorization() == "Bearer made"
    assert (found.access.url, found.namespace) == ("https://one:6443", "n")


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (config(user={"as": "somebody"}), "acts as another one"),
        (config(server=""), "has no server that begins with https://"),
        (config(user={"client-certificate-data": "AA=="}), "the certificates of the context 'one' cannot be used"),
        (config(user={"client-certificate": "no-such.crt", "client-key": "no-such.key"}), "cannot be used"),
    ],
)
async def test_what_cannot_be_used_is_told(tmp_path: Path, content: dict[str, Any], want: str) -> None:
    with pytest.raises(SettingError, match=want):
        await find_entrance(kubeconfig=written(tmp_path / "c", content), context="")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def server(authority: trustme.CA) -> AsyncIterator[str]:
    """Answers an empty list of namespaces to whoever has a certificate of the authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"kind":"NamespaceList","items":[{"metadata":{"name":"here"}}]}'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    listening.close()


@pytest.mark.parametrize("inline", [True, False])
async def test_certificates_in_files_and_in_the_kubeconfig(
    tmp_path: Path, server: str, authority: trustme.CA, inline: bool
) -> None:
    issued = authority.issue_cert("me.example.com")
    pems = {
        "certificate-authority": authority.cert_pem.bytes(),
        "client-certificate": issued.cert_chain_pems[0].bytes(),
        "client-key": issued.private_key_pem.bytes(),
    }
    said: dict[str, str] = {}
    for name, pem in pems.items():
        (tmp_path / name).write_bytes(pem)
        said |= {f"{name}-data": base64.b64encode(pem).decode()} if inline else {name: name}
    content = config(user={key: value for key, value in said.items() if key.startswith("client")})
    trust = {key: value for key, value in said.items() if key.startswith("certificate")}
    content["clusters"] = [{"name": "one", "cluster": {"server": server, **trust}}]
    file = written(tmp_path / "c", content)

    from cli.kubectl.objects import NAMESPACES

    async with connected(Where(kubeconfig=file)) as session:
        found = await session.client.list(NAMESPACES)

    assert [namespace.metadata.name for namespace in found.items] == ["here"]
