"""Durations, addresses, URLs and secrets as settings."""

from __future__ import annotations

import pytest

from ebhpc.config import (
    Accounts,
    Address,
    DatabaseUrl,
    Duration,
    PlatformConfig,
    Seconds,
    SettingsError,
    WebAddress,
    read_settings,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("5m", 300),
        ("2h", 7200),
        ("7d", 604800),
        ("1w", 604800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("PT90M", 5400),
        ("P1D", 86400),
        ("P1W", 604800),
        ("PT0S", 0),
        ("0s", 0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert Seconds.from_setting(text) == seconds


@pytest.mark.parametrize(
    "value", [10, 1.5, "10", "", "s", "5 m", "-5m", "-PT5M", "P1M", "P1Y", "PT", "900000d", None, True, [], "1e9s"]
)
def test_what_is_no_plain_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        Seconds.from_setting(value)


def test_a_duration_of_zero_is_refused_where_it_would_never_end() -> None:
    with pytest.raises(ValueError, match="longer than zero"):
        Duration.from_setting("0s")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("localhost:0", "localhost", 0),
        ("[::1]:443", "::1", 443),
        ("unix:/run/ebhpc.sock", None, None),
    ],
)
def test_addresses_are_read(text: str, host: str | None, port: int | None) -> None:
    address = Address.from_setting(text)
    assert (address, address.host, address.port) == (text, host, port)


@pytest.mark.parametrize("value", ["8080", ":8080", "host", "host:", "host:70000", "::1:80", "a b:1", 8080, None])
def test_what_is_no_address_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected an address"):
        Address.from_setting(value)


def test_a_web_address_loses_its_last_slash() -> None:
    assert WebAddress.from_setting("https://broker.example.org/x/") == "https://broker.example.org/x"


@pytest.mark.parametrize(
    "value", ["broker.example.org", "ftp://x", "http://", "http://x?q=1", "http://x:99999", "http://[", "http://a b", 1]
)
def test_what_is_no_web_address_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a URL"):
        WebAddress.from_setting(value)


@pytest.mark.parametrize("value", ["", "A", "a b", "a" * 41, "ä", "a_b", 1, None, "a\n"])
def test_what_is_no_platform_name_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=r"name: expected 1 to 40 lower-case letters"):
        read_settings(PlatformConfig, {"name": value, "kind": "x"})


@pytest.mark.parametrize("value", ["", "a:b", "a\n", 1, None])
def test_what_is_no_username_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=r"admin: expected a username"):
        read_settings(Accounts, {"admin": value})


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("sqlite:////var/lib/ebhpc/e.db", "sqlite:////var/lib/ebhpc/e.db"),
        ("postgresql://u@h/n", "postgresql+psycopg://u@h/n"),
        ("postgresql+psycopg://u:p@h:5433/n", "postgresql+psycopg://u:p@h:5433/n"),
    ],
)
def test_database_urls_are_read(given: str, url: str) -> None:
    assert DatabaseUrl.from_setting(given) == url


@pytest.mark.parametrize("value", ["mysql://u:hush@h/n", "hush", "", None, 3])
def test_another_database_is_refused_without_showing_the_value(value: object) -> None:
    with pytest.raises(ValueError, match="expected sqlite") as raised:
        DatabaseUrl.from_setting(value)
    assert "hush" not in str(raised.value)


def test_a_database_password_is_quoted_into_the_url_and_hidden_in_its_repr() -> None:
    url = DatabaseUrl.from_setting("postgresql://u@h:1/n").with_password("p@ss:/ü")
    assert url == "postgresql+psycopg://u:p%40ss%3A%2F%C3%BC@h:1/n"
    assert repr(url) == "'postgresql+psycopg://u:***@h:1/n'"


@pytest.mark.parametrize(
    ("url", "problem"), [("sqlite:///x", "needs a user"), ("postgresql://u:p@h/n", "has a password already")]
)
def test_a_password_that_fits_nowhere_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DatabaseUrl.from_setting(url).with_password("x")
