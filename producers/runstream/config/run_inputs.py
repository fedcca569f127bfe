"""The variables and secrets of a project for its runs, the nearest first, from the config service."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from runstream.config.sealed import open_secret
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import path_of, place_of
from runstream.domain.config.secret import StoredSecret
from runstream.domain.config.state import ConfigState
from runstream.domain.config.tree import secrets_of, variables_of
from runstream.domain.config.variable import StoredVariable
from runstream.events.variable import NamePatterns, SecretValue, ValueCondition
from runstream.runconfig import variables as inputs
from runstream.runconfig.when import Conditions, Pattern, When
from runstream.sealing import Keyring


def run_inputs(state: ConfigState, project: Project, keyring: Keyring) -> inputs.InputValues:
    """Return the variables and opened secrets that runs of a project have, the nearest first.

    Raises InternalError for a secret whose key is missing.
    """
    return inputs.InputValues(
        tuple(_variable(state, one) for one in variables_of(state, project, tree=True, remove_overridden=True)),
        tuple(
            inputs.Secret(one.name, open_secret(keyring, one), parent_path(state, one))
            for one in secrets_of(state, project, tree=True)
        ),
    )


def parent_path(state: ConfigState, thing: StoredSecret | StoredVariable) -> str:
    """Return the path of the project or group that has a secret or variable."""
    return path_of(state, place_of(state, thing.parent))


InheritedSecrets: TypeAlias = Mapping[str, Sequence[inputs.Secret]]
"""The secrets that a project or group has, without their texts: of each name the nearest first."""


def inherited_secrets(state: ConfigState, seen_from: Project | ProjectGroup) -> InheritedSecrets:
    """Return the secrets that a project or group has, by name."""
    found: defaultdict[str, list[inputs.Secret]] = defaultdict(list)
    for one in secrets_of(state, seen_from, tree=True):
        found[one.name].append(inputs.Secret(one.name, {}, parent_path(state, one)))
    return found


def matching_secret_path(secrets: InheritedSecrets, value: SecretValue, variable_path: str) -> str:
    """Return the path of the place of a value's secret, for a variable of this place; empty without one."""
    wanted = inputs.VariableValue(value.secret_name, value.secret_var)
    found = inputs.matching_secret(wanted, variable_path, secrets.get(value.secret_name, ()))
    return found.parent_path if found is not None else ""


def _variable(state: ConfigState, variable: StoredVariable) -> inputs.Variable:
    values = tuple(inputs.VariableValue(one.secret_name, one.secret_var, when_of(one.when)) for one in variable.values)
    return inputs.Variable(variable.name, parent_path(state, variable), values=values)


def when_of(condition: ValueCondition | None) -> When | None:
    """Return a stored condition as the run configuration has it."""
    if condition is None:
        return None
    return When(_conditions(condition.branch), _conditions(condition.tag), _conditions(condition.ref))


def _conditions(patterns: NamePatterns | None) -> Conditions | None:
    if patterns is None:
        return None
    include, exclude = (
        tuple(Pattern(one.match, one.type) for one in those) for those in (patterns.include, patterns.exclude)
    )
    return Conditions(include, exclude)
