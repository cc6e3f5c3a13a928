"""Clients of an extender: one that measures single requests to the microsecond, and one that keeps many in flight.

Both keep their connections alive, as Go's client does, and send prepared bytes.
"""

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

_TIMEOUT_SECONDS: Final = 30.0
_END_OF_HEAD: Final = b"\r\n\r\n"


class AnswerError(Exception):
    """An extender answered something other than what can be measured; its own words are the text."""


@dataclass(frozen=True, slots=True)
class Timed:
    """An answer's body, and the seconds from the first byte sent to the last received."""

    seconds: float
    body: bytes


class Wire:
    """One blocking keep-alive connection.

    Args:
        url: of the extender, without a path.
    """

    def __init__(self, url: str) -> None:
        self._host, port = urlsplit(url).hostname or "", urlsplit(url).port
        self._socket = socket.create_connection((self._host, port), timeout=_TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as Go does
        self._buffer = bytearray(4 * 2**20)

    def post(self, path: str, body: bytes) -> Timed:
        """Send one request and wait for the whole answer.

        Raises:
            AnswerError: an answer other than 200, or none.
        """
        request = _head(self._host, path, body) + body
        view = memoryview(self._buffer)
        began = time.perf_counter()
        self._socket.sendall(request)
        received, end = 0, len(view)
        while received < end:
            count = self._socket.recv_into(view[received:])
            if not count:
                raise AnswerError(f"{path}: the connection was closed")
            if not received:
                head_end = self._buffer.find(_END_OF_HEAD, 0, count)
                length = _content_length(bytes(view[:head_end]), path)
                end = head_end + len(_END_OF_HEAD) + length
            received += count
        seconds = time.perf_counter() - began
        return Timed(seconds, bytes(view[end - length : end]))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Lane:
    """One keep-alive connection of many, for requests of which others are in flight."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host

    @classmethod
    async def open(cls, url: str) -> "Lane":
        """Connect to an extender."""
        host, port = urlsplit(url).hostname or "", urlsplit(url).port
        return cls(*await asyncio.open_connection(host, port, limit=4 * 2**20), host)

    async def post(self, path: str, body: bytes) -> Timed:
        """Send one request and wait for the whole answer.

        Raises:
            AnswerError: an answer other than 2xx.
        """
        began = time.perf_counter()
        self._writer.write(_head(self._host, path, body) + body)
        head = await self._reader.readuntil(_END_OF_HEAD)
        answer = await self._reader.readexactly(_content_length(head, path))
        return Timed(time.perf_counter() - began, answer)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class _Verdict(msgspec.Struct, rename="pascal"):
    error: str = ""


def decode_answer(body: bytes) -> Any:
    """Decode the answer of any verb.

    Raises:
        AnswerError: it says Error.
    """
    raise_if_error(body)
    return msgspec.json.decode(body)


def raise_if_error(body: bytes) -> None:
    """Look whether an answer says Error, which costs less than a whole one and must not be taken for one.

    Raises:
        AnswerError: it does.
    """
    if body.startswith(b"{") and (error := _verdict.decode(body).error):
        raise AnswerError(error)


def _head(host: str, path: str, body: bytes) -> bytes:
    """The head that kube-scheduler sends."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
    ).encode()


def _content_length(head: bytes, path: str) -> int:
    status, *lines = head.split(b"\r\n")
    if not status.startswith(b"HTTP/1.1 2"):
        raise AnswerError(f"{path}: {status.decode()}")
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise AnswerError(f"{path}: an answer without Content-Length")


_verdict = msgspec.json.Decoder(_Verdict)
