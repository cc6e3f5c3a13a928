"""Files that somebody else renews, served by a real server, as a process, and by an invented clock."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import trustme
from cryptography import x509

from fracgpu.errors import SettingError
from tests.kube.server import Server
from tests.webhook.certificates.pem import NOW, certificate_of, listening, made_by, visit
from webhook.certificates.files import CertificateFiles
from webhook.certificates.issuing import LIFETIME, issue
from webhook.certificates.keeping import Certificates
from webhook.certificates.pairs import CertificateError, Pair, write_bundle
from webhook.certificates.renewing import Offer

PATIENCE_SECONDS = 30.0


class Volume:
    """A folder as the kubelet mounts a Secret: the files are links through ``..data``, which is swapped at once."""

    def __init__(self, folder: Path, pair: Pair) -> None:
        self._folder = folder
        self._version = 0
        folder.mkdir(exist_ok=True)
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"
        self.cert.symlink_to("..data/tls.crt")
        self.key.symlink_to("..data/tls.key")
        self.hold(pair.chain, pair.key)

    def hold(self, chain: bytes, key: bytes) -> None:
        self._version += 1
        target = self._folder / f"..v{self._version}"
        target.mkdir()
        (target / "tls.crt").write_bytes(chain)
        (target / "tls.key").write_bytes(key)
        link = self._folder / "..new"
        link.symlink_to(target.name)
        link.rename(self._folder / "..data")

    def files(self) -> CertificateFiles:
        return CertificateFiles(cert=self.cert, key=self.key, ca=None)


@pytest.fixture
def pairs() -> tuple[Pair, Pair]:
    authority = trustme.CA()
    return made_by(authority), made_by(authority)


async def shown_at(port: int) -> x509.Certificate:
    visitor = await visit(port)
    await visitor.leave()
    return visitor.shown


async def until_shown(port: int, want: Pair) -> None:
    """Connect until the server, which looks in its own time, shows this certificate."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await shown_at(port) != want.leaf:
            pass


@asynccontextmanager
async def running(source: CertificateFiles) -> AsyncIterator[Certificates]:
    certificates = Certificates(source, registrations=None, changed=asyncio.Event(), look_seconds=0.02)
    await certificates.start()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(certificates.run())
        try:
            yield certificates
        finally:
            task.cancel()


async def test_files_that_change_are_served_without_a_restart(tmp_path: Path, pairs: tuple[Pair, Pair]) -> None:
    old, new = pairs
    volume = Volume(tmp_path, old)
    async with running(volume.files()) as certificates, listening(certificates.context) as server:
        before = await visit(server.port)
        volume.hold(new.chain, new.key)

        await until_shown(server.port, new)

        assert before.shown == old.leaf
        assert await before.ask("/still-here") == b"/still-here"
        await before.leave()


async def test_a_pair_that_is_half_written_changes_nothing_and_is_logged_once(
    tmp_path: Path, pairs: tuple[Pair, Pair], caplog: pytest.LogCaptureFixture
) -> None:
    """Tools that write file by file leave a moment with the new certificate and the old key."""
    old, new = pairs
    volume = Volume(tmp_path, old)
    files = volume.files()
    looks = 0
    looked = asyncio.Event()
    read = files.newest

    async def counted(**more: tuple[x509.Certificate, ...]) -> object:
        nonlocal looks
        looks += 1
        if looks >= 5:
            looked.set()
        return await read(**more)

    async with running(files) as certificates, listening(certificates.context) as server:
        volume.hold(new.chain, old.key)
        files.newest = counted  # type: ignore[method-assign, assignment]
        await looked.wait()

        assert await shown_at(server.port) == old.leaf
        assert certificates.missing() == ""
        volume.hold(new.chain, new.key)
        await until_shown(server.port, new)

    troubles = [record for record in caplog.records if record.message == "trouble"]
    assert len(troubles) == 1
    assert "cannot be used together: the key is not that of the certificate" in vars(troubles[0])["error"]
    assert new.key.split(b"\n")[1].decode() not in caplog.text


