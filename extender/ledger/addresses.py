"""The address of a Redis as people write it: a URL, read and checked without asking anybody.

    redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]                           one server
    unix://[USER[:PASSWORD]@]/PATH[?db=DB]                               one server, by its Unix socket
    redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT][,HOST...]/MASTER[/DB] the master that Sentinels name
    redis+cluster://[USER[:PASSWORD]@]HOST[:PORT][,HOST...]              a Redis Cluster, by some of its nodes

With TLS the first word is `rediss` instead of `redis`. These are redis-py's own forms, and for Sentinel and Cluster,
of which it has none, those of limits, LangChain and Prefect. Reserved characters are percent-encoded. Options that
would change how long a call may take are not read from the URL: the scheduler's patience sets that.

Complaints never repeat a part of the URL in which a password could stand, even of a mistyped one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379

Endpoint = tuple[str, int]
"""Host (a name, or an IP address without brackets) and TCP port."""


class Topology(StrEnum):
    """Who answers for a Redis."""

    SERVER = ""
    SENTINEL = "+sentinel"
    CLUSTER = "+cluster"


@dataclass(frozen=True, kw_only=True)
class Login:
    """A user name and a password; None for what is not given."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files for TLS, as redis-py names them; None for the system's authorities and for no client certificate."""

    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """Where a Redis is, and as whom to talk to it.

    Attributes:
        endpoints: of the server, the Sentinels, or some nodes of the cluster; empty where there is a `socket_path`.
        master_name: what the Sentinels call the master; empty without Sentinels.
        login: for Redis itself.
        sentinel_login: for the Sentinels.
        tls: None for plain connections; with Sentinels it is for both them and Redis.
    """

    topology: Topology = Topology.SERVER
    endpoints: tuple[Endpoint, ...] = ()
    socket_path: str = ""
    database: int = 0
    master_name: str = ""
    login: Login = Login()
    sentinel_login: Login = Login()
    tls: TlsFiles | None = None


def read_address(url: str) -> RedisAddress:
    """Read a URL.

    Raises:
        ValueError: what is wrong, as the rest of a sentence that begins with the setting's name.
    """
    scheme, rest = _split_scheme(url)
    authority, path, options = _split_rest(rest)
    userinfo, _, hosts = authority.rpartition("@")
    username, _, password = userinfo.partition(":")
    login = Login(username=unquote(username) or None, password=unquote(password) or None)
    tls_word, _, kind = scheme.partition("+")
    tls = _read_tls(options) if tls_word == "rediss" else None
    if scheme == "unix":
        address = _read_unix(hosts, path, options, login)
    elif not kind:
        address = _read_server(hosts, path, login, tls)
    elif f"+{kind}" == Topology.SENTINEL:
        address = _read_sentinel(hosts, path, options, login, tls)
    else:
        address = _read_cluster(hosts, path, login, tls)
    _refuse_unknown(scheme, options)
    return address


_FORMS: Final = {
    "redis": "redis://HOST:6379/0",
    "rediss": "rediss://HOST:6379/0",
    "unix": "unix:///PATH/redis.sock",
    "redis+sentinel": "redis+sentinel://HOST:26379,HOST:26379/MASTER",
    "rediss+sentinel": "rediss+sentinel://HOST:26379,HOST:26379/MASTER",
    "redis+cluster": "redis+cluster://HOST:6379,HOST:6379",
    "rediss+cluster": "rediss+cluster://HOST:6379,HOST:6379",
}  # scheme -> an example

_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")
_ENCODE: Final = "write / ? # @ : , % within user name, password and names as %2F %3F %23 %40 %3A %2C %25"


def _split_scheme(url: str) -> tuple[str, str]:
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", scheme):
        raise ValueError(f"is no URL; it has to look like one of {', '.join(_FORMS.values())}")
    if scheme not in _FORMS:
        raise ValueError(f"begins with {scheme}://; it has to look like one of {', '.join(_FORMS.values())}")
    return scheme, rest


