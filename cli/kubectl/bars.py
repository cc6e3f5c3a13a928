"""A GPU's memory as a bar: used, granted and not used, free. Pure."""

from typing import Final

from rich.text import Text

WIDTH: Final = 20
_USED, _GRANTED, _FREE = "█", "▒", "░"


def bar(*, offered: int, taken: int, used: int | None, healthy: bool = True, width: int = WIDTH) -> Text:
    """The bar of one GPU; what is not measured is drawn as granted.

    Args:
        offered: what can be given away, in MiB.
        taken: what is given away.
        used: what pods use; None where that is not known.
        healthy: whether the GPU is.
        width: in characters.
    """
    granted = _cells(taken, offered, width)
    filled = min(granted, _cells(min(used or 0, taken), offered, width))
    is_overused = used is not None and used > taken
    made = Text(no_wrap=True)
    made.append(_USED * filled, style="red" if is_overused else "green")
    made.append(_GRANTED * (granted - filled), style="cyan")
    made.append(_FREE * (width - granted), style="dim" if healthy else "red")
    return made


def _cells(part: int, whole: int, width: int) -> int:
    """How many of the characters; at least one for a part that is not 0, and all only for the whole."""
    if part <= 0 or whole <= 0:
        return 0
    if part >= whole:
        return width
    return min(width - 1, max(1, round(width * part / whole)))
