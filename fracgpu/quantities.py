"""Kubernetes quantities (``4Gi``, ``500M``, ``1.5Gi``) as exact numbers, and units of video memory.

Memory is counted in units from the webhook to the device plugin; bytes and MiB exist only at the edges: where a
person writes, where NVML answers, and where a sentence is shown. Rounding is up for requests, down for capacity.
"""

import re
from fractions import Fraction
from typing import Final, NewType

from fracgpu.errors import QuantityError

Mib = NewType("Mib", int)
"""Mebibytes (2**20 bytes) of video memory."""

MIB_BYTES: Final = 2**20
DEFAULT_MEMORY_UNIT: Final = Mib(512)
MAX_MEMORY_UNIT: Final = Mib(2**20)
DEFAULT_REPLICAS: Final = 4
"""Seats of a GPU (R) where the administrator says nothing."""

_MAX_EXPONENT: Final = 30  # far above any memory size; keeps "1e999999999" from eating the processor
_MAX_LENGTH: Final = 64

# Kubernetes apimachinery, resource.Quantity: signedNumber, then a binary or decimal suffix or a decimal exponent.
_QUANTITY = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?\d{1,9}))?", re.ASCII)
_SCALE: Final = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9),
    "T": Fraction(10**12), "P": Fraction(10**15), "E": Fraction(10**18),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30),
    "Ti": Fraction(2**40), "Pi": Fraction(2**50), "Ei": Fraction(2**60),
}  # fmt: skip


def parse_quantity(text: str) -> Fraction:
    """Read a Kubernetes quantity as an exact number of base units (bytes, for memory).

    Raises:
        QuantityError: the text is not a quantity by the grammar of apimachinery's resource.Quantity.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise QuantityError(f"{text[:_MAX_LENGTH]!r} is not a quantity; write for example 4Gi, 4096Mi, 500M or 1.5Gi")
    sign, digits, suffix, exponent = match.groups()
    value = Fraction(digits)
    if suffix:
        value *= _SCALE[suffix]
    elif exponent:
        if abs(int(exponent)) > _MAX_EXPONENT:
            raise QuantityError(f"{text!r} is out of range")
        value *= Fraction(10) ** int(exponent)
    return -value if sign == "-" else value


def parse_count(value: str | int | float) -> int:
    """Read the value of an extended resource as a whole number >= 0.

    The API server accepts any spelling of a whole number (``"16"``, ``16``, ``"1k"``) and stores one form of it.

    Raises:
        QuantityError: not a quantity, negative, or not whole.
    """
    if isinstance(value, str) and len(value) <= 9 and value.isascii() and value.isdigit():
        return int(value)  # as the API server stores it
    number = parse_quantity(str(value))
    if number < 0 or number.denominator != 1:
        raise QuantityError(f"{str(value)[:_MAX_LENGTH]!r} is not a whole number of at least 0")
    return int(number)


def units_for(size_bytes: Fraction, *, unit: Mib) -> int:
    """Units that a request of this size takes: rounded up."""
    return -int(-size_bytes // (unit * MIB_BYTES))


def capacity_units(total: Mib, *, reserved: Mib, unit: Mib) -> int:
    """Units that a GPU of this size offers: rounded down, never below 0."""
    return max(0, (total - reserved) // unit)


def seat_units(seats: int, *, replicas: int, units: int) -> int:
    """Units that `seats` of the `replicas` seats of a GPU of `units` units take with them.

    All seats are the whole GPU: then the units that do not divide evenly belong to it too.
    """
    return units if seats == replicas else seats * (units // replicas)


def format_mib(size: int) -> str:
    """A size in MiB as a person would write it: ``12 GiB``, ``1.5 GiB``, ``512 MiB``."""
    if abs(size) < 1024:
        return f"{size} MiB"
    gib = f"{size / 1024:.2f}".rstrip("0").rstrip(".")
    return f"{gib} GiB"
