"""`fracgpu playground` as a user runs it; that it works with real services is tests/deploy/test_compose.py."""

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PLAYGROUND = (str(Path(sys.executable).parent / "fracgpu"), "playground")
URLS = {
    "url": "http://playground:8001",
    "webhook-url": "https://webhook:8443",
    "extender-url": "http://extender:8080",
    "pages-url": "http://extender:8081",
}


def run(shared: Path, **flags: str) -> subprocess.CompletedProcess[str]:
    given = {"directory": str(shared), "port": "1", **URLS} | {key.replace("_", "-"): flags[key] for key in flags}
    command = [*PLAYGROUND, *(f"--{name}={value}" for name, value in given.items())]
    # pytest's own folder has too long a path for the sockets in it.
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        environment = {"PATH": os.defpath, "TMPDIR": temporary}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)


def test_the_services_find_what_they_need_even_before_it_serves(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path, port=str(port))
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
    servers = {
        name: json.loads((tmp_path / name).read_text())["clusters"][0]["cluster"]["server"]
        for name in ("kubeconfig", "kubectl.kubeconfig")
    }
    assert servers == {"kubeconfig": "http://playground:8001", "kubectl.kubeconfig": f"http://127.0.0.1:{port}"}
    assert stat.S_IMODE((tmp_path / "webhook.key").stat().st_mode) == 0o600
    assert (tmp_path / "webhook.crt").read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert {path.name for path in tmp_path.iterdir()} == {*servers, "webhook.key", "webhook.crt"}


@pytest.mark.parametrize(
    ("flags", "want"),
    [
        ({"webhook_url": "http://webhook:8443"}, "--webhook-url is http://webhook:8443; it must be https://HOST:PORT"),
        ({"directory": "MISSING"}, "--directory MISSING cannot be written to"),
        ({"manifests": "MISSING"}, "--manifests MISSING cannot be read"),
    ],
)
def test_wrong_arguments_are_said_in_a_sentence(tmp_path: Path, flags: dict[str, str], want: str) -> None:
    missing = str(tmp_path / "missing")
    done = run(tmp_path, **{name: value.replace("MISSING", missing) for name, value in flags.items()})
    assert done.returncode == 2
    assert want.replace("MISSING", missing) in done.stderr
    assert "Traceback" not in done.stderr
