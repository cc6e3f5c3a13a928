"""One line of `doctor`: what was checked, what was found, how to mend it. Pure."""

from enum import StrEnum

from msgspec import Struct

from cli.kubectl.facts import Read
from cli.kubectl.wording import listed


class Status(StrEnum):
    """How it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Finding(Struct, frozen=True):
    """What one check found; `mend` says what to do, where something is to be done."""

    check: str
    status: Status
    found: str
    mend: str = ""


def ok(check: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(check, Status.OK, found)


def warn(check: str, found: str, *, mend: str) -> Finding:
    """It works, and should not stay so."""
    return Finding(check, Status.WARN, found, mend)


def fail(check: str, found: str, *, mend: str) -> Finding:
    """Something does not work, or memory could be promised twice."""
    return Finding(check, Status.FAIL, found, mend)


def unknown(check: str, why: str, *, mend: str = "") -> Finding:
    """It could not be looked at; `mend` is where else to look."""
    return Finding(check, Status.UNKNOWN, why, mend)


def unread(check: str, *reads: Read[object], mend: str = "") -> Finding | None:
    """Why something that a check needs could not be read; None where all of it was, or does not exist."""
    reasons = [read.unknown for read in reads if read.unknown]
    return unknown(check, listed(list(dict.fromkeys(reasons))), mend=mend) if reasons else None
