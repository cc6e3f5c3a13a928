"""Reads request bodies within bounds: of each one's size, of the time it takes, and of all large ones together.

Whoever reaches the port may send bodies, and need not finish them. What is usually sent is whole within milliseconds,
and nearly always small: so small ones are read whatever else goes on, and large ones share what there is.
"""

import asyncio
from http import HTTPStatus
from typing import Final

from starlette.requests import ClientDisconnect, Request

from fracgpu.errors import InputError

MAX_BODY_BYTES: Final = 3 * 2**20
"""kube-apiserver takes no larger object either (its limit for request bodies)."""

_SMALL_BYTES: Final = 64 * 2**10  # of each body: far more than a pod of some containers has
_SHARED_BYTES: Final = 20 * MAX_BODY_BYTES  # in all
_SECONDS: Final = 10.0  # kube-apiserver and kube-scheduler have given up by then


class BodyError(InputError):
    """A body that is not read.

    Attributes:
        status: what to answer.
        status_reason: the same as metav1.StatusReason.
    """

    def __init__(self, message: str, *, status: HTTPStatus, status_reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.status_reason = status_reason


class Bodies:
    """Reads the bodies of one server's requests.

    Args:
        max_bytes: of one body.
        shared_bytes: of all large ones together, beyond what each small one may have.
        seconds: how long a body may take.
    """

    def __init__(
        self, *, max_bytes: int = MAX_BODY_BYTES, shared_bytes: int = _SHARED_BYTES, seconds: float = _SECONDS
    ) -> None:
        self._max_bytes = max_bytes
        self._shared_bytes = shared_bytes
        self._seconds = seconds
        self._shared = 0  # bytes above the small ones, of all bodies that are being read

    async def read(self, request: Request) -> bytes:
        """Read a body, whatever its Content-Length says.

        Raises:
            BodyError: it is too large, does not come in time, or there is no room for it beside others.
        """
        body = bytearray()
        large = 0
        try:
            async with asyncio.timeout(self._seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise BodyError(
                            f"the body is larger than {self._max_bytes} bytes",
                            status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                            status_reason="RequestEntityTooLarge",
                        )
                    more = max(0, len(body) - _SMALL_BYTES) - large
                    if self._shared + more > self._shared_bytes:
                        raise BodyError(
                            "too many large bodies are being received; try again",
                            status=HTTPStatus.SERVICE_UNAVAILABLE,
                            status_reason="ServiceUnavailable",
                        )
                    large += more
                    self._shared += more
        except TimeoutError:
            raise BodyError(
                f"the body did not come within {self._seconds:g} s",
                status=HTTPStatus.REQUEST_TIMEOUT,
                status_reason="Timeout",
            ) from None
        except ClientDisconnect:
            raise BodyError("the client went away", status=HTTPStatus.BAD_REQUEST, status_reason="BadRequest") from None
        finally:
            self._shared -= large
        return bytes(body)
