"""A small reference for the config service: sets of paths, and what each command does to them.

It knows no ids, events and indexes, and finds everything by searching.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class RefusedError(Exception):
    """The command is not allowed."""


def require(condition: object) -> None:
    if not condition:
        raise RefusedError


@dataclass
class Reference:
    """What exists, by path: `user/ada`, `org/acme/tools/web`."""

    groups: set[str] = field(default_factory=set)
    """Root groups included, which stand for their users and organizations."""
    projects: set[str] = field(default_factory=set)
    values: set[tuple[str, str, str, str]] = field(default_factory=set)
    """Secrets and variables: `secret` or `variable`, kind and path of the place, name."""
    private: set[tuple[str, str]] = field(default_factory=set)
    """Kind and path of what is private itself."""
    members: dict[str, dict[str, str]] = field(default_factory=dict)
    """Roles by user, by organization."""
    invited: dict[str, dict[str, str]] = field(default_factory=dict)
    """Roles by user, by organization."""

    def user(self, name: str) -> str:
        require(f"user/{name}" in self.groups)
        return name

    def org(self, name: str) -> str:
        require(name in self.members)
        return name

    def create_user(self, name: str) -> None:
        require(f"user/{name}" not in self.groups)
        self.groups.add(f"user/{name}")

    def rename_user(self, name: str, new: str) -> None:
        self.user(name)
        require(f"user/{new}" not in self.groups)
        self._move(f"user/{name}", f"user/{new}")
        for people in (*self.members.values(), *self.invited.values()):
            if name in people:
                people[new] = people.pop(name)

    def delete_user(self, name: str) -> None:
        self.user(name)
        for members in self.members.values():
            require([one for one, role in members.items() if role == "owner"] != [name])
        for people in (*self.members.values(), *self.invited.values()):
            people.pop(name, None)
        self._delete(f"user/{name}")

    def create_org(self, name: str, visibility: str, creator: str | None) -> None:
        owners = {} if creator is None else {self.user(creator): "owner"}
        require(name not in self.members)
        self.members[name], self.invited[name] = owners, {}
        self.groups.add(f"org/{name}")
        if visibility == "private":
            self.private |= {("org", name), ("projectgroup", f"org/{name}")}

    def change_org(self, name: str, visibility: str) -> None:
        self._shade("org", self.org(name), visibility)

    def delete_org(self, name: str) -> None:
        del self.members[self.org(name)], self.invited[name]
        self.private.discard(("org", name))
        self._delete(f"org/{name}")

    def set_member(self, org: str, user: str, role: str) -> None:
        members = self.members[self.org(org)]
        if members.get(self.user(user)) != role:
            require(self._owners(org) != [user])
            members[user] = role
            self.invited[org].pop(user, None)

    def remove_member(self, org: str, user: str) -> None:
        require(self.user(user) in self.members[self.org(org)])
        require(self._owners(org) != [user])
        del self.members[org][user]

    def _owners(self, org: str) -> list[str]:
        return [one for one, role in self.members[org].items() if role == "owner"]

    def invite(self, org: str, user: str, role: str) -> None:
        require(user not in self.members[self.org(org)] and self.user(user) not in self.invited[org])
        self.invited[org][user] = role

    def answer(self, org: str, user: str, action: str) -> None:
        require(self.user(user) in self.invited[self.org(org)])
        role = self.invited[org].pop(user)
        if action == "accept":
            self.members[org][user] = role

    def withdraw(self, org: str, user: str) -> None:
        require(self.user(user) in self.invited[self.org(org)])
        del self.invited[org][user]

    def create_group(self, parent: str, name: str, visibility: str) -> None:
        path = f"{parent}/{name}"
        require(parent in self.groups and path not in self.groups)
        self.groups.add(path)
        self._shade("projectgroup", path, visibility)

    def change_group(self, path: str, name: str | None, parent: str | None, visibility: str) -> None:
        require(path in self.groups and (parent is None or parent in self.groups))
        above, _, own = path.rpartition("/")
        if path.count("/") == 1:
            require(name is None and parent is None)
        else:
            new = f"{above if parent is None else parent}/{own if name is None else name}"
            if new != path:
                require(new not in self.groups and not f"{new}/".startswith(f"{path}/"))
                self._move(path, new)
                path = new
        self._shade("projectgroup", path, visibility)

    def delete_group(self, path: str) -> None:
        require(path in self.groups and path.count("/") > 1)
        self._delete(path)

    def create_project(self, parent: str, name: str, visibility: str) -> None:
        path = f"{parent}/{name}"
        require(parent in self.groups and path not in self.projects)
        self.projects.add(path)
        self._shade("project", path, visibility)

    def change_project(self, path: str, name: str | None, parent: str | None, visibility: str) -> None:
        require(path in self.projects and (parent is None or parent in self.groups))
        above, _, own = path.rpartition("/")
        new = f"{above if parent is None else parent}/{own if name is None else name}"
        if new != path:
            require(new not in self.projects)
            self.projects = {new if one == path else one for one in self.projects}
            self._rename_place("project", path, new)
        self._shade("project", new, visibility)

    def delete_project(self, path: str) -> None:
        require(path in self.projects)
        self.projects.discard(path)
        self._forget("project", path)

    def create_value(self, sort: str, kind: str, path: str, name: str) -> None:
        require(path in (self.projects if kind == "project" else self.groups))
        require((sort, kind, path, name) not in self.values)
        self.values.add((sort, kind, path, name))

    def rename_value(self, sort: str, kind: str, path: str, name: str, new: str) -> None:
        require((sort, kind, path, name) in self.values)
        if new != name:
            require((sort, kind, path, new) not in self.values)
            self.values = (self.values - {(sort, kind, path, name)}) | {(sort, kind, path, new)}

    def delete_value(self, sort: str, kind: str, path: str, name: str) -> None:
        require((sort, kind, path, name) in self.values)
        self.values.discard((sort, kind, path, name))

    def is_private(self, kind: str, path: str) -> bool:
        """Whether a project or group, or anything above it, is private."""
        elements = path.split("/")
        above = ["/".join(elements[:n]) for n in range(2, len(elements) + (kind == "projectgroup"))]
        groups = any(("projectgroup", one) in self.private for one in above)
        org = elements[0] == "org" and ("org", elements[1]) in self.private
        return (kind, path) in self.private or groups or org

    def _shade(self, kind: str, path: str, visibility: str) -> None:
        (self.private.add if visibility == "private" else self.private.discard)((kind, path))

    def _move(self, old: str, new: str) -> None:
        for path in sorted(self.projects):
            if path.startswith(f"{old}/"):
                self.projects = (self.projects - {path}) | {new + path[len(old) :]}
                self._rename_place("project", path, new + path[len(old) :])
        for path in sorted(self.groups):
            if f"{path}/".startswith(f"{old}/"):
                self.groups = (self.groups - {path}) | {new + path[len(old) :]}
                self._rename_place("projectgroup", path, new + path[len(old) :])

    def _rename_place(self, kind: str, old: str, new: str) -> None:
        self.values = {
            (sort, of, new if (of, path) == (kind, old) else path, name) for sort, of, path, name in self.values
        }
        self.private = {(of, new if (of, path) == (kind, old) else path) for of, path in self.private}

    def _delete(self, top: str) -> None:
        for path in {one for one in self.projects if one.startswith(f"{top}/")}:
            self.delete_project(path)
        for path in {one for one in self.groups if f"{one}/".startswith(f"{top}/")}:
            self.groups.discard(path)
            self._forget("projectgroup", path)

    def _forget(self, kind: str, place: str) -> None:
        self.values = {one for one in self.values if one[1:3] != (kind, place)}
        self.private.discard((kind, place))
