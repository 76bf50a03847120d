"""Values that settings have beside numbers and strings: durations, addresses, secrets.

Each is a type with a ``from_setting`` class method, which makes it from what YAML gave and raises
ValueError with what was expected; ``ebhpc.config.read_settings`` calls it. Plugins may use these types, and
add their own in the same way.
"""

from __future__ import annotations

import re
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

import isodate

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SHORT = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_LONGEST = 100 * 366 * 86400


def _seconds(text: str) -> float:
    if _SHORT.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    try:
        if not re.search(r"\d", text):
            raise ValueError
        duration = isodate.parse_duration(text)
    except (isodate.ISO8601Error, ValueError, OverflowError):
        raise ValueError(f"expected a duration such as 10s, 5m, 2h, 7d or PT10S, got {text!r}") from None
    if isinstance(duration, isodate.Duration):
        raise ValueError(f"expected a duration without years and months, whose length varies, got {text!r}")
    return float(duration.total_seconds())


class Seconds(float):
    """A duration in seconds, zero or more; written ``500ms``, ``10s``, ``1h30m``, ``7d``, or as ISO 8601."""

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a duration.

        Raises:
            ValueError: it is no duration, negative, or longer than a century.
        """
        if not isinstance(value, str):
            raise ValueError(f"expected a duration with its unit, such as '10s', got {value!r}")
        seconds = _seconds(value)
        if not 0 <= seconds <= _LONGEST:
            raise ValueError(f"expected a duration from 0s to 100 years, got {value!r}")
        return cls(seconds)


class Duration(Seconds):
    """A duration in seconds that is longer than zero; written as :class:`Seconds`."""

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a duration.

        Raises:
            ValueError: as for Seconds, or it is zero.
        """
        seconds = super().from_setting(value)
        if not seconds:
            raise ValueError(f"expected a duration longer than zero, got {value!r}")
        return seconds


class Address(str):
    """Where a server listens: ``HOST:PORT``, ``[IPv6]:PORT`` or ``unix:/path``. Port 0: any that is free."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read an address.

        Raises:
            ValueError: it is none.
        """
        if isinstance(value, str):
            if value.startswith("unix:/"):
                return cls(value)
            match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})", value)
            if match and int(match[2]) <= 65535:
                return cls(value)
        raise ValueError(f"expected an address such as 127.0.0.1:8080 or unix:/path, got {value!r}")

    @property
    def host(self) -> str | None:
        """The host, without the brackets of IPv6; None for a Unix socket."""
        return None if self.startswith("unix:") else self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int | None:
        """The port; None for a Unix socket."""
        return None if self.startswith("unix:") else int(self.rpartition(":")[2])


class WebAddress(str):
    """An http or https URL; a slash at its end is dropped."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a URL.

        Raises:
            ValueError: it is no http or https URL with a host, or it has a query or a fragment.
        """
        if isinstance(value, str):
            try:
                parts = urlsplit(value)
                usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
            except ValueError:
                usable = False
            if usable and not parts.query and not parts.fragment and not re.search(r"\s", value):
                return cls(value.rstrip("/"))
        raise ValueError(f"expected a URL such as https://broker.example.org, got {value!r}")


class Secret(str):
    """A string that ``repr`` does not show, so that it reaches no log by way of its settings."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Take a string.

        Raises:
            ValueError: it is no string, or empty. The value is not repeated.
        """
        if not isinstance(value, str) or not value:
            raise ValueError("expected a string that is not empty (it is not shown here)")
        return cls(value)

    def __repr__(self) -> str:
        return "'***'"


class DatabaseUrl(Secret):
    """A database: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``; ``repr`` hides its password."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a URL; ``postgresql:`` becomes SQLAlchemy's ``postgresql+psycopg:``.

        Raises:
            ValueError: it is no URL of these two. The value is not repeated: it may hold a password.
        """
        if isinstance(value, str):
            scheme, separator, rest = value.partition("://")
            if separator and scheme == "sqlite":
                return cls(value)
            if separator and scheme in ("postgresql", "postgres", "postgresql+psycopg"):
                return cls("postgresql+psycopg://" + rest)
        raise ValueError("expected sqlite:///PATH or postgresql://USER@HOST/NAME (it is not shown here)")

    def with_password(self, password: str) -> DatabaseUrl:
        """Return the URL with the user's password set.

        Raises:
            ValueError: the URL names no user, or has a password already.
        """
        parts = urlsplit(self)
        user, at, host = parts.netloc.rpartition("@")
        if not at or not user:
            raise ValueError("needs a user in url: postgresql://USER@HOST/NAME")
        if ":" in user:
            raise ValueError("url has a password already: leave it out, or this")
        return DatabaseUrl(urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}")))

    def __repr__(self) -> str:
        return repr(re.sub(r"(://[^/@:]*):[^@]*@", r"\1:***@", str(self)))
