"""Each setting comes from the first that gives it: option, environment, settings file, default."""

from __future__ import annotations

from pathlib import Path

import pytest

from runstream.errors import BadRequestError
from runstream.service.configuration import KEYS, load_settings


def test_the_nearest_one_wins(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('port = 1\npartitions = 2\nnamespace = "of-file"\n[executor]\nactive_tasks_limit = 7\n')
    environ = {"RUNSTREAM_PORT": "3", "RUNSTREAM_PARTITIONS": "4", "RUNSTREAM_EXECUTOR_SANDBOX": "off"}
    settings = load_settings({"port": 5, "host": None}, environ, file)
    assert (settings.port, settings.partitions, settings.namespace) == (5, 4, "of-file")
    assert (settings.executor.active_tasks_limit, settings.executor.sandbox) == (7, "off")
    assert settings.host == "127.0.0.1"


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
