"""services_config_test.json: the settings of the model that this service has, too, have the same defaults.

The files themselves are not read: the model has a service, a database and an address for each component, ours one
process with settings of its own (docs/reference/settings.md). So of each case the groups below apply.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runstream.policies import parse_age
from runstream.settings import Settings

from .cases import cases

ELSEWHERE = {
    "id": "no commit statuses yet, which the name is for",
    "api_exposed_url": "one exposed_url",
    "web_exposed_url": "one exposed_url",
    "runservice_url": "components share the log, and do not call each other",
    "configstore_url": "components share the log, and do not call each other",
    "gitserver_url": "the gateway serves git itself",
    "notification_url": "components share the log, and do not call each other",
    "internal_services_api_token": "no internal APIs",
    "runservice_api_token": "no internal APIs",
    "executor_api_token": "no internal APIs",
    "configstore_api_token": "no internal APIs",
    "gitserver_api_token": "no internal APIs",
    "notification_api_token": "no internal APIs",
    "scheduler": "nothing but the URL of another service",
    "notification": "not there yet",
    "configstore": "its data is in the log; database and object storage are those of the whole service",
}
WITHOUT_DATA_DIR = "test config for gitserver without dataDir"
"""Ours has a default for its data directory, so a file without one is no error."""


@cases("services_config_test.json")
def test_the_defaults_of_settings(case: dict[str, Any]) -> None:
    if case["name"] == WITHOUT_DATA_DIR:
        pytest.skip("there is a default data directory")
    config, ours = case["expect"]["config"], Settings(data_dir=Path("/nowhere"))
    gateway, executor, gitserver = config["gateway"], config["executor"], config["gitserver"]
    runservice, retention = config["runservice"], ours.retention
    assert gateway["cookie_signing"]["duration"] == ours.session_seconds * 10**9
    assert gateway["organization_member_adding_mode"] == ours.member_adding
    assert gitserver["repository_refs_expire_interval"] == _nanoseconds(ours.git_refs_age)
    assert runservice["run_cache_expire_interval"] == _nanoseconds(retention.caches.age)
    assert runservice["run_workspace_expire_interval"] == _nanoseconds(retention.archives)
    assert runservice["run_log_expire_interval"] == _nanoseconds(retention.logs)
    if "activeTasksLimit" not in case["config"]:
        assert executor["active_tasks_limit"] == ours.executor.active_tasks_limit
    assert {*config} - {"gateway", "executor", "gitserver", "runservice"} <= ELSEWHERE.keys()


def _nanoseconds(text: str) -> int:
    age = parse_age(text)
    assert age is not None
    return int(age.total_seconds()) * 10**9