def _split_rest(rest: str) -> tuple[str, str, Mapping[str, str]]:
    """Split what follows the scheme into authority, path (with its slash) and options."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", rest):
        raise ValueError(f"has a % that is followed by no two hexadecimal digits; {_ENCODE}")
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    if "#" in rest or "@" in path or "@" in query:
        raise ValueError(f"has a # or, after its hosts, an @; {_ENCODE}")
    # No urllib: its complaints repeat what they complain about, and + is a letter like any other in a password.
    pairs = [part.partition("=") for part in query.split("&") if part]
    return authority, slash + path, {name: unquote(value) for name, _, value in pairs}


def _read_server(hosts: str, path: str, login: Login, tls: TlsFiles | None) -> RedisAddress:
    endpoints = _read_endpoints(hosts, _PORT)
    if len(endpoints) > 1:
        raise ValueError("names several hosts, which only redis+sentinel:// and redis+cluster:// do")
    return RedisAddress(endpoints=endpoints, database=_read_database(path.removeprefix("/")), login=login, tls=tls)


def _read_unix(hosts: str, path: str, options: Mapping[str, str], login: Login) -> RedisAddress:
    if hosts or path in ("", "/"):
        raise ValueError("names no absolute path of a socket; it has to look like unix:///PATH/redis.sock")
    return RedisAddress(socket_path=unquote(path), database=_read_database(options.get("db", "")), login=login)


def _read_sentinel(
    hosts: str, path: str, options: Mapping[str, str], login: Login, tls: TlsFiles | None
) -> RedisAddress:
    master, _, database = path.removeprefix("/").partition("/")
    if not master:
        raise ValueError("does not say what the Sentinels call the master: redis+sentinel://HOST:26379/MASTER")
    return RedisAddress(
        topology=Topology.SENTINEL,
        endpoints=_read_endpoints(hosts, _SENTINEL_PORT),
        database=_read_database(database),
        master_name=unquote(master),
        login=login,
        sentinel_login=Login(
            username=options.get("sentinel_username") or None, password=options.get("sentinel_password") or None
        ),
        tls=tls,
    )


def _read_cluster(hosts: str, path: str, login: Login, tls: TlsFiles | None) -> RedisAddress:
    if path not in ("", "/", "/0"):
        raise ValueError("has a path after its hosts, and a Redis Cluster has no numbered databases; leave it out")
    return RedisAddress(topology=Topology.CLUSTER, endpoints=_read_endpoints(hosts, _PORT), login=login, tls=tls)


def _read_endpoints(hosts: str, default_port: int) -> tuple[Endpoint, ...]:
    return tuple(_read_endpoint(text, default_port) for text in hosts.split(","))


def _read_endpoint(text: str, default_port: int) -> Endpoint:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]*))(?::([0-9]{1,5}))?", text)
    port = int(found[3] or default_port) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError(
            f"has hosts that are not HOST or HOST:PORT with a port from 1 to 65535, IPv6 as [ADDRESS]:PORT; {_ENCODE}"
        )
    host = found[1] or unquote(found[2] or "")
    if not host:
        raise ValueError("names no host, or has a comma too many between them")
    return host, port


def _read_database(text: str) -> int:
    if not re.fullmatch(r"[0-9]{0,9}", text):
        raise ValueError("has a database that is not a whole number from 0 on, such as 0 at the end of HOST:6379/0")
    return int(text or 0)


def _read_tls(options: Mapping[str, str]) -> TlsFiles:
    files = TlsFiles(**{name: options[name] for name in _TLS_OPTIONS if options.get(name)})
    if files.ssl_keyfile and not files.ssl_certfile:
        raise ValueError("has an ssl_keyfile without the ssl_certfile that it belongs to")
    return files


def _refuse_unknown(scheme: str, options: Mapping[str, str]) -> None:
    allowed: tuple[str, ...] = ("db",) if scheme == "unix" else ()
    if scheme.startswith("rediss"):
        allowed += _TLS_OPTIONS
    if scheme.endswith(Topology.SENTINEL):
        allowed += _SENTINEL_OPTIONS
    for name in options:
        if name in allowed:
            continue
        if name in _TLS_OPTIONS:
            raise ValueError(f"has {name}, which is for TLS, and begins with {scheme}://; write rediss for redis")
        shown = f"the option {name!r}" if re.fullmatch(r"[a-z_]{1,40}", name) else "an option"
        raise ValueError(f"has {shown}; with {scheme}:// there can be {', '.join(allowed) or 'none'}")
