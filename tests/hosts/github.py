"""A GitHub Enterprise: its paths and JSON."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from joserfc import jwt
from joserfc.errors import JoseError

from runstream.hosts.port import HostType
from tests.hosts.fake import FakeAnswer, FakePull, FakeRepo, FakeRequest, FakeUser, Refused, git, route
from tests.hosts.gitea import FakeGitea
from tests.hosts.openapi import Operation


class FakeGitHub(FakeGitea):
    """What GitHub and Gitea share is there."""

    type: ClassVar[HostType] = "github"
    api = "/api/v3"
    size = "per_page"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        v3 = self.api
        self.routes = [
            ("GET", route(f"{v3}/repos/{{path:2}}/contents/{{name:*}}"), self.raw),
            ("GET", route(f"{v3}/repos/{{path:2}}/git/ref/{{name:*}}"), self.git_ref),
            ("GET", route(f"{v3}/repos/{{path:2}}/git/tags/{{sha}}"), self.tag_object),
            ("GET", route(f"{v3}/repos/{{path:2}}/commits/{{sha}}"), self.one_commit),
            ("GET", route(f"{v3}/repos/{{path:2}}/installation"), self.installation),
            ("POST", route(f"{v3}/app/installations/{{id}}/access_tokens"), self.installation_token),
            *self.routes,
        ]
        self.app_key: Any = None
        """What checks the tokens of the App."""
        self.app_requests: list[dict[str, Any]] = []

    def checked(self, request: FakeRequest, answer: FakeAnswer) -> FakeAnswer:
        path = request.path.removeprefix(self.api)
        if path == request.path or path.startswith("/repositories/"):
            return answer
        operation = Operation(request.method, path)
        operation.check_request(request.query, request.body)
        if answer.status >= 300 or isinstance(answer.body, bytes):
            return answer
        return replace(answer, body=operation.answer(answer.status, answer.body))

    def git_ref(self, request: FakeRequest, path: str, name: str) -> FakeAnswer:
        repo = self.repo_of(request, path)
        sha = self.resolved(repo, f"refs/{name}")
        kind = git("cat-file", "-t", sha, folder=repo.folder)
        told = {"type": kind, "sha": sha, "url": f"{self.url}/{sha}"}
        return FakeAnswer(200, {"ref": f"refs/{name}", "node_id": "n", "url": self.url, "object": told})

    def tag_object(self, request: FakeRequest, path: str, sha: str) -> FakeAnswer:
        repo = self.repo_of(request, path)
        commit = self.resolved(repo, f"{sha}^{{commit}}")
        told = {"type": "commit", "sha": commit, "url": f"{self.url}/{commit}"}
        tagger = {"date": "2026-01-01T00:00:00Z", "email": "ada@example.com", "name": "Ada"}
        head = {"node_id": "n", "tag": "t", "sha": sha, "url": self.url, "message": "a tag", "tagger": tagger}
        return FakeAnswer(200, {**head, "object": told})

    def add_status(self, request: FakeRequest, path: str, sha: str) -> FakeAnswer:
        if len(request.json()["description"]) > 140:
            raise Refused(422, "description is too long")
        return super().add_status(request, path, sha)

    def installation(self, request: FakeRequest, path: str) -> FakeAnswer:
        self.app_of(request)
        self.repo_of(request, path)
        return FakeAnswer(200, {"id": 77})

    def installation_token(self, request: FakeRequest, id: str) -> FakeAnswer:  # noqa: A002
        self.app_of(request)
        self.app_requests.append(request.json())
        token = f"ghs_{secrets.token_hex(18)}"
        next(iter(self.users.values())).tokens.add(token)
        return FakeAnswer(201, {"token": token, "expires_at": "2027-01-15T09:00:00Z", "permissions": {}})

    def app_of(self, request: FakeRequest) -> None:
        try:
            token = jwt.decode(request.headers["authorization"].removeprefix("Bearer "), self.app_key, ["RS256"])
        except (JoseError, ValueError):
            raise Refused(401, "A JSON web token could not be decoded") from None
        if token.claims["iss"] != "app-1" or token.claims["exp"] - token.claims["iat"] > 600:
            raise Refused(401, "'Expiration time' claim ('exp') is too far in the future")

    def send(self, repo: FakeRepo, event: str, payload: dict[str, Any]) -> None:
        body = json.dumps(payload).encode()
        for hook in repo.hooks:
            if event in hook["events"]:
                signature = hmac.new(hook["config"]["secret"].encode(), body, hashlib.sha256).hexdigest()
                headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": str(uuid.uuid4())}
                headers["X-Hub-Signature-256"] = f"sha256={signature}"
                self.deliver(hook["config"]["url"], headers, body)

    def send_push(self, repo: FakeRepo, ref: str, before: str, after: str) -> None:
        """A deletion is a push, too; `after` of an annotated tag is the tag's own object."""
        gone = not after.strip("0")
        push: dict[str, Any] = {"ref": ref, "before": before, "after": after, "deleted": gone, "commits": []}
        if not gone:
            whole = self.resolved(repo, f"{after}^{{commit}}")
            push["head_commit"] = {"id": whole, "message": self.message_of(repo, whole), "url": self.url}
            push["commits"] = [] if ref.startswith("refs/tags/") else [push["head_commit"]]
        self.send(repo, "push", {"head_commit": None, **push, **self.common(repo)})

    def send_pull(self, repo: FakeRepo, pull: FakePull, action: str) -> None:
        self.send(repo, "pull_request", {"action": action, "number": pull.number, **self.pull_json(repo, pull)})

    def user_json(self, user: FakeUser) -> dict[str, Any]:
        return {**super().user_json(user), "email": None, "type": "User"}
