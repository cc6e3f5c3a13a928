"""What happens to the webhook's certificate, to be counted."""

from collections.abc import Callable
from enum import StrEnum


class Happening(StrEnum):
    """One of them."""

    ISSUED = "issued"
    """This replica made a certificate and wrote it into the Secret."""
    SERVED = "served"
    """Another certificate is in use, the first one too."""
    TRUST_WRITTEN = "trust_written"
    """caBundle was written into a webhook configuration."""
    TROUBLE = "trouble"
    """A look at certificate or caBundle went wrong, and is made again."""


OnHappening = Callable[[Happening], None]


def unnoticed(_: Happening) -> None:
    """Tell nobody."""