@pytest.mark.parametrize("broken", ["gone", "noise", "truncated"])
async def test_files_that_cannot_be_read_any_more_change_nothing(
    tmp_path: Path, pairs: tuple[Pair, Pair], broken: str
) -> None:
    old, new = pairs
    volume = Volume(tmp_path, old)
    files = volume.files()
    certificates = Certificates(files, registrations=None, changed=asyncio.Event())
    await certificates.start()
    async with listening(certificates.context) as server:
        if broken == "gone":
            volume.key.unlink()
        else:
            volume.hold(new.chain, b"\xff\x00" if broken == "noise" else new.key[:40])
        with pytest.raises(CertificateError, match="cannot be used together"):
            await files.newest()
        assert await shown_at(server.port) == old.leaf


async def test_files_that_cannot_be_used_at_the_start_are_a_wrong_setting(
    tmp_path: Path, pairs: tuple[Pair, Pair]
) -> None:
    old, new = pairs
    volume = Volume(tmp_path, old)
    volume.hold(old.chain, new.key)
    with pytest.raises(SettingError, match="cannot be used together: the key is not that of the certificate"):
        await Certificates(volume.files(), registrations=None, changed=asyncio.Event()).start()

    ca = tmp_path / "ca.crt"
    ca.write_bytes(b"nothing")
    volume.hold(old.chain, old.key)
    files = CertificateFiles(cert=volume.cert, key=volume.key, ca=ca)
    with pytest.raises(SettingError, match=r"ca\.crt holds no CA"):
        await Certificates(files, registrations=None, changed=asyncio.Event()).start()


async def test_a_ca_that_did_not_sign_the_certificate_is_a_wrong_setting(tmp_path: Path) -> None:
    """kube-apiserver would refuse every pod, and nothing else would say why."""
    ours, stranger = trustme.CA(), trustme.CA()
    volume = Volume(tmp_path, made_by(ours))
    ca = tmp_path / "ca.crt"
    ca.write_bytes(stranger.cert_pem.bytes())
    files = CertificateFiles(cert=volume.cert, key=volume.key, ca=ca)
    with pytest.raises(SettingError, match=r"none of the CAs in .*ca\.crt signed the TLS certificate .*tls\.crt"):
        await Certificates(files, registrations=None, changed=asyncio.Event()).start()

    ca.write_bytes(stranger.cert_pem.bytes() + ours.cert_pem.bytes())
    assert len((await files.first()).authorities) == 2


async def test_a_ca_may_have_signed_by_way_of_others(tmp_path: Path) -> None:
    """As a company's root does, of which cert-manager writes ca.crt."""
    root = trustme.CA()
    issuing = root.create_child_ca().create_child_ca()
    volume = Volume(tmp_path, made_by(issuing))
    ca = tmp_path / "ca.crt"
    ca.write_bytes(root.cert_pem.bytes())

    offer = await CertificateFiles(cert=volume.cert, key=volume.key, ca=ca).first()

    assert offer.authorities == (certificate_of(root),)
    alone = Volume(tmp_path / "alone", Pair(write_bundle([offer.pair.leaf]), offer.pair.key, offer.pair.leaf))
    with pytest.raises(SettingError, match="signed the TLS certificate"):
        await CertificateFiles(cert=alone.cert, key=alone.key, ca=ca).first()


