"""Parts of a GPU as whole numbers of its seats, and the sentence where they are none."""

from decimal import Decimal
from fractions import Fraction
from math import ceil, gcd
from typing import Final

from fracgpu.errors import RequestError
from fracgpu.names import RESOURCE_REPLICA

_MAX_LISTED: Final = 10


def whole_seats(fraction: Fraction, *, replicas: int, subject: str, in_percent: bool = False) -> int:
    """How many of the seats of a GPU a part of it is.

    Args:
        fraction: above 0 and at most 1.
        replicas: the seats of a GPU.
        subject: who asks for it, as the sentence begins.
        in_percent: whether it was, and has to be, written as a whole number of percent.

    Raises:
        RequestError: it is no whole number of seats.
    """
    exact = fraction * replicas
    if exact.denominator == 1:
        return int(exact)
    steps = gcd(replicas, 100) if in_percent else _decimal_steps(replicas)
    parts = [Fraction(step, steps) * (100 if in_percent else 1) for step in range(1, steps + 1)]
    if steps <= _MAX_LISTED:
        allowed = "one of " + ", ".join(map(decimal, parts))
    else:
        allowed = f"a multiple of {decimal(parts[0])}"
    beyond = "" if steps == replicas else f" (for other numbers of seats write the limit {RESOURCE_REPLICA} yourself)"
    raise RequestError(
        f"{subject}, which is no whole number of the {replicas} seats of a GPU; as a part of one GPU it is "
        f'{allowed}{beyond}, for example "{decimal(parts[ceil(fraction * steps) - 1])}"'
    )


def decimal(fraction: Fraction) -> str:
    """A fraction that a decimal number can write, so written."""
    return f"{Decimal(fraction.numerator) / Decimal(fraction.denominator):f}"


def _decimal_steps(replicas: int) -> int:
    """The largest divisor of R whose parts a decimal number can write: a third it cannot."""
    steps = 1
    for prime in (2, 5):
        while replicas % prime == 0:
            replicas //= prime
            steps *= prime
    return steps
