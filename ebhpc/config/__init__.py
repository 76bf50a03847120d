"""Settings: conf/ebhpc.yaml and platforms.d/*.yaml to typed, checked values.

- ``load_config`` reads the files; ``Config`` holds the result, ``PlatformConfig`` one platform's part of it.
- ``read_settings`` is for plugins: their own block to a Struct of theirs.
- ``SettingsError`` names every problem with file, line, key and what was expected.
- ``Seconds``, ``Duration``, ``Address``, ``WebAddress``, ``Secret``, ``DatabaseUrl``: types of values.
"""

from ebhpc.config.identity import Audit, Issuer, Network, Proxy, Rate
from ebhpc.config.loading import load_config
from ebhpc.config.problems import SettingsError, SettingsProblem, Source
from ebhpc.config.reading import read_settings, setting_fields
from ebhpc.config.rules import SitePolicy, Who
from ebhpc.config.settings import (
    Accounts,
    Api,
    Config,
    Costs,
    Database,
    Driver,
    Logging,
    Metrics,
    Offers,
    Page,
    PlatformConfig,
    Rates,
)
from ebhpc.config.values import (
    Address,
    DatabaseUrl,
    Duration,
    Seconds,
    Secret,
    WebAddress,
)

__all__ = [
    "Accounts",
    "Address",
    "Api",
    "Audit",
    "Config",
    "Costs",
    "Database",
    "DatabaseUrl",
    "Driver",
    "Duration",
    "Issuer",
    "Logging",
    "Page",
    "Metrics",
    "Network",
    "Offers",
    "PlatformConfig",
    "Proxy",
    "Rate",
    "Rates",
    "Seconds",
    "Secret",
    "SettingsError",
    "SettingsProblem",
    "SitePolicy",
    "Source",
    "WebAddress",
    "Who",
    "load_config",
    "read_settings",
    "setting_fields",
]
