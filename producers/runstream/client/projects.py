"""Project groups and projects."""

from __future__ import annotations

from runstream.api import ProjectGroupView, ProjectView
from runstream.client.config_types import CommitChoice, NewProject, ProjectChanges, ProjectGroupChanges, Visibility
from runstream.client.paths import api_path, point
from runstream.client.session import Session


class ProjectGroups:
    """Operations on project groups; one is named by its path, such as `org/acme/web`, or its id."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, group: str, *, at: str = "") -> ProjectGroupView:
        """Return a project group; with `at` as of a time (with its zone) or a position of the config log.

        Raises ClientError (not-exist, `projectGroupDoesNotExist`).
        """
        return await self._session.read(api_path("projectgroups", group), ProjectGroupView, point(at))

    async def groups(self, group: str, *, at: str = "") -> tuple[ProjectGroupView, ...]:
        """Return the groups directly in a group. Raises ClientError (not-exist)."""
        path = api_path("projectgroups", group, "subgroups")
        return await self._session.read(path, tuple[ProjectGroupView, ...], point(at))

    async def projects(self, group: str, *, at: str = "") -> tuple[ProjectView, ...]:
        """Return the projects directly in a group. Raises ClientError (not-exist)."""
        path = api_path("projectgroups", group, "projects")
        return await self._session.read(path, tuple[ProjectView, ...], point(at))

    async def create(self, name: str, parent: str = "", *, visibility: Visibility = "public") -> ProjectGroupView:
        """Create a group in another one; without `parent` in the group of the token's user. Raises ClientError."""
        body = {"name": name, "parent_ref": parent, "visibility": visibility}
        return await self._session.write("POST", "/projectgroups", body, ProjectGroupView)

    async def update(self, group: str, changes: ProjectGroupChanges) -> ProjectGroupView:
        """Rename, move, publish or hide a group. Raises ClientError."""
        return await self._session.write("PUT", api_path("projectgroups", group), changes, ProjectGroupView)

    async def delete(self, group: str) -> None:
        """Delete a group with everything in it. Raises ClientError (not-exist)."""
        await self._session.write("DELETE", api_path("projectgroups", group), None, type(None))


class Projects:
    """Operations on projects; one is named by its path, such as `org/acme/web/site`, or its id."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, project: str, *, at: str = "") -> ProjectView:
        """Return a project; with `at` as of a time (with its zone) or a position of the config log.

        Raises ClientError (not-exist, `projectDoesNotExist`).
        """
        return await self._session.read(api_path("projects", project), ProjectView, point(at))

    async def create(self, project: NewProject) -> ProjectView:
        """Create a project. Raises ClientError (bad-request: `projectAlreadyExists`, `invalidProjectName`)."""
        return await self._session.write("POST", "/projects", project, ProjectView)

    async def update(self, project: str, changes: ProjectChanges) -> ProjectView:
        """Rename, move, publish or hide a project, or change its settings. Raises ClientError."""
        return await self._session.write("PUT", api_path("projects", project), changes, ProjectView)

    async def delete(self, project: str) -> None:
        """Delete a project with its secrets and variables. Raises ClientError (not-exist)."""
        await self._session.write("DELETE", api_path("projects", project), None, type(None))

    async def create_runs(self, project: str, commit: CommitChoice, *, idempotency_key: str = "") -> None:
        """Create the runs of a commit of the project's repository. Raises ClientError.

        With `idempotency_key`, the same request creates them once.
        """
        path = api_path("projects", project, "createrun")
        await self._session.write("POST", path, commit, type(None), idempotency_key=idempotency_key)
