"""kube-apiserver's side: keep-alive connections over TLS, and requests at moments that were set before.

kube-apiserver asks its webhooks for HTTP/1.1 only and keeps idle connections open, so a few connections carry
everything. One thread waits for all of them by select, which can wait for less than a millisecond; asyncio cannot. A
request's time counts from the moment at which it should have been sent, so that having to wait for one's turn counts.
"""

import gc
import select
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from bench.webhook.reviews import Review

CONNECTIONS: Final = 8
MUTATE: Final = "/mutate?timeout=5s"  # as kube-apiserver asks, with the configuration of deploy/

_TIMEOUT_SECONDS: Final = 30.0
_SEND_BUFFER: Final = 256 * 2**10  # of a socket: a usual review fits, so that sending one never waits
_CHUNK: Final = 64 * 2**10
_END_OF_HEAD: Final = b"\r\n\r\n"


class AnswerError(Exception):
    """The webhook answered something else than was expected; its own words are the text."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A review that was answered: its kind, and the seconds from when it was due."""

    kind: str
    seconds: float


class Connection:
    """One keep-alive connection over TLS; blocking, unless `drive` uses it.

    Args:
        url: of the server, without a path.
        tls: whom to trust.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext) -> None:
        host, port = urlsplit(url).hostname or "", urlsplit(url).port
        self._host = f"{host}:{port}"
        plain = socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as Go does
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.socket = tls.wrap_socket(plain, server_hostname=host)
        self._received = bytearray()
        self._due = 0.0
        self._review: Review | None = None

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def send(self, review: Review, *, due: float) -> None:
        """Send a review; the connection must be idle."""
        self._due, self._review = due, review
        self.socket.sendall(self._head(f"Content-Length: {len(review.body)}") + review.body)

    def receive(self) -> Sample | None:
        """Take what has arrived; the sample once that is the whole answer.

        Raises:
            AnswerError: the answer is not the right one.
        """
        assert self._review is not None  # noqa: S101 (only asked while a review is under way)
        try:
            arrived = self.socket.recv(_CHUNK)
        except ssl.SSLWantReadError:  # part of a record, or something of TLS's own
            return None
        if not arrived:
            raise AnswerError(f"{self._review.kind}: the connection was closed")
        self._received += arrived
        head_end = self._received.find(_END_OF_HEAD)
        if head_end < 0 or len(self._received) < head_end + len(_END_OF_HEAD) + _content_length(self._received):
            return None
        seconds = time.perf_counter() - self._due
        if not self._received.startswith(b"HTTP/1.1 200") or self._review.proof not in self._received:
            raise AnswerError(f"{self._review.kind}: {bytes(self._received[:500])!r}")
        self._received.clear()
        return Sample(self._review.kind, seconds)

    def ask(self, review: Review) -> float:
        """Send a review and wait for its answer; returns the seconds that took.

        Raises:
            AnswerError: the answer is not the right one.
        """
        self.send(review, due=time.perf_counter())
        while (sample := self.receive()) is None:
            pass
        return sample.seconds

    def stream(self, chunk: bytes, *, at_most: int) -> tuple[int, int]:
        """Send a body of unknown length, chunk after chunk, until the server answers or has had `at_most` bytes.

        Returns:
            The status of the answer, and how many bytes of the body were sent before it was seen.

        Raises:
            AnswerError: no answer came.
        """
        self.socket.sendall(self._head("Transfer-Encoding: chunked"))
        framed = f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"
        sent = 0
        try:
            while sent < at_most and not select.select([self.socket], [], [], 0)[0]:
                self.socket.sendall(framed)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer lies there all the same
        status = self.socket.recv(_CHUNK).split(b" ", 2)[1:2]
        if not status:
            raise AnswerError(f"the connection was closed without an answer after {sent} bytes")
        return int(status[0]), sent

    def _head(self, length: str) -> bytes:
        """The head that kube-apiserver sends."""
        return (
            f"POST {MUTATE} HTTP/1.1\r\nHost: {self._host}\r\nUser-Agent: kube-apiserver-admission\r\n{length}\r\n"
            "Accept: application/json, */*\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
        ).encode()


def drive(connections: list[Connection], work: Iterable[tuple[float, Review]]) -> Iterator[Sample]:
    """Send each review at its time, or as soon after as a connection is idle; yields the answers as they come.

    Args:
        connections: all idle.
        work: the moments, of `time.perf_counter`, ascending; and the reviews.

    Raises:
        AnswerError: an answer is not the right one.
    """
    for connection in connections:
        connection.socket.setblocking(False)
    idle, busy = list(connections), dict[ssl.SSLSocket, Connection]()
    upcoming = iter(work)
    following = next(upcoming, None)
    gc.disable()  # ours, which would run in the middle of a request
    try:
        while following is not None or busy:
            while following is not None and idle and following[0] <= time.perf_counter():
                connection = idle.pop()  # the one that was used last, as Go's client does
                connection.send(following[1], due=following[0])
                busy[connection.socket] = connection
                following = next(upcoming, None)
            wait = _TIMEOUT_SECONDS
            if following is not None and idle:
                wait = max(0.0, following[0] - time.perf_counter())
            ready, _, _ = select.select(busy, [], [], wait)
            if not ready and wait == _TIMEOUT_SECONDS:
                raise AnswerError(f"no answer in {_TIMEOUT_SECONDS:.0f} s")
            for found in ready:
                if (sample := busy[found].receive()) is not None:
                    idle.append(busy.pop(found))
                    yield sample
    finally:
        gc.enable()
        for connection in connections:
            connection.socket.setblocking(True)


def _content_length(answer: bytearray) -> int:
    head = answer[: answer.find(_END_OF_HEAD)].lower()
    _, found, rest = head.partition(b"content-length:")
    if not found:
        raise AnswerError(f"an answer without Content-Length: {bytes(head[:200])!r}")
    return int(rest.split(b"\r\n", 1)[0])
