"""Moments in the form that Kubernetes' objects carry: RFC 3339, UTC, whole seconds."""

from datetime import UTC, datetime


def timestamp(moment: datetime) -> str:
    """A moment, which knows its time zone, as text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
