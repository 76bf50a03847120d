"""Settings: conf/ebhpc.yaml and platforms.d/*.yaml to typed, checked values.

- ``load_config`` reads the files; ``Config`` holds the result, ``PlatformConfig`` one platform's part of it.
- ``read_settings`` is for plugins: their own block to a Struct of theirs.
- ``SettingsError`` names every problem with file, line, key and what was expected.
- ``Seconds``, ``Duration``, ``Address``, ``WebAddress``, ``Secret``, ``DatabaseUrl``: types of values.
"""

from ebhpc.config.loading import load_config
from ebhpc.config.problems import SettingsError, SettingsProblem, Source
from ebhpc.config.reading import read_settings, setting_fields
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
    "Config",
    "Costs",
    "Database",
    "DatabaseUrl",
    "Driver",
    "Duration",
    "Logging",
    "Metrics",
    "Offers",
    "PlatformConfig",
    "Rates",
    "Seconds",
    "Secret",
    "SettingsError",
    "SettingsProblem",
    "Source",
    "WebAddress",
    "load_config",
    "read_settings",
    "setting_fields",
]
