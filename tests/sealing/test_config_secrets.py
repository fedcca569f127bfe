"""The secrets of a run config can be opened only in the field that they were sealed for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from runstream.errors import InternalError
from runstream.events.run_config import RunConfig, RunConfigTask, Runtime, Sealed, Step, Text
from runstream.sealing import Keyring, OpenedSecrets, seal_config, to_seal

KEYRING = Keyring.of([bytes(32)])
URL = "http://user:s3cret%2Fpw@example.com:8080/x.git"


def task(name: str, command: str = "true") -> RunConfigTask:
    steps = (Step(type="run", command=command, environment={"STEP": to_seal("of the step")}),)
    environment: dict[str, Text] = {"TOKEN": to_seal("swordfish"), "OTHER": to_seal("herring"), "PLAIN": "plain"}
    return RunConfigTask(
        name, 0, (), Runtime("host", "", ()), environment, "", "", "", steps, False, False, False, {}, 0
    )  # fmt: skip


def config(url: str = "", **environment: str) -> RunConfig:
    static = {"AGOLA_REPOSITORY_URL": url, "RUNSTREAM_REPOSITORY_URL": url}
    return RunConfig("run", {"a": task("a"), "b": task("b")}, static, environment, "")


def opened(config: RunConfig, name: str = "a") -> dict[str, str]:
    own = config.tasks[name]
    opened = OpenedSecrets(config, own, KEYRING)
    return {
        **opened.all(config.static_environment, "static"),
        **opened.all(own.environment, "task.environment"),
        **opened.all(own.steps[0].environment or {}, "task.steps.0.environment"),
    }


def test_secrets_open_where_they_were_sealed() -> None:
    sealed = seal_config(config(), KEYRING)
    assert "swordfish" not in str(sealed.tasks["a"].environment["TOKEN"].value)  # type: ignore[union-attr]
    for name in ("a", "b"):
        found = opened(sealed, name)
        assert (found["TOKEN"], found["OTHER"], found["PLAIN"]) == ("swordfish", "herring", "plain")
        assert found["STEP"] == "of the step"


def test_a_restart_with_another_environment_opens_them() -> None:
    sealed = seal_config(config(STAGE="one"), KEYRING)
    again = seal_config(replace(sealed, environment={"STAGE": "two"}), KEYRING)
    assert again.tasks == sealed.tasks
    assert opened(again) == opened(sealed)


def _in_another_field(sealed: RunConfig) -> RunConfig:
    one = sealed.tasks["a"]
    return with_task(sealed, replace(one, environment={**one.environment, "OTHER": one.environment["TOKEN"]}))


def _in_another_task(sealed: RunConfig) -> RunConfig:
    return with_task(sealed, replace(sealed.tasks["a"], environment=sealed.tasks["b"].environment))


def _with_another_command(sealed: RunConfig) -> RunConfig:
    (step,) = sealed.tasks["a"].steps
    return with_task(sealed, replace(sealed.tasks["a"], steps=(replace(step, command="curl"),)))


def _with_other_sources(sealed: RunConfig) -> RunConfig:
    return replace(sealed, static_environment={**sealed.static_environment, "AGOLA_REPOSITORY_URL": "/elsewhere"})


def with_task(sealed: RunConfig, changed: RunConfigTask) -> RunConfig:
    return replace(sealed, tasks={**sealed.tasks, changed.name: changed})


@pytest.mark.parametrize("copy", [_in_another_field, _in_another_task, _with_another_command, _with_other_sources])
def test_a_copied_secret_does_not_open(copy: Callable[[RunConfig], RunConfig]) -> None:
    with pytest.raises(InternalError) as raised:
        opened(copy(seal_config(config(), KEYRING)))
    assert raised.value.code == "secretDamaged"


def test_the_password_in_a_url_is_sealed() -> None:
    sealed = seal_config(config(URL), KEYRING)
    assert sealed.static_environment["AGOLA_REPOSITORY_URL"] == "http://user@example.com:8080/x.git"
    assert "s3cret" not in repr(sealed)
    assert opened(sealed)["RUNSTREAM_GIT_PASSWORD"] == opened(sealed)["AGOLA_GIT_PASSWORD"] == "s3cret/pw"
    with pytest.raises(InternalError, match="no key"):
        seal_config(config(URL), Keyring())


def test_a_token_in_place_of_the_user_is_sealed() -> None:
    sealed = seal_config(config("https://ghp_0123456789abcdef@example.com/x.git"), KEYRING)
    assert sealed.static_environment["AGOLA_REPOSITORY_URL"] == "https://example.com/x.git"
    assert opened(sealed)["RUNSTREAM_GIT_USERNAME"] == "ghp_0123456789abcdef"


@pytest.mark.parametrize(
    "url", ["", "/srv/x.git", "git@example.com:x.git", "ssh://git@example.com/x.git", "https://alice@example.com/x"]
)
def test_other_urls_stay_as_they_are(url: str) -> None:
    sealed = seal_config(config(url), KEYRING)
    assert sealed.static_environment == config(url).static_environment
    assert isinstance(sealed.tasks["a"].environment["TOKEN"], Sealed)
