"""Decisions on secrets and variables of projects and project groups."""

from __future__ import annotations

from collections.abc import Mapping

from runstream.domain.config.references import path_of, place_of
from runstream.domain.config.refusals import missing, require_choice, require_name, taken
from runstream.domain.config.secret import StoredSecret
from runstream.domain.config.state import Change, ConfigState, Decision
from runstream.domain.config.variable import StoredVariable
from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.events.run_config import Sealed
from runstream.events.secret import SecretCreated, SecretDataReplaced, SecretDeleted, SecretRenamed, TreePlace
from runstream.events.variable import (
    SecretValue,
    VariableCreated,
    VariableDeleted,
    VariableRenamed,
    VariableValuesReplaced,
)


def require_secret_data(type_: str, data: Mapping[str, object]) -> None:
    """Raise BadRequestError for a type that is not supported, and for a secret without texts."""
    require_choice(type_, ("internal",), "the type of a secret", code="invalidSecretType")
    if not data:
        raise BadRequestError("the data of the secret is missing", code="invalidSecretData", hint="give KEY: TEXT")


def find_secret(state: ConfigState, parent: TreePlace, name: str) -> StoredSecret:
    """Return the secret of this name of a project or group itself. Raises NotExistError `secretDoesNotExist`."""
    found = state.named("secret", parent.id, name)
    if found is None:
        raise missing("secret", name, code="secretDoesNotExist")
    return state.secrets[found]


def decide_create_secret(
    state: ConfigState, *, secret_id: str, parent: TreePlace, name: str, data: Mapping[str, Sealed]
) -> Decision:
    """Create a secret; its texts are sealed for this id, parent and key."""
    _require_secret_name(state, parent, name)
    require_secret_data("internal", data)
    return [Change("secret", secret_id, (SecretCreated(name, parent, dict(data)),))]


def decide_change_secret(
    state: ConfigState, secret: StoredSecret, *, name: str | None = None, data: Mapping[str, Sealed] | None = None
) -> Decision:
    """Rename a secret, or replace its texts; None leaves a value as it is."""
    events: list[DomainEvent] = []
    if name is not None and name != secret.name:
        _require_secret_name(state, secret.parent, name)
        events.append(SecretRenamed(name))
    if data is not None:
        require_secret_data("internal", data)
        events.append(SecretDataReplaced(dict(data)))
    return [Change("secret", secret.id, tuple(events))] if events else []


def decide_delete_secret(secret: StoredSecret) -> Decision:
    """Delete a secret; variables that name it have no value any more."""
    return [Change("secret", secret.id, (SecretDeleted(),))]


def _require_secret_name(state: ConfigState, parent: TreePlace, name: str) -> None:
    require_name(name, "a secret", code="invalidSecretName")
    if state.named("secret", parent.id, name) is not None:
        raise taken("secret", name, code="secretAlreadyExists", below=path_of(state, place_of(state, parent)))


def find_variable(state: ConfigState, parent: TreePlace, name: str) -> StoredVariable:
    """Return the variable of this name of a project or group itself. Raises NotExistError `variableDoesNotExist`."""
    found = state.named("variable", parent.id, name)
    if found is None:
        raise missing("variable", name, code="variableDoesNotExist")
    return state.variables[found]


def decide_create_variable(
    state: ConfigState, *, variable_id: str, parent: TreePlace, name: str, values: tuple[SecretValue, ...]
) -> Decision:
    """Create a variable; the secrets of its values need not exist yet."""
    _require_variable_name(state, parent, name)
    _require_values(values)
    return [Change("variable", variable_id, (VariableCreated(name, parent, values),))]


def decide_change_variable(
    state: ConfigState,
    variable: StoredVariable,
    *,
    name: str | None = None,
    values: tuple[SecretValue, ...] | None = None,
) -> Decision:
    """Rename a variable, or replace its values; None leaves a value as it is."""
    events: list[DomainEvent] = []
    if name is not None and name != variable.name:
        _require_variable_name(state, variable.parent, name)
        events.append(VariableRenamed(name))
    if values is not None:
        _require_values(values)
        if values != variable.values:
            events.append(VariableValuesReplaced(values))
    return [Change("variable", variable.id, tuple(events))] if events else []


def decide_delete_variable(variable: StoredVariable) -> Decision:
    """Delete a variable."""
    return [Change("variable", variable.id, (VariableDeleted(),))]


def _require_variable_name(state: ConfigState, parent: TreePlace, name: str) -> None:
    require_name(name, "a variable", code="invalidVariableName")
    if state.named("variable", parent.id, name) is not None:
        raise taken("variable", name, code="variableAlreadyExists", below=path_of(state, place_of(state, parent)))


def _require_values(values: tuple[SecretValue, ...]) -> None:
    if not values or not all(value.secret_name and value.secret_var for value in values):
        raise BadRequestError(
            "a value has no secret_name or no secret_var" if values else "the variable has no values",
            code="invalidVariableValues",
            hint="a value names a secret and one of its keys: {secret_name: …, secret_var: …}",
        )
