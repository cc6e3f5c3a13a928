"""What the scheduler wrote onto a pod, where it tells that the extender or Redis is away. Pure."""

import re
from typing import Final

from cli.kubectl.remedies import Remedy

_NO_ANSWER: Final = re.compile(r'/(filter|prioritize|preempt|bind)": ')
"""How Go's HTTP client writes of a verb that failed: ``Post "https://.../filter": dial tcp ...``."""
_ERROR_STATUS: Final = " with extender at URL "
"""Where kube-scheduler was answered with another HTTP status than 200: ``failed filter with extender at URL ...``."""


def remedy_of_outage(scheduler_says: str) -> list[Remedy]:
    """What would help where the scheduler says that it, or the extender, was not answered.

    Args:
        scheduler_says: what it wrote onto the pod.
    """
    if "Redis does not answer" in scheduler_says:
        what = "Redis does not answer"
    elif _NO_ANSWER.search(scheduler_says):
        what = "the extender does not answer"
    elif _ERROR_STATUS in scheduler_says:
        what = "the extender answers the scheduler with an error"
    else:
        return []
    return [Remedy("call-doctor", f"{what}: kubectl fracgpu doctor says what is wrong")]
