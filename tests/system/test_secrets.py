"""No secret is in a log, whatever goes wrong: the services as processes, at debug, with secrets in every place."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from tests.kube.server import Server, serving
from tests.redisservers import RedisServer, server_binaries

ROOT = Path(__file__).parents[2]
REDIS_PASSWORD = "redis-s3cret"
KUBE_TOKEN = "kube-t0ken-of-ours"
CALLER_TOKEN = "caller-t0ken-of-kube-scheduler"
COLLECTOR_PASSWORD = "otlp-s3cret"
SECRETS = (REDIS_PASSWORD, KUBE_TOKEN, CALLER_TOKEN, COLLECTOR_PASSWORD)


def kubeconfig(folder: Path, url: str, *, damage: str = "") -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": KUBE_TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document) + damage)
    return path


async def said(*arguments: str, until: tuple[str, ...] = (), redis_url: str = "") -> str:
    """What a service says on stderr until all of these were said; without any, until it ends by itself."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "FRACGPU_REDIS_URL": redis_url},
    )
    assert process.stderr is not None
    text = ""
    try:
        async with asyncio.timeout(60):
            while line := (await process.stderr.readline()).decode():
                text += line
                if until and all(part in text for part in until):
                    process.terminate()
                    until = ()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert not until, text
    return text


def assert_no_secret(text: str) -> None:
    assert text
    assert [secret for secret in SECRETS if secret in text] == [], text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def extender(folder: Path, *, redis_url: str, until: str, is_welcome: bool = True) -> str:
    """What an extender says; nobody receives its traces, and perhaps the API server does not let it in."""
    token = folder / "token"
    token.write_text(CALLER_TOKEN)
    async with serving(Server()) as api:
        if not is_welcome:
            api.refuse("list", 401, "Unauthorized", times=1000)
        return await said(
            *("extender", "--port=0", "--pages-port=0", "--log-level=debug", "--token-file", str(token)),
            *("--kubeconfig", str(kubeconfig(folder, api.url))),
            *("--otlp-endpoint", f"http://127.0.0.1:{free_port()}"),
            until=('"ready"', until),
            redis_url=redis_url,
        )


async def test_a_redis_that_is_not_there(tmp_path: Path) -> None:
    url = f"redis://somebody:{REDIS_PASSWORD}@127.0.0.1:{free_port()}"
    assert_no_secret(await extender(tmp_path, redis_url=url, until="cannot reconcile now"))


async def test_an_api_server_that_refuses_the_token(tmp_path: Path) -> None:
    url = f"redis://somebody:{REDIS_PASSWORD}@127.0.0.1:{free_port()}"
    assert_no_secret(await extender(tmp_path, redis_url=url, until='"trouble"', is_welcome=False))


async def test_a_redis_that_refuses_the_password(tmp_path: Path) -> None:
    async with RedisServer.running(server_binaries()[0], tmp_path, "--requirepass", "another") as redis:
        url = f"redis://:{REDIS_PASSWORD}@{redis.endpoint}"
        text = await extender(tmp_path, redis_url=url, until="cannot reconcile now")
        assert "refuses the user name or the password" in text
        assert_no_secret(text)


@pytest.mark.parametrize(
    "flags",
    [
        [f"--redis-url=redis://:{REDIS_PASSWORD}@host:port"],
        [f"--redis-url=redis:/:{REDIS_PASSWORD}@host"],
        ["--redis-ulr", f"redis://:{REDIS_PASSWORD}@host"],
        [f"--redis-ulr=redis://:{REDIS_PASSWORD}@host"],
        [f"--otlp-endpoint=otlp://x:{COLLECTOR_PASSWORD}@host"],
        [f"--otlp-endpoint=http://x:{COLLECTOR_PASSWORD}@host:4318"],
    ],
)
async def test_a_mistyped_flag(flags: list[str]) -> None:
    text = await said("extender", *flags)
    assert text.startswith("error: ")
    assert_no_secret(text)


@pytest.mark.parametrize("damage", ["}", "\n- a: [", "\n\ttab: x"])
@pytest.mark.parametrize("service", [["extender", "--redis-url=unix:///nowhere"], ["plugin", "--node-name=n"]])
async def test_a_kubeconfig_that_cannot_be_read(tmp_path: Path, service: list[str], damage: str) -> None:
    file = kubeconfig(tmp_path, "http://127.0.0.1:9", damage=damage)
    text = await said(*service, "--kubeconfig", str(file), "--port=0", "--log-level=debug")
    assert "error: " in text
    assert_no_secret(text)
