"""A GitLab: its paths and JSON."""

from __future__ import annotations

import base64
import hmac
import json
import uuid
from pathlib import Path
from typing import Any

from tests.hosts.fake import FakeAnswer, FakeHost, FakePull, FakeRepo, FakeRequest, FakeUser, Refused, git, route


class FakeGitLab(FakeHost):
    type = "gitlab"
    api = "/api/v4"
    pull_refs = "refs/merge-requests/"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        project = f"{self.api}/projects/{{path}}"
        self.signs_at: int | None = None
        """The Unix time at which webhooks are signed by Standard Webhooks; None for the plain token."""
        self.routes = [
            ("GET", route(f"{self.api}/user"), lambda r: FakeAnswer(200, self.user_json(self.user_of(r)))),
            ("GET", route(f"{self.api}/projects"), self.projects),
            ("GET", route(project), self.one_project),
            ("GET", route(f"{project}/repository/files/{{name}}/raw"), self.raw),
            ("GET", route(f"{project}/repository/branches/{{name}}"), self.branch),
            ("GET", route(f"{project}/repository/tags/{{name}}"), self.tag),
            ("GET", route(f"{project}/repository/commits/{{sha}}"), self.one_commit),
            ("GET", route(f"{project}/merge_requests/{{iid}}"), self.merge_request),
            ("GET", route(f"{project}/deploy_keys"), self.keys),
            ("POST", route(f"{project}/deploy_keys"), self.add_key),
            ("DELETE", route(f"{project}/deploy_keys/{{id}}"), self.delete_key),
            ("GET", route(f"{project}/hooks"), self.hooks),
            ("POST", route(f"{project}/hooks"), self.add_hook),
            ("PUT", route(f"{project}/hooks/{{id}}"), self.edit_hook),
            ("DELETE", route(f"{project}/hooks/{{id}}"), self.delete_hook),
            ("POST", route(f"{project}/statuses/{{sha}}"), self.add_status),
            ("GET", route("/oauth/authorize"), self.agree),
            ("POST", route("/oauth/token"), self.tokens),
        ]

    def user_json(self, user: FakeUser) -> dict[str, Any]:
        told = {"id": user.id, "username": user.name, "name": user.name, "state": "active", "email": user.email}
        return {**told, "avatar_url": None, "web_url": f"{self.url}/{user.name}"}

    def project_json(self, repo: FakeRepo, user: FakeUser) -> dict[str, Any]:
        level = 40 if user.name in repo.admins else 30
        return {
            "id": repo.id,
            "name": repo.path.partition("/")[2],
            "path_with_namespace": repo.path,
            "default_branch": "main",
            "visibility": "private" if repo.private else "public",
            "ssh_url_to_repo": f"git@127.0.0.1:{repo.path}.git",
            "http_url_to_repo": f"{self.url}/{repo.path}.git",
            "web_url": f"{self.url}/{repo.path}",
            "permissions": {"project_access": {"access_level": level, "notification_level": 3}, "group_access": None},
        }

    def projects(self, request: FakeRequest) -> FakeAnswer:
        user = self.user_of(request)
        assert request.query["min_access_level"] == "40"
        found = []
        for repo in self.repos.values():
            if user.name in repo.admins:
                told = self.project_json(repo, user)
                told.pop("permissions")
                found.append(told)
        return self.page(request, found, "per_page")

    def one_project(self, request: FakeRequest, path: str) -> FakeAnswer:
        user, repo = self.user_of(request), self.repo_of(request, path)
        if path in repo.old_paths:
            return FakeAnswer(301, None, {"Location": f"{self.url}{self.api}/projects/{repo.id}"})
        return FakeAnswer(200, self.project_json(repo, user))

    def raw(self, request: FakeRequest, path: str, name: str) -> FakeAnswer:
        self.user_of(request)
        return FakeAnswer(200, self.file_at(self.repo_of(request, path), request.query["ref"], name))

    def commit_json(self, repo: FakeRepo, revision: str) -> dict[str, Any]:
        sha = self.resolved(repo, f"{revision}^{{commit}}")
        message = self.message_of(repo, sha)
        told = {"id": sha, "short_id": sha[:8], "title": message.partition("\n")[0], "message": message}
        return {**told, "web_url": f"{self.url}/{repo.path}/-/commit/{sha}"}

    def branch(self, request: FakeRequest, path: str, name: str) -> FakeAnswer:
        repo = self.repo_of(request, path)
        return FakeAnswer(200, {"name": name, "commit": self.commit_json(repo, f"refs/heads/{name}")})

    def tag(self, request: FakeRequest, path: str, name: str) -> FakeAnswer:
        repo = self.repo_of(request, path)
        target = self.resolved(repo, f"refs/tags/{name}")
        return FakeAnswer(200, {"name": name, "target": target, "commit": self.commit_json(repo, f"refs/tags/{name}")})

    def one_commit(self, request: FakeRequest, path: str, sha: str) -> FakeAnswer:
        return FakeAnswer(200, self.commit_json(self.repo_of(request, path), sha))

    def merge_request(self, request: FakeRequest, path: str, iid: str) -> FakeAnswer:
        for pull in self.repo_of(request, path).pulls:
            if pull.number == int(iid):
                return FakeAnswer(200, {"id": pull.id, "iid": pull.number, "title": pull.title, "sha": pull.sha})
        raise Refused(404, "404 Not found")

    def keys(self, request: FakeRequest, path: str) -> FakeAnswer:
        return self.page(request, self.administered(request, path).keys, "per_page")

    def add_key(self, request: FakeRequest, path: str) -> FakeAnswer:
        repo = self.administered(request, path)
        repo.keys.append({"id": self.next_id(), "created_at": "2026-01-01T00:00:00Z", **request.json()})
        return FakeAnswer(201, repo.keys[-1])

    def delete_key(self, request: FakeRequest, path: str, id: str) -> FakeAnswer:  # noqa: A002
        return self.removed(self.administered(request, path).keys, id)

    def hooks(self, request: FakeRequest, path: str) -> FakeAnswer:
        repo = self.administered(request, path)
        return self.page(request, [self.hook_json(hook) for hook in repo.hooks], "per_page")

    def hook_json(self, hook: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in hook.items() if name != "token"}

    def add_hook(self, request: FakeRequest, path: str) -> FakeAnswer:
        repo = self.administered(request, path)
        repo.hooks.append({"id": self.next_id(), **request.json()})
        return FakeAnswer(201, self.hook_json(repo.hooks[-1]))

    def edit_hook(self, request: FakeRequest, path: str, id: str) -> FakeAnswer:  # noqa: A002
        hook = next((hook for hook in self.administered(request, path).hooks if hook["id"] == int(id)), None)
        if hook is None:
            raise Refused(404, "404 Not found")
        hook.update(request.json())
        return FakeAnswer(200, self.hook_json(hook))

    def delete_hook(self, request: FakeRequest, path: str, id: str) -> FakeAnswer:  # noqa: A002
        return self.removed(self.administered(request, path).hooks, id)

    def removed(self, items: list[dict[str, Any]], id: str) -> FakeAnswer:  # noqa: A002
        item = next((item for item in items if item["id"] == int(id)), None)
        if item is None:
            raise Refused(404, "404 Not found")
        items.remove(item)
        return FakeAnswer(204)

    def add_status(self, request: FakeRequest, path: str, sha: str) -> FakeAnswer:
        repo, body = self.repo_of(request, path), request.json()
        self.user_of(request)
        if body["state"] not in ("pending", "running", "success", "failed", "canceled", "skipped"):
            raise Refused(400, "state does not have a valid value")
        last = next((one for one in reversed(repo.statuses) if one["name"] == body["name"]), None)
        if last is not None and last["state"] == body["state"] == "pending":
            raise Refused(
                400, "Cannot transition status via :enqueue from :pending (Reason(s): Status cannot transition)"
            )
        repo.statuses.append({"id": self.next_id(), "sha": self.resolved(repo, sha), **body})
        return FakeAnswer(201, repo.statuses[-1])

    def send(self, repo: FakeRepo, event: str, switch: str, payload: dict[str, Any]) -> None:
        body = json.dumps(payload).encode()
        for hook in repo.hooks:
            if not hook.get(switch):
                continue
            key = str(uuid.uuid4())
            headers = {"X-Gitlab-Event": event, "X-Gitlab-Event-UUID": str(uuid.uuid4()), "Idempotency-Key": key}
            if self.signs_at is None:
                headers["X-Gitlab-Token"] = hook["token"]
            else:
                signed = hmac.digest(hook["token"].encode(), f"{key}.{self.signs_at}.".encode() + body, "sha256")
                headers |= {"webhook-id": key, "webhook-timestamp": str(self.signs_at)}
                headers["webhook-signature"] = f"v1,{base64.b64encode(signed).decode()}"
            self.deliver(hook["url"], headers, body)

    def send_push(self, repo: FakeRepo, ref: str, before: str, after: str) -> None:
        branch = ref.startswith("refs/heads/")
        kind, switch = ("Push Hook", "push_events") if branch else ("Tag Push Hook", "tag_push_events")
        gone = not after.strip("0")
        whole = None if gone else self.resolved(repo, f"{after}^{{commit}}")
        known = [
            f"^{sha}" for name, sha in self.refs_of(repo).items() if name != ref and name.startswith("refs/heads/")
        ]
        new = git("rev-list", "--reverse", after, *known, folder=repo.folder).split() if branch and not gone else []
        commits = [{"id": sha, "message": self.message_of(repo, sha), "url": self.url} for sha in new]
        user = next(iter(self.users.values()))
        told: dict[str, Any] = {
            "object_kind": "push" if branch else "tag_push",
            "before": before,
            "after": after,
            "ref": ref,
        }
        told |= {"checkout_sha": whole, "user_id": user.id, "user_username": user.name, "project_id": repo.id}
        project = {"id": repo.id, "path_with_namespace": repo.path, "web_url": f"{self.url}/{repo.path}"}
        self.send(repo, kind, switch, {**told, "project": project, "commits": commits, "total_commits_count": len(new)})

    def send_pull(self, repo: FakeRepo, pull: FakePull, action: str) -> None:
        merge = {
            "id": pull.id,
            "iid": pull.number,
            "title": pull.title,
            "source_project_id": pull.fork.id,
            "target_project_id": repo.id,
            "source_branch": pull.head,
            "target_branch": "main",
            "last_commit": {"id": pull.sha, "message": self.message_of(repo, pull.sha)},
            "state": "opened" if pull.state == "open" else pull.state,
            "action": {"opened": "open", "closed": "close"}[action],
            "url": f"{self.url}/{repo.path}/-/merge_requests/{pull.number}",
        }
        user = next(iter(self.users.values()))
        told = {"object_kind": "merge_request", "user": {"id": user.id, "username": user.name}}
        project = {"id": repo.id, "path_with_namespace": repo.path}
        self.send(
            repo,
            "Merge Request Hook",
            "merge_requests_events",
            {**told, "project": project, "object_attributes": merge},
        )
