"""API keys, Host and Origin rules."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.errors import AccessError, ConfigError, Unauthenticated
from retinue.core.settings import Server
from retinue.host.access import (
    Caller,
    Policy,
    check_settings,
    digest,
    is_loopback,
    new_key,
    split_host,
    verify,
)


def test_a_key_is_256_random_bits_and_its_digest_is_sha256() -> None:
    key = new_key()
    assert key.startswith("rtn_")
    assert len(key) == 4 + 43
    assert new_key() != key
    assert digest(key) == "sha256:" + hashlib.sha256(key.encode()).hexdigest()
    assert key not in digest(key)


def test_verify_knows_any_of_the_keys_and_no_other() -> None:
    keys = [new_key() for _ in range(3)]
    digests = [digest(key) for key in keys]
    assert all(verify(key, digests) for key in keys)
    assert not verify(new_key(), digests)
    assert not verify(digests[0], digests)
    assert not verify("", digests)
    assert not verify(keys[0], [])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LocalHost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    check_settings(Server(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.com", ""])
def test_an_open_address_needs_keys_or_insecure(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="keys new"):
        check_settings(Server(host=host))
    check_settings(Server(host=host, insecure=True))
    check_settings(Server(host=host, api_keys=(digest(new_key()),)))


def test_a_key_in_place_of_its_digest_is_refused_and_not_repeated() -> None:
    key = new_key()
    with pytest.raises(ConfigError) as caught:
        check_settings(Server(api_keys=(key,)))
    assert "not a digest" in caught.value.message
    assert key not in caught.value.message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("localhost:8900", ("localhost", 8900)),
        ("Example.COM.", ("example.com", None)),
        ("[::1]:80", ("::1", 80)),
        ("10.0.0.1", ("10.0.0.1", None)),
    ],
)
def test_split_host(value: str, expected: tuple[str, int | None]) -> None:
    assert split_host(value) == expected


@pytest.mark.parametrize("value", ["", "a b", "user@host", "host/path", "host:port", "host:99999"])
def test_split_host_refuses(value: str) -> None:
    with pytest.raises(ValueError):
        split_host(value)


@given(st.text(max_size=40))
def test_any_host_header_is_accepted_or_refused_and_never_crashes(value: str) -> None:
    policy = Policy(Server())
    try:
        policy.check_host(Caller(hosts=(value,)))
    except AccessError:
        return
    assert is_loopback(split_host(value)[0])


def _host(policy: Policy, *hosts: str) -> bool:
    try:
        policy.check_host(Caller(hosts=hosts))
    except AccessError:
        return False
    return True


def test_on_loopback_only_loopback_names_are_answered() -> None:
    policy = Policy(Server())
    for good in ("localhost", "localhost:1", "127.0.0.1:8900", "[::1]:8900"):
        assert _host(policy, good)
    for bad in ("evil.example", "evil.example:8900", "192.168.1.7", "localhost.evil.example", ""):
        assert not _host(policy, bad)
    assert not _host(policy)
    assert not _host(policy, "localhost", "evil.example")


def test_on_an_open_address_any_address_and_the_named_hosts_are_answered() -> None:
    policy = Policy(Server(host="0.0.0.0", insecure=True, allowed_hosts=("Vision.Lan",)))
    for good in ("vision.lan:8900", "192.168.1.7:8900", "[fe80::1]", "localhost"):
        assert _host(policy, good)
    assert not _host(policy, "rebound.example")
    assert _host(Policy(Server(allowed_hosts=("*",))), "rebound.example")
    assert _host(Policy(Server(host="box.lan", insecure=True)), "box.lan")


def _origin(server: Server, origin: str = "", site: str = "", host: str = "localhost:8900") -> bool:
    try:
        Policy(server).check_origin(Caller(hosts=(host,), origin=origin, site=site))
    except AccessError:
        return False
    return True


@pytest.mark.parametrize(
    ("origin", "site", "good"),
    [
        ("", "", True),  # not a browser
        ("", "none", True),  # typed into the address bar
        ("http://localhost:8900", "same-origin", True),
        ("http://localhost:8900", "", True),  # a browser without Fetch Metadata
        ("http://localhost:3000", "same-site", False),
        ("http://localhost:3000", "", False),
        ("http://localhost:8900", "cross-site", False),
        ("https://evil.example", "cross-site", False),
        ("https://evil.example", "", False),
        ("", "cross-site", False),
        ("null", "", False),
        ("null", "cross-site", False),
        ("file://", "", False),
        ("http://localhost:8900.evil.example", "", False),
        ("http://[bad", "", False),
    ],
)
def test_origin(origin: str, site: str, good: bool) -> None:
    assert _origin(Server(), origin, site) is good


def test_origin_behind_a_proxy_and_default_ports() -> None:
    assert _origin(Server(), "https://vision.example", host="vision.example")
    assert _origin(Server(), "https://vision.example", host="vision.example:443")
    assert not _origin(Server(), "https://vision.example:8443", host="vision.example")


def test_a_named_origin_may_call() -> None:
    server = Server(allowed_origins=("https://Friend.example/",))
    assert _origin(server, "https://friend.example", "cross-site")
    assert _origin(server, "https://friend.example")
    assert not _origin(server, "https://friend.example.evil", "cross-site")
    assert not _origin(server, "", "cross-site")


def test_keys_by_either_header() -> None:
    key = new_key()
    policy = Policy(Server(api_keys=(digest(key),)))
    assert policy.needs_key
    policy.check_key(Caller(authorization=f"Bearer {key}"))
    policy.check_key(Caller(authorization=f"bearer  {key} "))
    policy.check_key(Caller(api_key=key))
    for wrong in (
        Caller(),
        Caller(authorization=f"Basic {key}"),
        Caller(authorization="Bearer"),
        Caller(authorization="Bearer x"),
        Caller(api_key="x"),
        Caller(api_key=digest(key)),
        Caller(api_key="ключ"),
    ):
        with pytest.raises(Unauthenticated):
            policy.check_key(wrong)


def test_without_keys_in_the_settings_none_is_asked_for() -> None:
    policy = Policy(Server())
    assert not policy.needs_key
    policy.check_key(Caller())


def test_a_client_is_its_key_where_keys_are_checked_else_its_address() -> None:
    key = new_key()
    by_key = Policy(Server(api_keys=(digest(key),)))
    shown = by_key.client_id(Caller(api_key=key), "192.0.2.1")
    assert shown == f"key:{digest(key).removeprefix('sha256:')[:12]}"
    assert by_key.client_id(Caller(authorization=f"Bearer {key}"), "192.0.2.2") == shown
    assert key not in shown
    for address in ("192.0.2.1", "::ffff:192.0.2.1"):  # the second on a socket of both families
        assert Policy(Server()).client_id(Caller(api_key=key), address) == "192.0.2.1"
