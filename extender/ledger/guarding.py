"""Keeps one client's calls to Redis within bounds: how long, how many at a time, how often a dead one is asked again.

redis-py bounds each wait on a socket; a call has several of them (Sentinels in turn, connecting, TLS, reading), and
where many pods wait, every one of them would knock at a Redis that is down or just coming back. What is retried
within a call is redis-py's part.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.backoff import EqualJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeoutError

LONGEST_CALL_SECONDS: Final = 1.5
"""Of kube-scheduler's 5 s for a whole request, which may take two calls and wait for another's call before them."""

PARALLEL_CALLS: Final = 16
"""And so connections: Redis works on one call at a time, so more of them only cost it; a burst waits in line here."""

_SHORTEST_REST_SECONDS: Final = 0.1
_LONGEST_REST_SECONDS: Final = 1.0  # within which a Redis that is back is noticed

_Failure = RedisConnectionError | RedisTimeoutError
_T = TypeVar("_T")


class CallGuard:
    """The bounds of one client.

    After a second failure in a row, calls fail at once with the same error for a moment that grows with every further
    failure. The first is free: it is how a restart or a failover is met.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places = asyncio.Semaphore(PARALLEL_CALLS)
        self._backoff = EqualJitterBackoff(cap=_LONGEST_REST_SECONDS, base=_SHORTEST_REST_SECONDS / 2)
        self._failures = 0  # in a row
        self._failure: _Failure = RedisConnectionError()
        self._failed_at = -1.0
        self._resting_until = -1.0

    async def call(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Carry out an operation.

        Raises:
            redis.exceptions.TimeoutError: no answer within `LONGEST_CALL_SECONDS`.
            redis.exceptions.ConnectionError: Redis, or the part of a cluster that serves us, cannot be reached.
        """
        began = self._clock()
        if began < self._resting_until:
            raise self._failure.with_traceback(None)
        try:
            async with asyncio.timeout(LONGEST_CALL_SECONDS), self._places:
                answer = await operation()
        except TimeoutError as exc:
            failure = RedisTimeoutError(f"no answer within {LONGEST_CALL_SECONDS} s")
            self._note_failure(failure, began)
            raise failure from exc
        except RedisClusterException as exc:  # no RedisError, in redis-py
            failure_of_cluster = RedisConnectionError(str(exc))
            self._note_failure(failure_of_cluster, began)
            raise failure_of_cluster from exc
        except (RedisConnectionError, RedisTimeoutError) as exc:
            self._note_failure(exc, began)
            raise
        self._failures = 0
        return answer

    def _note_failure(self, failure: _Failure, began: float) -> None:
        if began <= self._failed_at:
            return  # it was under way when another failed: the same trouble, and no news
        self._failures += 1
        self._failure = failure
        self._failed_at = self._clock()
        if self._failures > 1:
            self._resting_until = self._failed_at + self._backoff.compute(self._failures - 1)
