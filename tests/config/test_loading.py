"""load_config: files, lines, the platforms' directory, the environment, the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebhpc.config import Config, PlatformConfig, SettingsError, load_config

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home")}


def write(folder: Path, text: str, name: str = "ebhpc.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path, **options: object) -> list[str]:
    """Return the problems, the folder of the file cut from them."""
    with pytest.raises(SettingsError) as raised:
        load_config(path, environ={"HOME": "/home/x"}, **options)  # type: ignore[arg-type]
    return str(raised.value).replace(f"{path.parent}/", "").splitlines()


def test_without_a_file_there_is_one_local_platform_on_loopback_and_sqlite(home: dict[str, str]) -> None:
    config = load_config(environ=home)
    assert config.api.bind == "127.0.0.1:8080"
    assert config.state == Path(home["HOME"]) / ".local/state/ebhpc"
    assert config.database_url == f"sqlite:///{home['HOME']}/.local/state/ebhpc/ebhpc.sqlite3"
    assert [(platform.name, platform.kind) for platform in config.platforms] == [("local", "local")]


def test_an_empty_file_has_all_defaults_and_no_platform(tmp_path: Path, home: dict[str, str]) -> None:
    config = load_config(write(tmp_path, ""), environ=home)
    assert config.platforms == ()
    assert config.api == Config().api


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({"STATE_DIRECTORY": "/var/lib/ebhpc:/var/lib/other", "HOME": "/h"}, "/var/lib/ebhpc"),
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/ebhpc"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/ebhpc"),
        ({"EBHPC_STATE": "/e", "STATE_DIRECTORY": "/v"}, "/e"),
    ],
)
def test_the_state_directory_follows_the_environment(environ: dict[str, str], state: str) -> None:
    assert load_config(environ=environ).state == Path(state)


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    tmp_path: Path, home: dict[str, str]
) -> None:
    path = write(tmp_path, "state: /file\napi: {bind: '127.0.0.1:1', workers: 5}\ndatabase: {url: 'sqlite:///f'}")
    assert load_config(path, environ=home).state == Path("/file")
    home |= {"EBHPC_STATE": "/env", "EBHPC_DATABASE_URL": "postgresql://u@h/n"}
    config = load_config(path, environ=home, overrides={"api.bind": "127.0.0.1:2", "state": "/line"})
    assert config.state == Path("/line")
    assert config.database_url == "postgresql+psycopg://u@h/n"
    assert (config.api.bind, config.api.workers) == ("127.0.0.1:2", 5)


def test_a_wrong_override_names_where_it_came_from(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        load_config(
            environ={"HOME": "/h", "EBHPC_DATABASE_URL": "oracle://"},
            overrides={"api.bind": "nowhere", "api.bnd": 1, "nothing": 2, "driver.interval": "2m"},
        )
    assert str(raised.value).splitlines() == [
        "environment EBHPC_DATABASE_URL: database.url: expected sqlite:///PATH or"
        " postgresql://USER@HOST/NAME (it is not shown here)",
        "command line: api.bind: expected an address such as 127.0.0.1:8080 or unix:/path, got 'nowhere'",
        "command line: api.bnd: unknown setting; did you mean bind?",
        "command line: nothing: unknown setting; expected one of accounts, api, audit, database, driver, issuers,"
        " logging, offers, page, platforms, platforms_dir, policy, state, tracing",
        "command line: driver: interval must be shorter than lease, or leases run out between two looks",
    ]


def test_all_problems_of_all_files_are_reported_with_file_and_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
# the broker
api:
  bnd: 127.0.0.1:80
  workers: many
offers:
  lifetime: 300
platforms:
  - name: Good
    kind: local
  - name: one
    kind: local
    costs:
      monetary:
        per_core_hour: -1
  - {name: two}
""",
    )
    write(tmp_path, "kind: slurm\nrefresh: 0s\n", "platforms.d/three.yaml")
    write(tmp_path, "kind: slurm\nname: five\n", "platforms.d/four.yaml")
    assert problems(path) == [
        "ebhpc.yaml:3: api.bnd: unknown setting; did you mean bind?",
        "ebhpc.yaml:4: api.workers: expected an integer, got 'many'",
        "ebhpc.yaml:6: offers.lifetime: expected a duration with its unit, such as '10s', got 300",
        "ebhpc.yaml:8: platforms[0].name: expected 1 to 40 lower-case letters, digits and hyphens, got 'Good'",
        "ebhpc.yaml:14: platforms[1].costs.monetary.per_core_hour: expected a number >= 0.0, got -1",
        "ebhpc.yaml:15: platforms[2]: the setting kind is missing",
        "platforms.d/four.yaml:2: name: expected four, as the file is named",
        "platforms.d/three.yaml:2: refresh: expected a duration longer than zero, got '0s'",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("api: [", "ebhpc.yaml:1: is no YAML: expected the node content, but found '<stream end>'"),
        ("api: {bind: x}\n  b: c\n", "ebhpc.yaml:2: is no YAML: "),
        ("a: 1\n---\nb: 2\n", "ebhpc.yaml:2: is no YAML: but found another document"),
        ("a: *b\n", "ebhpc.yaml:1: is no YAML: found undefined alias"),
        ("a: !!python/object:os.system x\n", "ebhpc.yaml:1: is no YAML: could not determine a constructor"),
        ("- 1\n", "ebhpc.yaml:1: expected a mapping of settings at the top"),
        ("text\n", "ebhpc.yaml:1: expected a mapping of settings at the top"),
        ("state: /a\napi: {}\nstate: /b\n", "ebhpc.yaml:3: state: is given twice, first on line 1"),
        ("1: 2\n", "ebhpc.yaml:1: expected a key that is a string, got '1'; quote it"),
        ("? [a]\n: 1\n", "ebhpc.yaml:1: expected a key that is a string"),
        ("state: &a [*a]\n", "ebhpc.yaml:1: state[0]: an alias refers to what contains it"),
        ("state: 2026-13-45\n", "ebhpc.yaml:1: state: '2026-13-45' is no value: month must be in 1..12"),
        ("state: " + "[" * 5000, "ebhpc.yaml: is nested too deeply"),
        ("\0", "ebhpc.yaml: is no YAML: "),
        ("api:\n", "ebhpc.yaml:1: api: expected a mapping of settings, got nothing"),
        ("platforms: {a: 1}\n", "ebhpc.yaml:1: platforms: expected a list, got a mapping"),
        ("platforms:\n- a\n", "ebhpc.yaml:2: platforms[0]: expected a mapping of settings, got 'a'"),
        ("platforms_dir: nowhere\n", "ebhpc.yaml:1: platforms_dir: there is no directory nowhere"),
        (
            "driver:\n  retry_first: 2m\n",
            "ebhpc.yaml:1: driver: retry_first is longer than retry_most",
        ),
        (
            "platforms:\n- {name: a, kind: k, stale: 5s}\n",
            "ebhpc.yaml:2: platforms[0]: stale must be longer than refresh",
        ),
        (
            "platforms:\n- {name: a, kind: k, source: x}\n",
            "ebhpc.yaml:2: platforms[0].source: unknown setting",
        ),
        (
            "platforms:\n- {name: a, kind: k}\n- {name: a, kind: l}\n",
            "ebhpc.yaml:3: name: there is a platform a already: ebhpc.yaml:2",
        ),
        (
            "database:\n  url: postgresql://u@h/n\n  password_file: none\n",
            "ebhpc.yaml:3: database.password_file: cannot be read: ",
        ),
        (
            "logging: {level: loud}\n",
            "ebhpc.yaml:1: logging.level: expected one of debug, info, warning, error, got 'loud'",
        ),
    ],
)
def test_each_kind_of_wrong_file_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    found = problems(write(tmp_path, text))
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.yaml") == ["none.yaml: cannot be read: No such file or directory"]
    (tmp_path / "latin.yaml").write_bytes(b"state: /\xe4\n")
    assert problems(tmp_path / "latin.yaml") == ["latin.yaml: is no UTF-8 text (byte 8)"]


