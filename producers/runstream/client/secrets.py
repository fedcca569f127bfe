"""Secrets and variables of projects and project groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from runstream.api import SecretView, VariableView
from runstream.client.config_types import NewVariableValue
from runstream.client.paths import api_path, point
from runstream.client.session import Session

Owner = Literal["projects", "projectgroups"]
"""What has a secret or a variable, as paths of the API name it."""


class Secrets:
    """Operations on the secrets of projects, or of project groups; data is sealed by the service, never returned."""

    def __init__(self, session: Session, owner: Owner) -> None:
        self._session = session
        self._owner = owner

    async def list(
        self, ref: str, *, tree: bool = False, remove_overridden: bool = False, at: str = ""
    ) -> tuple[SecretView, ...]:
        """Return the secrets of a project or group; with `tree` those of the groups above it as well.

        With `remove_overridden`, only the nearest of each name; with `at` as of a time (with its zone) or a position of
        the config log. Raises ClientError (not-exist).
        """
        params = {**_listing(tree=tree, remove_overridden=remove_overridden), **point(at)}
        return await self._session.read(api_path(self._owner, ref, "secrets"), tuple[SecretView, ...], params)

    async def create(self, ref: str, name: str, data: Mapping[str, str]) -> SecretView:
        """Create a secret. Raises ClientError (bad-request: `secretAlreadyExists`, `invalidSecretName`)."""
        body = {"name": name, "type": "internal", "data": data}
        return await self._session.write("POST", api_path(self._owner, ref, "secrets"), body, SecretView)

    async def update(self, ref: str, name: str, data: Mapping[str, str], *, new_name: str = "") -> SecretView:
        """Replace the data of a secret, and its name. Raises ClientError (not-exist, `secretDoesNotExist`)."""
        body = {"name": new_name or name, "type": "internal", "data": data}
        return await self._session.write("PUT", api_path(self._owner, ref, "secrets", name), body, SecretView)

    async def delete(self, ref: str, name: str) -> None:
        """Delete a secret. Raises ClientError (not-exist, `secretDoesNotExist`)."""
        await self._session.write("DELETE", api_path(self._owner, ref, "secrets", name), None, type(None))


class Variables:
    """Operations on the variables of projects, or of project groups."""

    def __init__(self, session: Session, owner: Owner) -> None:
        self._session = session
        self._owner = owner

    async def list(
        self, ref: str, *, tree: bool = False, remove_overridden: bool = False, at: str = ""
    ) -> tuple[VariableView, ...]:
        """Return the variables of a project or group, as `list` of secrets does. Raises ClientError (not-exist)."""
        params = {**_listing(tree=tree, remove_overridden=remove_overridden), **point(at)}
        return await self._session.read(api_path(self._owner, ref, "variables"), tuple[VariableView, ...], params)

    async def create(self, ref: str, name: str, values: Sequence[NewVariableValue]) -> VariableView:
        """Create a variable. Raises ClientError (bad-request: `variableAlreadyExists`, `invalidVariableName`)."""
        body = {"name": name, "values": values}
        return await self._session.write("POST", api_path(self._owner, ref, "variables"), body, VariableView)

    async def update(
        self, ref: str, name: str, values: Sequence[NewVariableValue], *, new_name: str = ""
    ) -> VariableView:
        """Replace the values of a variable, and its name. Raises ClientError (not-exist, `variableDoesNotExist`)."""
        body = {"name": new_name or name, "values": values}
        return await self._session.write("PUT", api_path(self._owner, ref, "variables", name), body, VariableView)

    async def delete(self, ref: str, name: str) -> None:
        """Delete a variable. Raises ClientError (not-exist, `variableDoesNotExist`)."""
        await self._session.write("DELETE", api_path(self._owner, ref, "variables", name), None, type(None))


def _listing(*, tree: bool, remove_overridden: bool) -> dict[str, str]:
    """Return the query of a list; the service looks only at which parameters are there."""
    given = {"tree": tree, "removeoverridden": remove_overridden}
    return {name: "1" for name, wanted in given.items() if wanted}
