"""The seeds of a replay as a person writes them: ``42``, ``42-51``, ``1,5,9-12``. Pure."""

import re
from typing import Final

from fracgpu.errors import SettingError

MAX_SEEDS: Final = 1000
"""More runs than anybody waits for."""

_PART: Final = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)


def parse_seeds(text: str) -> list[int]:
    """Read seeds, in their order, each once.

    Raises:
        SettingError: it has none, or too many.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise SettingError(
                f"--seeds has {part.strip()[:40]!r}; seeds are whole numbers and ranges of them with commas between, "
                "for example 42, 42-51 or 1,5,9-12"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise SettingError(f"--seeds has {part.strip()!r}, which ends before it begins; write {last}-{first}")
        if last - first >= MAX_SEEDS or len(found := found | dict.fromkeys(range(first, last + 1))) > MAX_SEEDS:
            raise SettingError(f"--seeds names more than {MAX_SEEDS} seeds; each is a whole replay, so name fewer")
    return list(found)
