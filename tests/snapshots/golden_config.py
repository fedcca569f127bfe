"""A log of the service `config` in which every type of event of this version happens, except skipped commits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from runstream.codec import encode
from runstream.config_folding import ConfigFold
from runstream.domain.config.references import find_project, find_user
from runstream.domain.config.state import Change, Decision
from runstream.events.event import DomainEvent
from runstream.events.registry import EVENT_TYPES
from runstream.ids import derived_id
from runstream.log.port import RawMessage
from tests.domain.config.commands import decide
from tests.domain.config.test_properties import BEGIN
from tests.log.memory import MemoryLog
from tests.snapshots.golden_log import BEGAN

EXAMPLES = Path(__file__).parents[1] / "schema" / "golden"
MORE: list[tuple[Any, ...]] = [
    ("rename_user", "b", "c"),
    ("answer", "a", "c", "accept"),
    ("set_member", "a", "c", "owner"),
    ("remove_member", "a", "c"),
    ("change_org", "a", "private"),
    ("change_group", "org/a/g/h", "i", None, "private"),
    ("change_group", "org/a/g/i", "i", "org/a", None),
    ("change_project", "org/a/g/p", "q", None, "private"),
    ("rename_value", "secret", "project", "org/a/g/q", "s", "t"),
    ("rename_value", "variable", "projectgroup", "org/a", "s", "t"),
    ("create_user", "d"),
    ("create_project", "user/d", "p", "public"),
    ("create_value", "secret", "project", "user/d/p", "s"),
    ("create_value", "variable", "project", "user/d/p", "v"),
    ("delete_user", "d"),
    ("delete_org", "b"),
]
"""Commands behind those of `BEGIN`."""


def example(name: str, **replaced: str) -> DomainEvent:
    """The event of a golden file, with other ids."""
    (found,) = json.loads((EXAMPLES / f"{name}.1.json").read_bytes())["events"]
    text = json.dumps({key: value for key, value in found.items() if key not in ("type", "version")})
    for field, value in replaced.items():
        text = text.replace(f'"the {field}"', json.dumps(value))
    return msgspec.json.decode(text, type=EVENT_TYPES[name])


def decisions(fold: ConfigFold) -> Iterator[Decision]:
    """Yield decisions, each on the state that the ones before have left."""
    numbers = iter(range(1 << 30))

    def new_id() -> str:
        return derived_id("golden config", str(next(numbers)))

    for command in (*BEGIN, *MORE):
        yield decide(fold.state, new_id, *command)
    user, project = find_user(fold.state, "a").id, find_project(fold.state, "org/a/g/q").id
    source, other, account = new_id(), new_id(), new_id()
    ids = {"remote_source_id": source, "account_id": account, "linked_account_id": account}
    (secret,) = [one.id for one in fold.state.secrets.values()]
    (variable,) = [one.id for one in fold.state.variables.values()]
    for kind, key, names in (
        ("remotesource", other, ("RemoteSourceCreated", "RemoteSourceDeleted")),
        ("remotesource", source, ("RemoteSourceCreated", "RemoteSourceRenamed", "RemoteSourceSettingsChanged")),
        ("user", user, ("LinkedAccountAdded", "LinkedAccountChanged", "UserTokenCreated", "UserAdminChanged")),
        ("project", project, ("ProjectRepositoryChanged", "ProjectSettingsChanged", "ProjectWebhookSecretSealed")),
        ("secret", secret, ("SecretDataReplaced",)),
        ("variable", variable, ("VariableValuesReplaced",)),
        ("user", user, ("UserTokenDeleted", "LinkedAccountRemoved")),
    ):
        for name in names:
            if name == "LinkedAccountRemoved":  # the project names it
                yield [Change("project", project, (example("ProjectRepositoryChanged", remote_source_id=source),))]
            yield [Change(kind, key, (example(name, **ids),))]  # type: ignore[arg-type]


def golden_config() -> MemoryLog:
    """The log. Every commit of it fits."""
    log, fold, written = MemoryLog("golden", "config", partitions=1), ConfigFold(), 0
    for decision in decisions(fold):
        for change in decision:
            written += 1
            commit = fold.commit_of(change, time=BEGAN + timedelta(seconds=written), actor="user:ada", cause="why")
            commit = msgspec.structs.replace(commit, id=derived_id("golden commit", str(written)))
            body, headers = encode(commit)
            subject = log.subjects.of(commit.address)
            position = log.put(0, subject, body, headers)
            fold.take(RawMessage(subject, position, body, headers, commit.time))
    assert not fold.all_parked, fold.all_parked
    return log
