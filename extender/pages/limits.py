"""How often one address may ask. Pure."""

from collections import OrderedDict
from typing import Final

_REMEMBERED: Final = 1000  # addresses; whoever was not seen for longest is forgotten, which forgives


class RateLimit:
    """A bucket of tokens for each address: so many requests at once, and so many a second for good.

    Args:
        per_second: requests.
        burst: requests.
    """

    def __init__(self, *, per_second: float, burst: float) -> None:
        self.per_second = per_second
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> tokens, and at what time

    def allows(self, address: str, *, now: float) -> bool:
        """Count one request; whether it is within the limit.

        Args:
            address: whose.
            now: seconds that only grow.
        """
        left, before = self._left.get(address, (self._burst, now))
        left = min(self._burst, left + (now - before) * self.per_second)
        is_allowed = left >= 1
        self._left[address] = (left - 1 if is_allowed else left), now
        self._left.move_to_end(address)
        if len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)
        return is_allowed
