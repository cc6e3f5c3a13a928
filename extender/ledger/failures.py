"""Why Redis did not do what it was asked, as a sentence for the person who runs it."""

import re
from typing import Final

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import RedisError, ResponseError

_CAUSES: Final = {
    "OOM": "Redis is full: it needs a larger maxmemory",
    "READONLY": "this Redis is a read-only replica: the URL has to lead to the master, as redis+sentinel:// does",
    "NOREPLICAS": "Redis has fewer replicas in reach than its min-replicas-to-write asks for",
    "MISCONF": "Redis cannot save to its disk, and takes no writes until it can",
    "MASTERDOWN": "this Redis is a replica that has lost its master",
    "LOADING": "Redis is still loading its data",
    "BUSY": "Redis is busy with another script",
    "NOAUTH": "Redis wants a password, and the URL has none",
    "WRONGPASS": "Redis refuses the user name or the password of the URL",
    "MOVED": "this Redis is a node of a Redis Cluster: the URL has to begin with redis+cluster://",
    "CLUSTERDOWN": "the Redis Cluster is down: some of its slots are served by no node",
}  # the word with which Redis begins an error -> what it means here


def explain_failure(error: RedisError) -> str:
    """Say why a call failed; what Redis itself said follows where it adds anything."""
    if isinstance(error, MasterNotFoundError):
        if "AuthenticationError" in str(error):
            return "the Sentinels want another sentinel_username or sentinel_password than the URL has"
        return "no Sentinel in reach names a healthy master by the name that the URL has"
    # Redis 6.2 wraps what a command within a script answered: "... @user_script: 58: -OOM command not allowed ...".
    text = f"{getattr(error, 'status_code', None) or ''} {error}"
    for word, cause in _CAUSES.items():
        if re.search(rf"(^|[ -]){word}\b", text):
            return cause
    if "unknown command" in text and "SENTINEL" in text:
        return "a host of the URL is no Sentinel"
    if isinstance(error, ResponseError):
        return f"Redis cannot carry out the operation ({error})"
    return f"Redis does not answer ({error})"
