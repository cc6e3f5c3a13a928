"""How to reach Redis, whichever kind it is: one server, the master of Sentinels, a Cluster; with and without TLS.

What a URL may say is `addresses`' part, and how long and how often Redis is asked `guarding`'s. A client of any kind
fails with `redis.exceptions.RedisError` only.
"""

import math
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.maint_notifications import MaintNotificationsConfig

from extender.ledger.addresses import Login, RedisAddress, TlsFiles, Topology, read_address
from extender.ledger.guarding import CallGuard

CALL_TIMEOUT_SECONDS: Final = 1.0
"""For connecting, and for an answer: a slower Redis is treated as gone. After it, Redis has carried out a call or
never will. A whole call, with all that precedes it, ends within `guarding.LONGEST_CALL_SECONDS`."""

_SHORTEST_SENTINEL_SECONDS: Final = 0.2
_CONFIRM_SECONDS: Final = 1.0  # well below the time for which a rebuild waits for Bindings under way


def connect(url: str) -> Redis | RedisCluster:
    """Make a client for a Redis URL; it connects at its first call.

    Raises:
        ValueError: the URL cannot be used, as the rest of a sentence; no part of it that may be secret is repeated.
    """
    address = read_address(url)
    if address.tls is not None:
        _check_files(address.tls)
    match address.topology:
        case Topology.SENTINEL:
            return _connect_sentinel(address)
        case Topology.CLUSTER:
            return _connect_cluster(address)
    return _connect_server(address)


class _Server(Redis):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._guard = CallGuard()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        # The connection of a call that runs out of time is closed by redis-py: no answer is left on it.
        return await self._guard.call(lambda: self._carry_out(*args, **options))

    async def _carry_out(self, *args: Any, **options: Any) -> Any:
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


class _Master(_Server):
    """The server that Sentinels name, confirmed by one of them every second.

    redis-py asks them when it connects. But a master that lives on after a failover, because the failover was planned
    or cut it off from the Sentinels only, is made a replica many seconds later, and until then takes what we write:
    meanwhile another extender replica may have rebuilt the ledger on the new master.
    """

    def __init__(self, *, sentinels: Sentinel, pool: SentinelConnectionPool) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self._sentinels = sentinels
        self._pool = pool
        self._master: tuple[str, int] | None = None
        self._confirmed_at = -math.inf

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        await self._sentinels.aclose()

    async def _carry_out(self, *args: Any, **options: Any) -> Any:
        if time.monotonic() - self._confirmed_at >= _CONFIRM_SECONDS:
            await self._confirm_master()
        return await super()._carry_out(*args, **options)

    async def _confirm_master(self) -> None:
        master = await self._pool.get_master_address()  # type: ignore[no-untyped-call]
        if master != self._master:
            await self._pool.disconnect(inuse_connections=False)
            await self._pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
        self._master = master
        self._confirmed_at = time.monotonic()


class _Cluster(RedisCluster):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._guard = CallGuard()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        execute = super().execute_command
        return await self._guard.call(lambda: execute(*args, **options))


def _connect_server(address: RedisAddress) -> Redis:
    # `guarding` bounds the whole call: a bound of each wait on the socket would cost redis-py two tasks a call, and the
    # question would not be on its way when the caller goes on.
    options = {**_options(address.login), "socket_timeout": None, "db": address.database}
    if address.socket_path:
        return _Server(unix_socket_path=address.socket_path, **options)
    ((host, port),) = address.endpoints
    return _Server(host=host, port=port, **options, **_tls_options(address.tls))


def _connect_sentinel(address: RedisAddress) -> Redis:
    # Sentinels are asked in turn: the dead ones of them must leave time for the others.
    seconds = max(CALL_TIMEOUT_SECONDS / len(address.endpoints), _SHORTEST_SENTINEL_SECONDS)
    tls = _tls_options(address.tls)
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        address.endpoints,
        sentinel_kwargs={**_options(address.sentinel_login, timeout_seconds=seconds), **tls},
    )
    options = {**_options(address.login), "db": address.database, **tls}
    pool = SentinelConnectionPool(address.master_name, sentinels, **options)  # type: ignore[no-untyped-call]
    return _Master(sentinels=sentinels, pool=pool)


def _connect_cluster(address: RedisAddress) -> RedisCluster:
    return _Cluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.endpoints],
        # The URL's names outlive the addresses of nodes, which in Kubernetes change with every restart.
        dynamic_startup_nodes=False,
        **_options(address.login),
        **_tls_options(address.tls),
    )


def _options(login: Login, *, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> Mapping[str, Any]:
    return {
        "username": login.username,
        "password": login.password,
        "decode_responses": True,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        # redis-py's ten retries would outlast the scheduler's patience. One, at once, is for a connection that went
        # stale; what was too slow once is not asked again. Every operation of the ledger may be repeated.
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        # These would let a server stretch our timeouts, and a connection with left-over answers pass as clean.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _tls_options(tls: TlsFiles | None) -> Mapping[str, Any]:
    if tls is None:
        return {}
    files = {"ssl_ca_certs": tls.ssl_ca_certs, "ssl_certfile": tls.ssl_certfile, "ssl_keyfile": tls.ssl_keyfile}
    return {"ssl": True, **files}


def _check_files(tls: TlsFiles) -> None:
    """Tell at the start what redis-py would tell at every call."""
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        path = getattr(tls, name)
        if path is None:
            continue
        try:
            with open(path, "rb"):
                pass
        except OSError as exc:
            raise ValueError(f"has {name}={path}, which cannot be read: {exc.strerror}") from exc
    try:
        context = ssl.create_default_context(cafile=tls.ssl_ca_certs)
        if tls.ssl_certfile is not None:
            # No password: a person would be asked for it.
            context.load_cert_chain(tls.ssl_certfile, tls.ssl_keyfile, password="")
    except ssl.SSLError as exc:
        raise ValueError(
            f"has ssl_ca_certs, ssl_certfile or ssl_keyfile that are no PEM files, or not of one another ({exc}); a "
            "key must not be encrypted"
        ) from exc
