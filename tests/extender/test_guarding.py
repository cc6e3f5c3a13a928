"""The bounds of calls to Redis, on a clock of our own."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from extender.ledger.guarding import PARALLEL_CALLS, CallGuard


class Clock:
    """A clock that goes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Dying:
    """An operation that counts how often it is really tried."""

    def __init__(self) -> None:
        self.tries = 0
        self.error: Exception | None = RedisConnectionError("refused")

    async def __call__(self) -> str:
        self.tries += 1
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return "answer"


async def test_a_redis_that_stays_away_is_asked_less_and_less_often() -> None:
    clock, redis = Clock(), Dying()
    guard = CallGuard(clock=clock)
    tries_per_second = []
    for _ in range(6):
        before = redis.tries
        for _ in range(1000):
            clock.now += 0.001
            with pytest.raises(RedisConnectionError, match="refused"):
                await guard.call(redis)
        tries_per_second.append(redis.tries - before)
    assert 2 <= tries_per_second[0] <= 8
    assert all(1 <= tries <= 2 for tries in tries_per_second[2:])

    redis.error = None
    clock.now += 1
    assert await guard.call(redis) == "answer"
    redis.error = RedisConnectionError("restarting")
    before = redis.tries
    for _ in range(2):
        with pytest.raises(RedisConnectionError, match="restarting"):
            await guard.call(redis)
    assert redis.tries == before + 2


async def test_calls_that_fail_together_are_one_failure() -> None:
    clock, redis = Clock(), Dying()
    guard = CallGuard(clock=clock)
    for _ in range(2):  # the second failure in a row begins a rest, of the shortest kind
        clock.now += 1
        await asyncio.gather(*(guard.call(redis) for _ in range(PARALLEL_CALLS)), return_exceptions=True)
    assert redis.tries == 2 * PARALLEL_CALLS
    redis.error = None
    with pytest.raises(RedisConnectionError):
        await guard.call(redis)
    clock.now += 0.1
    assert await guard.call(redis) == "answer"


async def test_an_error_that_redis_answers_is_no_reason_to_rest() -> None:
    redis = Dying()
    redis.error = ResponseError("OOM")
    guard = CallGuard(clock=Clock())
    for _ in range(5):
        with pytest.raises(ResponseError):
            await guard.call(redis)
    assert redis.tries == 5
