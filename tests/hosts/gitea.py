"""A Gitea: its paths and JSON. `DOCUMENTED` has the fields that a test holds its answers against."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from pathlib import Path
from typing import Any, ClassVar

from runstream.hosts.port import HostType
from tests.hosts.fake import FakeAnswer, FakeHost, FakePull, FakeRepo, FakeRequest, FakeUser, Refused, route


class FakeGitea(FakeHost):
    type: ClassVar[HostType] = "gitea"
    api = "/api/v1"
    pull_refs = "refs/pull/"
    size = "limit"
    """The parameter for the length of a page."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.made: dict[str, str] = {}
        """Access tokens made with a password, by name."""
        v1 = self.api
        self.routes = [
            ("GET", route(f"{v1}/user"), lambda r: FakeAnswer(200, self.user_json(self.user_of(r)))),
            ("POST", route(f"{v1}/users/{{name}}/tokens"), self.make_token),
            ("DELETE", route(f"{v1}/users/{{name}}/tokens/{{token}}"), self.delete_token),
            ("GET", route(f"{v1}/user/repos"), self.own_repos),
            ("GET", route(f"{v1}/repositories/{{id}}"), self.repo_by_id),
            ("GET", route(f"{v1}/repos/{{path:2}}/raw/{{name:*}}"), self.raw),
            ("GET", route(f"{v1}/repos/{{path:2}}/branches/{{name:*}}"), self.branch),
            ("GET", route(f"{v1}/repos/{{path:2}}/tags/{{name:*}}"), self.tag),
            ("GET", route(f"{v1}/repos/{{path:2}}/git/refs/{{name:*}}"), self.git_ref),
            ("GET", route(f"{v1}/repos/{{path:2}}/git/commits/{{sha}}"), self.one_commit),
            ("GET", route(f"{v1}/repos/{{path:2}}/keys"), self.keys),
            ("POST", route(f"{v1}/repos/{{path:2}}/keys"), self.add_key),
            ("DELETE", route(f"{v1}/repos/{{path:2}}/keys/{{id}}"), self.delete_key),
            ("GET", route(f"{v1}/repos/{{path:2}}/hooks"), self.hooks),
            ("POST", route(f"{v1}/repos/{{path:2}}/hooks"), self.add_hook),
            ("PATCH", route(f"{v1}/repos/{{path:2}}/hooks/{{id}}"), self.edit_hook),
            ("DELETE", route(f"{v1}/repos/{{path:2}}/hooks/{{id}}"), self.delete_hook),
            ("POST", route(f"{v1}/repos/{{path:2}}/statuses/{{sha}}"), self.add_status),
            ("GET", route(f"{v1}/repos/{{path:2}}"), self.one_repo),
            ("GET", route("/login/oauth/authorize"), self.agree),
            ("POST", route("/login/oauth/access_token"), self.tokens),
        ]

    def user_json(self, user: FakeUser) -> dict[str, Any]:
        return {
            "id": user.id,
            "login": user.name,
            "full_name": "",
            "email": user.email,
            "avatar_url": f"{self.url}/avatars/{user.id}",
        }

    def repo_json(self, repo: FakeRepo, user: FakeUser | None = None) -> dict[str, Any]:
        owner = next((one for one in self.users.values() if repo.path.startswith(f"{one.name}/")), None)
        return {
            "id": repo.id,
            "owner": self.user_json(owner) if owner else None,
            "name": repo.path.partition("/")[2],
            "full_name": repo.path,
            "private": repo.private,
            "html_url": f"{self.url}/{repo.path}",
            "ssh_url": f"git@127.0.0.1:{repo.path}.git",
            "clone_url": f"{self.url}/{repo.path}.git",
            "default_branch": "main",
            "permissions": {"admin": user is not None and user.name in repo.admins, "push": True, "pull": True},
        }

    def delete_token(self, request: FakeRequest, name: str, token: str) -> FakeAnswer:
        user, password = request.login()
        if user != name or name not in self.users or self.users[name].password != password:
            raise Refused(401, "user's password is invalid")
        if token not in self.made:
            raise Refused(404, "Not Found")
        self.users[name].tokens.remove(self.made.pop(token))
        return FakeAnswer(204)

    def make_token(self, request: FakeRequest, name: str) -> FakeAnswer:
        user, password = request.login()
        if user != name or name not in self.users or self.users[name].password != password:
            raise Refused(401, "user's password is invalid")
        body = request.json()
        token = secrets.token_hex(20)
        self.users[name].tokens.add(token)
        self.made[body["name"]] = token
        told = {"id": self.next_id(), "name": body["name"], "sha1": token, "token_last_eight": token[-8:]}
        return FakeAnswer(201, {**told, "scopes": body["scopes"]})

    def own_repos(self, request: FakeRequest) -> FakeAnswer:
        user = self.user_of(request)
        return self.page(request, [self.repo_json(repo, user) for repo in self.repos.values()], self.size)

    def one_repo(self, request: FakeRequest, path: str) -> FakeAnswer:
        user, repo = self.user_of(request), self.repo_of(request, path)
        if path != repo.path:
            return FakeAnswer(307, None, {"Location": f"{self.url}{self.api}/repos/{repo.path}"})
        return FakeAnswer(200, self.repo_json(repo, user))

    def repo_by_id(self, request: FakeRequest, id: str) -> FakeAnswer:  # noqa: A002
        user, repo = self.user_of(request), self.repos.get(int(id))
        if repo is None:
            raise Refused(404, "Not Found")
        return FakeAnswer(200, self.repo_json(repo, user))

    def raw(self, request: FakeRequest, path: str, name: str) -> FakeAnswer:
        self.user_of(request)
        return FakeAnswer(200, self.file_at(self.repo_of(request, path), request.query["ref"], name))

    def branch(self, request: FakeRequest, path: str, name: str) -> FakeAnswer:
        repo = self.repo_of(request, path)
        sha = self.resolved(repo, f"refs/heads/{name}")
        commit = {"id": sha, "message": self.message_of(repo, sha), "url": f"{self.url}/{repo.path}/commit/{sha}"}
        return FakeAnswer(200, {"name": name, "commit": commit, "protected": False})

    def tag(self, request: FakeRequest, path: str, name: str) -> FakeAnswer:
        repo = self.repo_of(request, path)
        sha = self.resolved(repo, f"refs/tags/{name}^{{commit}}")
        commit = {"sha": sha, "url": f"{self.url}/commit/{sha}", "created": "2026-01-01T00:00:00Z"}
        tag = {"name": name, "message": "a tag", "id": self.resolved(repo, f"refs/tags/{name}"), "commit": commit}
        return FakeAnswer(200, tag)

    def git_ref(self, request: FakeRequest, path: str, name: str) -> FakeAnswer:
        repo = self.repo_of(request, path)
        found = [(ref, sha) for ref, sha in self.refs_of(repo).items() if ref.startswith(f"refs/{name}")]
        if not found:
            raise Refused(404, "Not Found")
        refs = [
            {"ref": ref, "url": self.url, "object": {"type": "commit", "sha": sha, "url": self.url}}
            for ref, sha in found
        ]
        return FakeAnswer(200, refs[0] if [one["ref"] for one in refs] == [f"refs/{name}"] else refs)

    def one_commit(self, request: FakeRequest, path: str, sha: str) -> FakeAnswer:
        repo = self.repo_of(request, path)
        whole = self.resolved(repo, f"{sha}^{{commit}}")
        page = f"{self.url}/{repo.path}/commit/{whole}"
        message = self.message_of(repo, whole)
        return FakeAnswer(200, {"sha": whole, "url": page, "html_url": page, "commit": {"message": message}})

    def keys(self, request: FakeRequest, path: str) -> FakeAnswer:
        return self.page(request, self.administered(request, path).keys, self.size)

    def add_key(self, request: FakeRequest, path: str) -> FakeAnswer:
        repo, body = self.administered(request, path), request.json()
        if any(key["key"] == body["key"] for key in repo.keys):
            raise Refused(422, "This key has already been added to this repository")
        key = {"id": self.next_id(), "created_at": "2026-01-01T00:00:00Z", **body}
        repo.keys.append(key)
        return FakeAnswer(201, key)

    def delete_key(self, request: FakeRequest, path: str, id: str) -> FakeAnswer:  # noqa: A002
        return self.removed(self.administered(request, path).keys, id)

    def hooks(self, request: FakeRequest, path: str) -> FakeAnswer:
        repo = self.administered(request, path)
        return self.page(request, [self.hook_json(hook) for hook in repo.hooks], self.size)

    def hook_json(self, hook: dict[str, Any]) -> dict[str, Any]:
        shown = {name: value for name, value in hook["config"].items() if name != "secret"}
        return {**hook, "config": shown}

    def add_hook(self, request: FakeRequest, path: str) -> FakeAnswer:
        repo, body = self.administered(request, path), request.json()
        hook = {"id": self.next_id(), "created_at": "2026-01-01T00:00:00Z", **body}
        repo.hooks.append(hook)
        return FakeAnswer(201, self.hook_json(hook))

    def edit_hook(self, request: FakeRequest, path: str, id: str) -> FakeAnswer:  # noqa: A002
        repo = self.administered(request, path)
        hook = next((hook for hook in repo.hooks if hook["id"] == int(id)), None)
        if hook is None:
            raise Refused(404, "Not Found")
        hook.update(request.json())
        return FakeAnswer(200, self.hook_json(hook))

    def delete_hook(self, request: FakeRequest, path: str, id: str) -> FakeAnswer:  # noqa: A002
        return self.removed(self.administered(request, path).hooks, id)

    def removed(self, items: list[dict[str, Any]], id: str) -> FakeAnswer:  # noqa: A002
        item = next((item for item in items if item["id"] == int(id)), None)
        if item is None:
            raise Refused(404, "Not Found")
        items.remove(item)
        return FakeAnswer(204)

    def add_status(self, request: FakeRequest, path: str, sha: str) -> FakeAnswer:
        repo, body = self.repo_of(request, path), request.json()
        self.user_of(request)
        status = {"id": self.next_id(), "sha": self.resolved(repo, sha), **body}
        repo.statuses.append(status)
        return FakeAnswer(201, {**status, "status": body["state"], "url": f"{self.url}{request.path}"})

    # Webhooks.

    def send(self, repo: FakeRepo, event: str, payload: dict[str, Any]) -> None:
        body = json.dumps(payload, indent=2).encode()
        for hook in repo.hooks:
            if event not in hook["events"]:
                continue
            signature = hmac.new(hook["config"]["secret"].encode(), body, hashlib.sha256).hexdigest()
            delivery = secrets.token_hex(16)
            named = {"Event": event, "Event-Type": event, "Delivery": delivery, "Signature": signature}
            headers = {f"X-Gitea-{name}": value for name, value in named.items()}
            headers["X-Hub-Signature-256"] = f"sha256={signature}"
            self.deliver(hook["config"]["url"], headers, body)

    def common(self, repo: FakeRepo) -> dict[str, Any]:
        return {"repository": self.repo_json(repo), "sender": self.user_json(next(iter(self.users.values())))}

    def send_push(self, repo: FakeRepo, ref: str, before: str, after: str) -> None:
        kind = "branch" if ref.startswith("refs/heads/") else "tag"
        if not after.strip("0"):
            name = ref.split("/", 2)[2]
            deleted = {"ref": name, "ref_type": kind, "pusher_type": "user", **self.common(repo)}
            self.send(repo, "delete", deleted)
            return
        whole = self.resolved(repo, f"{after}^{{commit}}")
        new = self.commits_between(repo, before, whole) if kind == "branch" else []
        commits = [{"id": sha, "message": self.message_of(repo, sha), "url": self.url} for sha in reversed(new)]
        common = self.common(repo)
        push = {"ref": ref, "before": before, "after": whole, "commits": commits, "total_commits": len(new)}
        head = {"id": whole, "message": self.message_of(repo, whole), "url": self.url}
        self.send(repo, "push", {**push, "head_commit": head, "pusher": common["sender"], **common})

    def send_pull(self, repo: FakeRepo, pull: FakePull, action: str) -> None:
        self.send(repo, "pull_request", {"action": action, "number": pull.number, **self.pull_json(repo, pull)})

    def pull_json(self, repo: FakeRepo, pull: FakePull) -> dict[str, Any]:
        told = {
            "id": pull.id,
            "number": pull.number,
            "state": pull.state,
            "title": pull.title,
            "html_url": f"{self.url}/{repo.path}/pulls/{pull.number}",
            "head": {"label": pull.head, "ref": pull.head, "sha": pull.sha, "repo": self.repo_json(pull.fork)},
            "base": {"label": "main", "ref": "main", "sha": pull.sha, "repo": self.repo_json(repo)},
        }
        return {"pull_request": told, **self.common(repo)}
