"""What GitHub and Gitea share: Gitea's API was made after GitHub's."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

import msgspec

from runstream.hosts.client import HostClient, segments
from runstream.hosts.errors import HostError, missing
from runstream.hosts.oauth2 import OAuth2
from runstream.hosts.port import (
    CommitStatus,
    HostRepository,
    HostUser,
    RefNames,
)


class LikePermissions(msgspec.Struct):
    """What the user may do with a repository."""

    admin: bool = False


class LikeRepository(msgspec.Struct):
    """A repository."""

    id: int
    full_name: str
    default_branch: str
    ssh_url: str
    clone_url: str
    html_url: str
    private: bool
    permissions: LikePermissions | None = None

    def as_host(self) -> HostRepository:
        """Return it as the port has it."""
        return HostRepository(
            str(self.id),
            self.full_name,
            self.default_branch,
            self.ssh_url,
            self.clone_url,
            self.html_url,
            self.private,
            self.permissions is not None and self.permissions.admin,
        )


class LikeUser(msgspec.Struct):
    """A user."""

    id: int
    login: str
    email: str | None = None
    avatar_url: str = ""

    def as_host(self) -> HostUser:
        """Return it as the port has it."""
        return HostUser(str(self.id), self.login, self.email or "", self.avatar_url)


class LikeKey(msgspec.Struct):
    """A deploy key."""

    id: int
    title: str
    key: str
    read_only: bool = False


class LikeHook(msgspec.Struct):
    """A webhook."""

    id: int
    config: dict[str, object]


class GitHubLikeHost:
    """The calls that are the same on GitHub and Gitea."""

    refs = RefNames("refs/pull/")
    hook_type: ClassVar[dict[str, str]]
    """What says of a new webhook that it is one."""
    hook_events: ClassVar[list[str]]
    page: ClassVar[dict[str, str]]
    """The query for a long page of a list."""

    def __init__(self, client: HostClient, oauth2: OAuth2) -> None:
        self.client = client
        self.oauth2 = oauth2
        self.authorization_url = oauth2.authorization_url
        self.exchange_code = oauth2.exchange_code
        self.refresh = oauth2.refresh

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()

    async def repository(self, token: str, path: str) -> HostRepository:
        """Return the repository of a path."""
        return (await self.client.get(f"/repos/{segments(path)}", LikeRepository, token)).as_host()

    async def repository_by_id(self, token: str, repository_id: str) -> HostRepository:
        """Return the repository of an id."""
        found = await self.client.get(f"/repositories/{segments(repository_id)}", LikeRepository, token)
        return found.as_host()

    async def administered_repositories(self, token: str) -> list[HostRepository]:
        """Return the repositories that the token's user administers."""
        found = await self.client.get_all("/user/repos", LikeRepository, token, self.page)
        return [one for one in (each.as_host() for each in found) if one.administered]

    async def put_deploy_key(self, token: str, path: str, title: str, public_key: str) -> None:
        """Add or replace a deploy key."""
        place = f"/repos/{segments(path)}/keys"
        for key in await self.client.get_all(place, LikeKey, token, self.page):
            if key.title == title:
                if same_key(key.key, public_key) and key.read_only:
                    return
                await self._delete(f"{place}/{key.id}", token)
        body = {"title": title, "key": public_key, "read_only": True}
        await self.client.send("POST", place, token=token, body=body)

    async def delete_deploy_key(self, token: str, path: str, title: str) -> None:
        """Delete the deploy keys of a title."""
        place = f"/repos/{segments(path)}/keys"
        for key in await self.client.get_all(place, LikeKey, token, self.page):
            if key.title == title:
                await self._delete(f"{place}/{key.id}", token)

    async def put_webhook(self, token: str, path: str, url: str, secret: str) -> None:
        """Add or update a webhook."""
        place = f"/repos/{segments(path)}/hooks"
        config = {"url": url, "content_type": "json", "secret": secret}
        same = [hook.id for hook in await self._hooks(place, token) if hook.config.get("url") == url]
        if same:
            body = {"config": config, "events": self.hook_events, "active": True}
            await self.client.send("PATCH", f"{place}/{same[0]}", token=token, body=body)
        else:
            new = {**self.hook_type, "config": config, "events": self.hook_events, "active": True}
            await self.client.send("POST", place, token=token, body=new)
        for doubled in same[1:]:
            await self._delete(f"{place}/{doubled}", token)

    async def delete_webhook(self, token: str, path: str, url: str) -> None:
        """Delete the webhooks to a URL."""
        place = f"/repos/{segments(path)}/hooks"
        for hook in await self._hooks(place, token):
            if hook.config.get("url") == url:
                await self._delete(f"{place}/{hook.id}", token)

    async def put_status(self, token: str, path: str, sha: str, status: CommitStatus) -> None:
        """Set the status of a commit."""
        body = {
            "context": status.context,
            "state": status.state.value,
            "description": status.description,
            "target_url": status.target_url,
        }
        place = f"/repos/{segments(path)}/statuses/{segments(sha)}"
        await self.client.send("POST", place, token=token, body=body)

    async def user(self, token: str) -> HostUser:
        """Return the token's user."""
        return (await self.client.get("/user", LikeUser, token)).as_host()

    def commit_link(self, repository: HostRepository, sha: str) -> str:
        """Return the page of a commit."""
        return f"{repository.page_url}/commit/{quote(sha)}"

    async def _hooks(self, place: str, token: str) -> list[LikeHook]:
        return await self.client.get_all(place, LikeHook, token, self.page)

    async def _delete(self, place: str, token: str) -> None:
        await delete(self.client, place, token)


def same_key(one: str, other: str) -> bool:
    """Return whether two public keys are the same; their comments may differ."""
    return one.split()[:2] == other.split()[:2]


async def delete(client: HostClient, place: str, token: str) -> None:
    """Delete an object, or find it deleted."""
    try:
        await client.send("DELETE", place, token=token)
    except HostError as error:
        if not missing(error):
            raise
