"""A config store in memory that answers the recorded operations: ids are symbols, as in the cases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from runstream.codec import decode
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.config.tokens import new_token
from runstream.domain.config.decisions import organizations, project_groups, projects, remote_sources, secrets, users
from runstream.domain.config.decisions.projects import MANUAL, SETTINGS
from runstream.domain.config.lists import (
    NamePage,
    invitations_of,
    list_members,
    list_organizations,
    list_organizations_of,
    list_remote_sources,
    list_users,
)
from runstream.domain.config.organization import Organization
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import (
    find_organization,
    find_owner,
    find_parent_group,
    find_project,
    find_project_group,
    find_remote_source,
    find_user,
    owner_of,
    parent_path_of,
    path_of,
)
from runstream.domain.config.state import ConfigState, Decision
from runstream.domain.config.tree import global_visibility, group_of, secrets_of, variables_of
from runstream.domain.config.user import User
from runstream.errors import BadRequestError, InternalError
from runstream.events.remote_source import RemoteSourceSettings
from runstream.events.run_config import Sealed
from runstream.events.secret import TreePlace
from runstream.events.user import AccountCredentials
from runstream.events.variable import SecretValue
from runstream.ids import new_id
from runstream.snapshots.reading import open_snapshot
from tests.log.memory import MemoryLog
from tests.snapshots.files import written

NO_CREDENTIALS = AccountCredentials(None, None, None)
SEALED = Sealed("key", "sealed")


@asynccontextmanager
async def world_in_memory(folder: Path) -> AsyncIterator[World]:
    """A world with an empty log; an export is a file in the folder."""
    async with AsyncExitStack() as stack:
        world = World(folder / "exported.tar", stack)
        await world.follow(MemoryLog(service="config", partitions=1))
        yield world


class World:
    """The operations of the cases, on one store."""

    def __init__(self, file: Path, stack: AsyncExitStack) -> None:
        self._file = file
        self._stack = stack
        self._ids: dict[str, str] = {}
        self._symbols: dict[str, str] = {}

    async def follow(self, log: MemoryLog) -> None:
        self._log, self.store = log, ConfigStore(log)
        await self._stack.enter_async_context(ConfigFollower(self.store).serving())

    async def export(self) -> None:
        await written(self._file, self._log)
        self._exported = [*self.state.everything()]

    async def set_maintenance_enabled(self, *, enabled: bool) -> None:
        """In maintenance nothing follows the log, and the state is not available."""
        if enabled:
            await self._stack.aclose()
            with pytest.raises(InternalError):
                _ = self.state
            return
        await self.follow(self._log)
        assert [*self.state.everything()] == self._exported

    async def replace(self) -> None:
        """Import the file into a log of its own, in maintenance."""
        self._log = MemoryLog(service="config", partitions=1)
        with open_snapshot(self._file) as snapshot:
            for message in snapshot.messages(0, self._log.subjects):
                address = decode(message).commit.address
                self._log.streams[0].add(self._log.subjects.guard(address), message)

    @property
    def state(self) -> ConfigState:
        return self.store.state

    async def perform(self, op: str, args: Mapping[str, Any]) -> Any:
        plain = self._plain(args)
        method = getattr(self, "replace" if op == "import" else op)
        return await method(**plain.pop("request", {}), **plain)

    def _plain(self, value: Any) -> Any:
        """Replace symbols by ids."""
        if isinstance(value, Mapping):
            return {key: self._plain(one) for key, one in value.items()}
        return self._ids.get(value, value) if isinstance(value, str) else value

    def _named(self, symbol: str, key: str) -> str:
        """Give an id its symbol; the second thing of a symbol is #2."""
        count = sum(one == symbol or one.startswith(f"{symbol}#") for one in self._ids)
        name = symbol if not count else f"{symbol}#{count + 1}"
        self._ids[name], self._symbols[key] = key, name
        return name

    def pass_over(self, symbol: str) -> None:
        """Use up a symbol, for a thing that the cases have and the store has not."""
        self._named(symbol, new_id())

    def _once(self, symbol: str, key: str) -> str:
        return self._symbols.get(key) or self._named(symbol, key)

    def _symbol(self, key: str) -> str:
        return self._symbols.get(key, key)

    async def _change(self, decide: Any) -> None:
        await self.store.change(decide, actor="user:ada")

    async def create_user(self, user_name: str = "") -> Any:
        key, root = new_id(), new_id()
        await self._change(
            lambda state: users.decide_create_user(state, user_id=key, root_group_id=root, name=user_name)
        )
        self._named(f"$projectgroup:user/{user_name}", root)
        return {"id": self._named(f"$user:{user_name}", key), "name": user_name}

    async def delete_user(self, user_ref: str) -> None:
        await self._change(lambda state: users.decide_delete_user(state, find_user(state, user_ref)))

    async def create_org(self, name: str, visibility: Any, creator_user_id: str = "") -> Any:
        key, root = new_id(), new_id()

        def decide(state: ConfigState) -> Decision:
            creator = find_user(state, creator_user_id) if creator_user_id else None
            return organizations.decide_create_organization(
                state, organization_id=key, root_group_id=root, name=name, visibility=visibility, creator=creator
            )

        await self._change(decide)
        self._named(f"$projectgroup:org/{name}", root)
        self._named(f"$org:{name}", key)
        return self._org(self.state.organizations[key])

    def _org(self, one: Organization) -> Any:
        creator = self._symbol(one.creator_user_id)
        return {
            "id": self._symbol(one.id),
            "name": one.name,
            "visibility": one.visibility,
            "creator_user_id": creator,
        }

    async def delete_org(self, org_ref: str) -> None:
        await self._change(
            lambda state: organizations.decide_delete_organization(state, find_organization(state, org_ref))
        )

    async def add_org_member(self, org_ref: str, user_ref: str, role: Any) -> Any:
        await self._change(
            lambda state: organizations.decide_set_member(
                find_organization(state, org_ref), find_user(state, user_ref), role
            )
        )
        org, user = find_organization(self.state, org_ref), find_user(self.state, user_ref)
        return {
            "id": self._once("$orgmember", f"{org.id} {user.id}"),
            "organization_id": self._symbol(org.id),
            "user_id": self._symbol(user.id),
            "member_role": org.members[user.id],
        }

    async def create_org_invitation(self, user_ref: str, organization_ref: str, role: Any) -> Any:
        key = new_id()
        await self._change(
            lambda state: organizations.decide_invite(
                find_organization(state, organization_ref),
                find_user(state, user_ref),
                invitation_id=key,
                role=role,
                members_too=True,
            )
        )
        org, user = find_organization(self.state, organization_ref), find_user(self.state, user_ref)
        return {
            "id": self._named("$invitation", key),
            "organization_id": self._symbol(org.id),
            "user_id": self._symbol(user.id),
            "role": org.invitations[user.id].role,
        }

    async def get_user_org_invitations(self, user_ref: str) -> Any:
        return [one.name for one in invitations_of(self.state, find_user(self.state, user_ref))]

    async def get_org_invitations(self, org_ref: str) -> Any:
        return list(find_organization(self.state, org_ref).invitations)

    async def create_project_group(self, name: str, parent: Any, visibility: Any) -> Any:
        key = new_id()
        await self._change(
            lambda state: project_groups.decide_create_project_group(
                state, group_id=key, name=name, parent=find_parent_group(state, parent["id"]), visibility=visibility
            )
        )
        group = self.state.groups[key]
        self._named(f"$projectgroup:{path_of(self.state, group)}", key)
        return self._group(group)

    async def update_project_group(self, project_group_ref: str, parent: Any, visibility: Any, name: str = "") -> Any:
        def decide(state: ConfigState) -> Decision:
            group = find_project_group(state, project_group_ref)
            if parent["type"] != group.parent.kind:
                raise BadRequestError("a root group stays one, and no other becomes one")
            to = None
            if parent["id"] != group.parent.id:
                to = group if group.is_root else find_parent_group(state, parent["id"])
            return project_groups.decide_change_project_group(state, group, name=name, parent=to, visibility=visibility)

        key = find_project_group(self.state, project_group_ref).id
        await self._change(decide)
        return self._group(self.state.groups[key])

    async def get_project_group(self, project_group_ref: str) -> Any:
        return self._group(find_project_group(self.state, project_group_ref))

    async def delete_project_group(self, project_group_ref: str) -> None:
        await self._change(
            lambda state: project_groups.decide_delete_project_group(
                state, find_project_group(state, project_group_ref)
            )
        )

    def _group(self, group: ProjectGroup) -> Any:
        parent = {"type": group.parent.kind, "id": self._symbol(group.parent.id)}
        own = {"id": self._symbol(group.id), "name": group.name, "parent": parent, "visibility": group.visibility}
        return {"project_group": own, "project_group_dynamic_data": self._place(group)}

    def _place(self, thing: ProjectGroup | Project) -> Any:
        owner = owner_of(self.state, group_of(self.state, thing))
        return {
            "owner_type": "user" if isinstance(owner, User) else "org",
            "owner_id": self._symbol(owner.id),
            "path": path_of(self.state, thing),
            "parent_path": parent_path_of(self.state, thing),
            "global_visibility": global_visibility(self.state, thing),
        }

    async def create_project(
        self,
        name: str,
        visibility: Any,
        remote_repository_config_type: str,
        parent: Any = None,
        members_can_perform_run_actions: bool = False,
    ) -> Any:
        assert remote_repository_config_type == "manual"
        key = new_id()
        wanted = type(SETTINGS)(
            SETTINGS.pass_vars_to_forked_pr, SETTINGS.default_branch, members_can_perform_run_actions
        )

        def decide(state: ConfigState) -> Decision:
            if not parent:
                raise BadRequestError("the parent is missing")
            return projects.decide_create_project(
                state,
                project_id=key,
                name=name,
                parent=find_parent_group(state, parent["id"]),
                visibility=visibility,
                repository=MANUAL,
                settings=wanted,
                webhook_secret=SEALED,
            )

        await self._change(decide)
        project = self.state.projects[key]
        self._named(f"$project:{path_of(self.state, project)}", key)
        return {"project": self._project(project), "project_dynamic_data": self._place(project)}

    async def update_project(
        self,
        project_ref: str,
        name: str,
        parent: Any,
        visibility: Any,
        remote_repository_config_type: str,
        members_can_perform_run_actions: bool = False,
    ) -> Any:
        assert remote_repository_config_type == "manual"
        key = find_project(self.state, project_ref).id
        await self._change(
            lambda state: projects.decide_change_project(
                state,
                find_project(state, project_ref),
                name=name,
                parent=find_parent_group(state, parent["id"]),
                visibility=visibility,
                members_can_perform_run_actions=members_can_perform_run_actions,
            )
        )
        project = self.state.projects[key]
        return {"project": self._project(project), "project_dynamic_data": self._place(project)}

    def _project(self, project: Project) -> Any:
        return {
            "id": self._symbol(project.id),
            "name": project.name,
            "parent": {"type": "projectgroup", "id": self._symbol(project.parent_id)},
            "visibility": project.visibility,
            "remote_repository_config_type": project.repository.kind,
        }

    async def get_project_group_projects(self, project_group_ref: str) -> Any:
        group = find_project_group(self.state, project_group_ref)
        names = self.state.names("project", group.id)
        return {"projects": [self._project(self.state.projects[names[name]]) for name in sorted(names)]}

    def _owner(self, state: ConfigState, parent: Any) -> TreePlace:
        return find_owner(state, parent["type"], parent["id"])

    def _parent(self, owner: TreePlace) -> Any:
        return {"type": owner.kind, "id": self._symbol(owner.id)}

    async def create_secret(self, name: str, parent: Any, type: str, data: Any) -> Any:  # noqa: A002
        key = new_id()
        secrets.require_secret_data(type, data)
        sealed = {one: Sealed("plain", text) for one, text in data.items()}
        await self._change(
            lambda state: secrets.decide_create_secret(
                state, secret_id=key, parent=self._owner(state, parent), name=name, data=sealed
            )
        )
        self._named(f"$secret:{name}", key)
        return self._secret(key)

    def _secret(self, key: str) -> Any:
        one = self.state.secrets[key]
        data = {name: text.value for name, text in one.data.items()}
        own = {"id": self._symbol(key), "name": one.name, "parent": self._parent(one.parent)}
        return {**own, "type": "internal", "data": data}

    async def create_variable(self, name: str, parent: Any, values: Any) -> Any:
        key = new_id()
        wanted = tuple(SecretValue(one["secret_name"], one["secret_var"], None) for one in values)
        await self._change(
            lambda state: secrets.decide_create_variable(
                state, variable_id=key, parent=self._owner(state, parent), name=name, values=wanted
            )
        )
        self._named(f"$variable:{name}", key)
        return self._variable(key)

    def _variable(self, key: str) -> Any:
        one = self.state.variables[key]
        values = [{"secret_name": v.secret_name, "secret_var": v.secret_var} for v in one.values]
        return {"id": self._symbol(key), "name": one.name, "parent": self._parent(one.parent), "values": values}

    async def get_secrets(self, parent_type: Any, parent_ref: str, tree: bool) -> Any:
        found = secrets_of(self.state, self._tree_place(parent_type, parent_ref), tree=tree)
        return {"secrets": [self._secret(one.id) for one in found]}

    async def get_variables(self, parent_type: Any, parent_ref: str, tree: bool) -> Any:
        found = variables_of(self.state, self._tree_place(parent_type, parent_ref), tree=tree)
        return {"variables": [self._variable(one.id) for one in found]}

    def _tree_place(self, kind: str, ref: str) -> ProjectGroup | Project:
        return find_project(self.state, ref) if kind == "project" else find_project_group(self.state, ref)

    async def create_remote_source(self, **request: Any) -> Any:
        key = new_id()
        name, settings = _settings(request)
        await self._change(
            lambda state: remote_sources.decide_create_remote_source(state, source_id=key, name=name, settings=settings)
        )
        self._named(f"$remotesource:{name}", key)
        return self._source(key)

    async def update_remote_source(self, remote_source_name: str, **request: Any) -> Any:
        name, settings = _settings(request)
        key = find_remote_source(self.state, remote_source_name).id
        await self._change(
            lambda state: remote_sources.decide_change_remote_source(
                state, find_remote_source(state, remote_source_name), name=name, settings=settings
            )
        )
        return self._source(key)

    def _source(self, key: str) -> Any:
        one = self.state.remote_sources[key]
        secret = one.settings.oauth2_client_secret
        return {
            "id": self._symbol(key),
            "name": one.name,
            "apiurl": one.settings.apiurl,
            "type": one.settings.type,
            "auth_type": one.settings.auth_type,
            "client_id": one.settings.oauth2_client_id,
            "client_secret": secret.value if secret is not None else "",
        }

    async def create_user_la(self, user_ref: str, remote_source_name: str) -> Any:
        key = new_id()

        def decide(state: ConfigState) -> Decision:
            source = find_remote_source(state, remote_source_name).id
            account = users.NewAccount(key, source, "", "", "", NO_CREDENTIALS, None)
            return users.decide_add_account(state, find_user(state, user_ref), account)

        await self._change(decide)
        user, account = cast("Any", self.state.account(key))
        return {
            "id": self._named("$linkedaccount", key),
            "user_id": self._symbol(user.id),
            "remote_source_id": self._symbol(account.remote_source_id),
        }

    async def create_user_token(self, user_ref: str, token_name: str) -> Any:
        _, digest = new_token()
        token = users.NewToken(new_id(), token_name, digest, "admin", None)
        await self._change(lambda state: users.decide_create_token(find_user(state, user_ref), token, self.store.now()))
        user, found = cast("Any", self.state.token(digest))
        return {"id": self._named("$usertoken", found.id), "name": found.name, "user_id": self._symbol(user.id)}

    async def get_user_orgs(self, user_ref: str, **page: Any) -> Any:
        found, more = list_organizations_of(self.state, find_user(self.state, user_ref), _page(page))
        listed = [{"organization": self._org(one), "role": role} for one, role in found]
        return {"user_orgs": listed, "has_more": more}

    async def names(self, op: str, request: Mapping[str, Any]) -> tuple[list[str], bool]:
        """The names on one page of a list."""
        page = self._plain(dict(request))
        state = self.state
        found: list[Any]
        match op:
            case "get_users":
                found, more = list_users(state, _page(page))
            case "get_remote_sources":
                found, more = list_remote_sources(state, _page(page))
            case "get_orgs":
                visibilities = page.pop("visibilities", None) or ("public", "private")
                found, more = list_organizations(state, _page(page), visibilities)
            case "get_org_members":
                org = find_organization(state, page.pop("org_ref"))
                members, more = list_members(state, org, _page(page))
                found = [user for user, _ in members]
            case _:
                user = find_user(state, page.pop("user_ref"))
                organizations_, more = list_organizations_of(state, user, _page(page))
                found = [one for one, _ in organizations_]
        return [one.name for one in found], more


def _settings(request: Mapping[str, Any]) -> tuple[str, RemoteSourceSettings]:
    secret = request.get("oauth2_client_secret", "")
    settings = RemoteSourceSettings(
        request["type"],
        request["auth_type"],
        request["apiurl"],
        skip_verify=False,
        oauth2_client_id=request.get("oauth2_client_id", ""),
        oauth2_client_secret=Sealed("plain", secret) if secret else None,
        ssh_host_key="",
        skip_ssh_host_key_check=False,
        registration_enabled=False,
        login_enabled=False,
    )
    return request["name"], settings


def _page(request: Mapping[str, Any]) -> NamePage[Any]:
    start = next((value for key, value in request.items() if key.startswith("start_") or key == "start"), "")
    return NamePage(start, request.get("limit", 0), request.get("sort_direction") == "desc")
