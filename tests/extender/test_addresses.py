"""Redis URLs: what each form means, what is refused in which words, and that no password is ever repeated."""

import pytest

from extender.ledger.addresses import Login, RedisAddress, TlsFiles, Topology, read_address

GOOD = {
    "host alone": ("redis://redis", RedisAddress(endpoints=(("redis", 6379),))),
    "port and database": ("redis://10.0.0.1:7000/3", RedisAddress(endpoints=(("10.0.0.1", 7000),), database=3)),
    "user and password": (
        "redis://me:p%40ss%2Fw+rd@redis:6379",
        RedisAddress(endpoints=(("redis", 6379),), login=Login(username="me", password="p@ss/w+rd")),
    ),
    "password alone": (
        "redis://:secret@redis",
        RedisAddress(endpoints=(("redis", 6379),), login=Login(password="secret")),
    ),
    "IPv6": ("redis://[::1]:6380/0", RedisAddress(endpoints=(("::1", 6380),))),
    "TLS with the system's authorities": (
        "rediss://redis",
        RedisAddress(endpoints=(("redis", 6379),), tls=TlsFiles()),
    ),
    "TLS with files": (
        "rediss://redis?ssl_ca_certs=/tls/ca.crt&ssl_certfile=/tls/tls.crt&ssl_keyfile=/tls/my%20key",
        RedisAddress(
            endpoints=(("redis", 6379),),
            tls=TlsFiles(ssl_ca_certs="/tls/ca.crt", ssl_certfile="/tls/tls.crt", ssl_keyfile="/tls/my key"),
        ),
    ),
    "socket": (
        "unix://:secret@/run/my%20redis.sock?db=2",
        RedisAddress(socket_path="/run/my redis.sock", database=2, login=Login(password="secret")),
    ),
    "Sentinels": (
        "redis+sentinel://me:secret@s-0,s-1:5000,[fe80::2]:26379/my%20master/1"
        "?sentinel_username=sam&sentinel_password=a%40b",
        RedisAddress(
            topology=Topology.SENTINEL,
            endpoints=(("s-0", 26379), ("s-1", 5000), ("fe80::2", 26379)),
            database=1,
            master_name="my master",
            login=Login(username="me", password="secret"),
            sentinel_login=Login(username="sam", password="a@b"),
        ),
    ),
    "Sentinels with TLS": (
        "rediss+sentinel://s-0/mymaster?ssl_ca_certs=/ca.crt",
        RedisAddress(
            topology=Topology.SENTINEL,
            endpoints=(("s-0", 26379),),
            master_name="mymaster",
            tls=TlsFiles(ssl_ca_certs="/ca.crt"),
        ),
    ),
    "Cluster": (
        "redis+cluster://:secret@a:7000,b:7001,c/",
        RedisAddress(
            topology=Topology.CLUSTER,
            endpoints=(("a", 7000), ("b", 7001), ("c", 6379)),
            login=Login(password="secret"),
        ),
    ),
    "Cluster with TLS": (
        "rediss+cluster://a",
        RedisAddress(topology=Topology.CLUSTER, endpoints=(("a", 6379),), tls=TlsFiles()),
    ),
}

BAD = {
    "nothing": ("", "is no URL.*redis://HOST:6379/0.*redis\\+sentinel://.*redis\\+cluster://"),
    "no scheme": ("redis:6379", "is no URL"),
    "other scheme": ("http://redis", "begins with http://; it has to look like one of redis://"),
    "no host": ("redis://", "names no host"),
    "comma too many": ("redis+sentinel://a,,b/m", "comma too many"),
    "port that is none": ("redis://redis:http", "port from 1 to 65535"),
    "port too large": ("redis://redis:65536", "port from 1 to 65535"),
    "port zero": ("redis+cluster://a:6379,b:0", "port from 1 to 65535"),
    "IPv6 without brackets": ("redis://fe80::1", r"IPv6 as \[ADDRESS\]"),
    "hosts of a single server": ("redis://a,b", "several hosts, which only redis\\+sentinel:// and redis\\+cluster://"),
    "database that is none": ("redis://redis/first", "database that is not a whole number"),
    "database below zero": ("redis://redis/-1", "database that is not a whole number"),
    "socket without a path": ("unix://", "unix:///PATH/redis.sock"),
    "socket with a relative path": ("unix://run/redis.sock", "unix:///PATH/redis.sock"),
    "Sentinels without a master": ("redis+sentinel://a,b", "what the Sentinels call the master"),
    "Cluster with a database": ("redis+cluster://a/1", "no numbered databases"),
    "file for TLS without TLS": ("redis://redis?ssl_ca_certs=/ca.crt", "ssl_ca_certs, which is for TLS.*rediss"),
    "key without certificate": ("rediss://redis?ssl_keyfile=/k", "ssl_keyfile without the ssl_certfile"),
    "timeout": ("redis://redis?socket_timeout=60", "option 'socket_timeout'; with redis:// there can be none"),
    "password of Sentinels without them": ("rediss://r?sentinel_password=x", "there can be ssl_ca_certs, ssl_certfile"),
    "percent alone": ("redis://:100%@redis", "followed by no two hexadecimal digits.*%25"),
    "fragment": ("redis://redis#1", "has a #.*%23"),
}


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_every_form_is_read(case: tuple[str, RedisAddress]) -> None:
    url, want = case
    assert read_address(url) == want


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_refused_with_what_can(case: tuple[str, str]) -> None:
    url, want = case
    with pytest.raises(ValueError, match=want):
        read_address(url)


FORMS = [
    "redis://me:{}@redis:6379/0",
    "redis://{}@redis:6379/0",
    "redis://me:{}",
    "redis:/me:{}@redis",
    "http://me:{}@redis",
    "redis://me:{}@redis:0",
    "redis://me:{}@redis/x",
    "redis://me:{}@a,b",
    "unix://me:{}@redis.sock",
    "redis+sentinel://me:{}@a,b",
    "redis+sentinel://a,b/m?sentinel_password={}",
    "redis+sentinel://a,b/m?sentinel-password={}",
    "redis+sentinel://a,b/m?{}",
    "redis+cluster://me:{}@a/3",
    "{}",
]


@pytest.mark.parametrize("form", FORMS)
def test_no_complaint_repeats_a_password_however_the_url_is_mistyped(form: str) -> None:
    for letter in ["", *"/?#@:,%[]+ =&"]:
        try:
            read_address(form.format(f"Xq7zW{letter}Vk9pL"))
        except ValueError as exc:
            said = f"{exc} {exc.__cause__} {exc.__context__}"
            assert "Xq7zW" not in said, letter
            assert "Vk9pL" not in said, letter


def test_no_password_shows_in_logs_of_an_address() -> None:
    shown = repr(read_address("redis+sentinel://me:Xq7zW@a/m?sentinel_password=Vk9pL"))
    assert "me" in shown
    assert "Xq7zW" not in shown
    assert "Vk9pL" not in shown