def test_platforms_come_from_the_list_and_from_the_directory(tmp_path: Path, home: dict[str, str]) -> None:
    path = write(tmp_path, "platforms_dir: sites\nplatforms: [{name: b, kind: local}]\n")
    write(tmp_path, "kind: slurm\nsettings: {partition: long}\n", "sites/c.yaml")
    write(tmp_path, "kind: htcondor\nname: a\nenabled: false\n", "sites/a.yaml")
    write(tmp_path, "not read", "sites/README.md")
    platforms = load_config(path, environ=home).platforms
    assert [(platform.name, platform.kind, platform.enabled) for platform in platforms] == [
        ("b", "local", True),
        ("a", "htcondor", False),
        ("c", "slurm", True),
    ]
    assert platforms[2].settings == {"partition": "long"}
    source = platforms[2].source
    assert source is not None
    assert (source.file, source.line(("settings", "partition"))) == (str(tmp_path / "sites/c.yaml"), 2)


def test_merge_keys_and_anchors_work_as_in_other_yaml_files(tmp_path: Path, home: dict[str, str]) -> None:
    path = write(
        tmp_path,
        "platforms:\n"
        "- &base {name: a, kind: k, timeout: 3s, metrics: {compute-performance: 2.5}}\n"
        "- {<<: *base, name: b, timeout: 4s}\n",
    )
    first, second = load_config(path, environ=home).platforms
    assert (first.timeout, second.timeout, second.metrics.compute_performance) == (3, 4, 2.5)


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, home: dict[str, str]) -> None:
    write(tmp_path, "hush\nmore\n", "secrets/db")
    path = write(
        tmp_path,
        "state: run\ndatabase: {url: 'postgresql://u@h/n', password_file: secrets/db}\n",
    )
    config = load_config(path, environ=home)
    assert config.state == tmp_path / "run"
    assert config.database_url == "postgresql+psycopg://u:hush@h/n"
    assert "hush" not in repr(config)


def test_the_file_in_conf_is_the_default_and_shows_every_setting(home: dict[str, str], tmp_path: Path) -> None:
    """As it stands, and with every commented setting taken in, it gives the embedded default."""
    original = (REPOSITORY / "conf" / "ebhpc.yaml").read_text(encoding="utf-8")
    plain = write(tmp_path, original, "plain/ebhpc.yaml")
    lines = []
    for line in original.splitlines():
        stripped = line.lstrip()
        setting = stripped.startswith("#") and not stripped.startswith("# ") and stripped != "#"
        lines.append(line.replace("#", "", 1) if setting else line)
    full = write(tmp_path, "\n".join(lines), "full/ebhpc.yaml")
    (tmp_path / "full" / "platforms.d").mkdir()
    default = load_config(environ=home)
    for path in (plain, full):
        config = load_config(path, environ=home)
        assert [platform.source for platform in config.platforms] != [None]
        for name in ("state", "database", "api", "offers", "driver", "accounts", "logging"):
            assert getattr(config, name) == getattr(default, name), name
        (platform,) = config.platforms
        for name in PlatformConfig.__struct_fields__:
            if name not in ("source", "settings"):
                assert getattr(platform, name) == getattr(default.platforms[0], name), name
        # A service fetches from public addresses only; who starts the default on their own machine is on it already
        assert platform.settings == {}
        assert default.platforms[0].settings == {"private_networks": ["127.0.0.0/8", "::1/128"]}
