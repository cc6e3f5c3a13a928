"""Who may call kube-scheduler's verbs: whoever shows a client certificate, or knows a token.

TLS itself has verified the certificate by the time a request is here. Probes are for anybody.
"""

import base64
import binascii
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from fracgpu.errors import SettingError
from fracgpu.process.serving import client_names

PROBES: Final = ("/healthz", "/livez", "/readyz")

_MIN_TOKEN: Final = 16  # characters; fewer can be guessed
_LOOK_SECONDS: Final = 5.0  # between two looks at the token's file
_TELL_SECONDS: Final = 60.0  # between two log lines about the same address
_REMEMBERED: Final = 1000  # addresses
_logger = logging.getLogger(__name__)


class TokenFile:
    """A token that a file holds, read again when it changes.

    Args:
        file: holds the token, alone.
        clock: seconds that only grow.

    Raises:
        SettingError: there is no usable token in it, at the start.
    """

    def __init__(self, file: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._token = self._read()
        self._read_at = clock()

    def is_equal_to(self, text: bytes) -> bool:
        """Whether this is the token; takes as long for a wrong one."""
        now = self._clock()
        if now - self._read_at >= _LOOK_SECONDS:
            self._read_at = now
            try:
                self._token = self._read()
            except SettingError as exc:  # the one before stays good
                _logger.warning("token not renewed", extra={"error": str(exc)})
        return hmac.compare_digest(text, self._token)

    def _read(self) -> bytes:
        try:
            token = self._file.read_bytes().strip()
        except OSError as exc:
            raise SettingError(f"--token-file {self._file} cannot be read: {exc.strerror}") from exc
        if len(token) < _MIN_TOKEN:
            raise SettingError(
                f"--token-file {self._file} holds {len(token)} characters; a token has at least {_MIN_TOKEN}, for "
                "example what `openssl rand -hex 32` prints"
            )
        return token


class Guard:
    """Lets those requests through to an app that show who they are; the others get 401, or 403.

    Args:
        app: what is guarded.
        asks_certificate: whether a verified client certificate will do.
        names: of which it has to carry one; empty for any certificate.
        token: what will do as well; None for none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        asks_certificate: bool,
        names: frozenset[str] = frozenset(),
        token: TokenFile | None = None,
    ) -> None:
        self._app = app
        self._asks_certificate = asks_certificate
        self._names = names
        self._token = token
        self._told: OrderedDict[str, float] = OrderedDict()  # address -> when the log last told of it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        names = client_names(scope) if self._asks_certificate else None
        if (names is not None and (not self._names or names & self._names)) or self._has_token(scope):
            await self._app(scope, receive, send)
            return
        self._tell(scope, names)
        if names is not None:
            sentence = f"the client certificate is for {_listed(names)}, and {_listed(self._names)} may call"
            await _refuse(send, 403, sentence)
            return
        ways = {"a client certificate": self._asks_certificate, "a token (Authorization: Bearer)": self._token}
        await _refuse(send, 401, f"this needs {' or '.join(way for way, is_set in ways.items() if is_set)}")

    def _has_token(self, scope: Scope) -> bool:
        if self._token is None:
            return False
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, secret = given.partition(b" ")
        if kind.lower() == b"basic":  # what clients make of NAME:TOKEN@ in a URL; kube-scheduler can do no other
            try:
                _, _, secret = base64.b64decode(secret, validate=True).partition(b":")
            except binascii.Error:
                return False
        elif kind.lower() != b"bearer":
            return False
        return self._token.is_equal_to(secret.strip())

    def _tell(self, scope: Scope, names: frozenset[str] | None) -> None:
        """Log it, once a minute for each address: whoever knocks must not fill the disk."""
        address = scope["client"][0] if scope.get("client") else ""
        now = time.monotonic()
        if now - self._told.get(address, -_TELL_SECONDS) < _TELL_SECONDS:
            return
        self._told[address] = now
        self._told.move_to_end(address)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        shown = _listed(names) if names is not None else "none"
        _logger.warning(
            "stranger refused", extra={"address": address, "path": scope["path"][:100], "certificate": shown}
        )


async def _refuse(send: Send, status: int, message: str) -> None:
    body = msgspec.json.encode({"error": message})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),  # its body is not read
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="fracgpu"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nobody by name"