async def test_a_certificate_that_nobody_renews_is_warned_about_once_an_hour(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair, _ = issue(["127.0.0.1"], now=NOW)
    now, seconds = NOW, 0.0
    source = Volume(tmp_path, pair).files()
    looked = asyncio.Queue[None]()
    read = source.newest

    async def counted(**more: tuple[x509.Certificate, ...]) -> Offer:
        looked.put_nowait(None)
        return await read(**more)

    source.newest = counted  # type: ignore[method-assign]
    certificates = Certificates(
        source,
        registrations=None,
        changed=asyncio.Event(),
        now=lambda: now,
        clock=lambda: seconds,
        look_seconds=0.001,
    )

    async def warned() -> list[bool]:
        """What was said by the end of a look that began after now."""
        while not looked.empty():
            looked.get_nowait()
        for _ in range(3):
            await looked.get()
        return [vars(record)["ended"] for record in caplog.records if record.message == "certificate not renewed"]

    await certificates.start()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(certificates.run())
        now = NOW + LIFETIME * 0.8
        assert await warned() == []
        now = NOW + LIFETIME * 0.9
        assert await warned() == [False]
        seconds += 3599
        assert await warned() == [False]
        seconds, now = seconds + 1, NOW + LIFETIME
        assert await warned() == [False, True]
        running.cancel()


@pytest.mark.parametrize(
    ("names", "called", "is_for"),
    [
        (["fracgpu-webhook.fracgpu-system.svc"], "fracgpu-webhook.fracgpu-system.svc", True),
        (["fracgpu-webhook.fracgpu-system.svc"], "gpu-webhook.fracgpu-system.svc", False),
        (["*.fracgpu-system.svc"], "fracgpu-webhook.fracgpu-system.svc", True),
        (["*.svc"], "fracgpu-webhook.fracgpu-system.svc", False),
        (["10.0.0.1", "::1"], "::1", True),
        (["10.0.0.1"], "10.0.0.2", False),
    ],
)
def test_the_names_that_a_certificate_is_for(names: list[str], called: str, is_for: bool) -> None:
    assert made_by(trustme.CA(), *names).is_for(called) is is_for


async def test_readiness_ends_with_the_certificate(tmp_path: Path) -> None:
    pair, _ = issue(["127.0.0.1"], now=NOW)
    now = NOW
    certificates = Certificates(
        Volume(tmp_path, pair).files(), registrations=None, changed=asyncio.Event(), now=lambda: now
    )
    await certificates.start()

    assert certificates.missing() == ""
    now = NOW + LIFETIME - timedelta(seconds=1)
    assert certificates.missing() == ""
    now = NOW + LIFETIME
    assert certificates.missing().startswith("the certificate holds from ")


@asynccontextmanager
async def webhook_process(ready_file: Path, *flags: str) -> AsyncIterator[int]:
    """The process on the event loop that the service really has; yields its port, and ends it by SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "webhook", "--port=0", "--no-metrics", f"--ready-file={ready_file}", *flags),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        while json.loads(await process.stderr.readline())["event"] != "ready":
            pass
        url = json.loads(ready_file.read_text())["url"]  # noqa: ASYNC240 (a small file, in a test)
        yield int(url.rpartition(":")[2])
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_process_takes_up_new_files(tmp_path: Path, pairs: tuple[Pair, Pair]) -> None:
    old, new = pairs
    volume = Volume(tmp_path, old)
    files = (f"--tls-cert={volume.cert}", f"--tls-key={volume.key}")
    async with webhook_process(tmp_path / "ready.json", *files) as port:
        assert await shown_at(port) == old.leaf

        volume.hold(new.chain, new.key)

        await until_shown(port, new)


async def test_without_an_api_server_the_process_waits_and_says_for_what(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        kubeconfig = Server().kubeconfig(tmp_path, url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        flags = ("--tls-secret=fracgpu-system/fracgpu-webhook-tls", f"--kubeconfig={kubeconfig}")
        async with webhook_process(tmp_path / "ready.json", *flags) as port, aiohttp.ClientSession() as session:
            # As the kubelet's probes: over TLS, and verifying nothing.
            async with session.get(f"https://127.0.0.1:{port}/readyz", ssl=False) as response:
                answer = await response.text()
                assert response.status == 503
                assert answer.startswith("there is no certificate yet: ")
                assert "API server" in answer
            async with session.get(f"https://127.0.0.1:{port}/healthz", ssl=False) as response:
                assert response.status == 200
