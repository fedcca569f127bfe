"""Each setting comes from the first that gives it: option, environment, settings file, default."""

from __future__ import annotations

from pathlib import Path

import pytest
from cyclopts import App, CoercionError

from runstream.errors import BadRequestError
from runstream.service.configuration import KEYS, OfService, Service, load_settings


def test_the_nearest_one_wins(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('port = 1\npartitions = 2\nnamespace = "of-file"\n[executor]\nactive_tasks_limit = 7\n')
    environ = {"RUNSTREAM_PORT": "3", "RUNSTREAM_PARTITIONS": "4", "RUNSTREAM_EXECUTOR_SANDBOX": "off"}
    settings = load_settings({"port": 5, "host": None}, environ, file)
    assert (settings.port, settings.partitions, settings.namespace) == (5, 4, "of-file")
    assert (settings.executor.active_tasks_limit, settings.executor.sandbox) == (7, "off")
    assert settings.host == "127.0.0.1"


def test_a_settings_file_is_read_as_a_run_configuration_is(tmp_path: Path) -> None:
    file = tmp_path / "settings.yml"
    file.write_text(
        "\ufeffport: 0x10\r\nnamespace: 'on'\r\n"
        "executor: {labels: {zone: a:b, is?: no}, lease_seconds: 20, sandbox_readonly: [/a:b, /c d]}\r\n"
    )
    settings = load_settings({}, {}, file)
    assert (settings.port, settings.namespace) == (16, "on")
    assert settings.executor.labels == {"zone": "a:b", "is?": "no"}
    assert settings.executor.sandbox_readonly == ("/a:b", "/c d")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ), "line 6: more than 100000 values"),
        ("port: 1\nport: 2\n", "line 2: key \"port\" is given twice"),
        ("port: !!set x\n", "line 1: unknown tag"),
        ("a: 1\n---\nb: 2\n", "line 2: the file holds more than one document"),
        ("[" * 100, "line 1: nested deeper than 64 levels"),
        ("\xff", "it is not UTF-8"),
    ],
)  # fmt: skip
def test_an_unreadable_settings_file_is_reported_by_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "settings.yml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadRequestError) as raised:
        load_settings({}, {}, file)
    assert raised.value.code == "invalidSettings"
    assert f"the settings file {file} cannot be read: {problem}" in str(raised.value)


def test_lists_and_labels_of_the_environment() -> None:
    environ = {"RUNSTREAM_COMPONENTS": "gateway, scheduler", "RUNSTREAM_EXECUTOR_LABELS": "rack=b2,zone=1"}
    settings = load_settings({}, environ, None)
    assert settings.components == ("gateway", "scheduler")
    assert settings.executor.labels == {"rack": "b2", "zone": "1"}


def test_unrelated_environment_variables_are_ignored() -> None:
    strangers = {"RUNSTREAM_NATS_ADMIN_URL": "nats://x", "RUNSTREAM_URL": "http://x", "RUNSTREAM_PORT": ""}
    assert load_settings({}, strangers, None) == load_settings({}, {}, None)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("data_dir", "objects_dir", "executor.labels")])
def test_every_wrong_type_is_reported_by_name(key: str) -> None:
    with pytest.raises(BadRequestError, match=key.removeprefix("executor.")):
        load_settings({key: {"a": [1]}}, {}, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUNSTREAM_PARTITIONS", "many"),
        ("RUNSTREAM_PARTITIONS", "257"),
        ("RUNSTREAM_REPLICAS", "2"),
        ("RUNSTREAM_NAMESPACE", "a.b"),
        ("RUNSTREAM_DATABASE_SCHEMA", "Upper"),
        ("RUNSTREAM_NATS_URL", "http://x"),
        ("RUNSTREAM_EXECUTOR_LABELS", "rack"),
        ("RUNSTREAM_COMPONENTS", ","),
    ],
)
def test_every_wrong_value_is_told_by_where_it_was_given(name: str, value: str) -> None:
    with pytest.raises(BadRequestError, match=f"^{name}: "):
        load_settings({}, {name: value}, None)


@pytest.mark.parametrize(
    ("word", "service"),
    [("runs", "runs"), ("runservice", "runs"), ("config", "config"), ("configstore", "config")],
)
def test_a_service_has_the_name_of_the_model_too(word: str, service: str) -> None:
    def command(*, service: Service | None = None, of: OfService = "runs") -> tuple[str | None, str]:
        return service, of

    app = App(result_action="return_value")
    app.default(command)
    assert app(["--service", word, "--of", word], exit_on_error=False) == (service, service)
    assert app([], exit_on_error=False) == (None, "runs")
    with pytest.raises(CoercionError, match='"all" is none of "runs", "config"'):
        app(["--service", "all"], exit_on_error=False, print_error=False)
