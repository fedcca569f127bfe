"""A git host on loopback: an API, real bare repositories behind git over HTTP, signed webhooks, and faults on demand.

What all hosts have is here; each host's own paths and JSON are in `gitea`, `github` and `gitlab`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from runstream.hosts.port import HostSettings, HostType

ZERO = "0" * 40
_GIT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "no_proxy": "127.0.0.1",
}


def git(*arguments: str, folder: Path, given: bytes = b"") -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, input=given, env=_GIT, capture_output=True, check=True)
    return done.stdout.decode().strip()


@dataclass
class FakeUser:
    id: int
    name: str
    password: str
    email: str
    tokens: set[str] = field(default_factory=set)


@dataclass
class FakePull:
    id: int
    number: int
    title: str
    head: str
    sha: str
    fork: FakeRepo
    state: str = "open"


@dataclass
class FakeRepo:
    id: int
    path: str
    folder: Path
    admins: set[str]
    private: bool = False
    keys: list[dict[str, Any]] = field(default_factory=list)
    hooks: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[FakePull] = field(default_factory=list)
    old_paths: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class FakeRequest:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    user: FakeUser | None

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}

    def login(self) -> tuple[str, str]:
        kind, _, text = self.headers.get("authorization", "").partition(" ")
        user, _, password = base64.b64decode(text).decode().partition(":") if kind == "Basic" else ("", "", "")
        return user, password


@dataclass(frozen=True)
class FakeAnswer:
    status: int
    body: object = None
    """JSON, or bytes as they are."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delivered:
    """A webhook that was sent, and the status of the receiver's answer; 0 without one."""

    url: str
    headers: dict[str, str]
    body: bytes
    status: int


Fault = Callable[[FakeRequest], FakeAnswer | None]
"""What a request of the API gets instead of its answer; None for half of the answer."""
Route = Callable[..., FakeAnswer]


class Refused(Exception):  # noqa: N818
    """The API refuses a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = FakeAnswer(status, {"message": message})


class FakeHost:
    type: ClassVar[HostType]
    api: ClassVar[str]
    """The path of the API."""
    pull_refs: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tls: ssl.SSLContext | None = None
        """Set before `start` to serve https."""
        self.users: dict[str, FakeUser] = {}
        self.repos: dict[int, FakeRepo] = {}
        self.requests: list[FakeRequest] = []
        self.delivered: list[Delivered] = []
        self.faults: list[Fault] = []
        self.violations: list[str] = []
        """Requests and answers that are not as the host describes them."""
        self.codes: dict[str, tuple[str, str]] = {}
        """The user and the PKCE challenge of each OAuth2 code."""
        self.refresh_tokens: dict[str, str] = {}
        self.released = threading.Event()
        """Set to let slow answers go on."""
        self._ids = 100
        self._lock = threading.RLock()
        self._server: _Server | None = None
        self._port = 0
        self.routes: list[tuple[str, re.Pattern[str], Route]] = []

    # What a test does with it.

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def settings(self) -> HostSettings:
        return HostSettings(self.type, self.url, "client", "client-secret")

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Be down: connections are refused, until `start` takes the same port."""
        assert self._server is not None
        self._server.shutdown()
        self._server.close_all()
        self._server.server_close()
        self._server = None

    def next_id(self) -> int:
        with self._lock:
            self._ids += 1
            return self._ids

    def add_user(self, name: str, token: str = "") -> FakeUser:
        user = FakeUser(self.next_id(), name, f"password of {name}", f"{name}@example.com")
        user.tokens |= {token} if token else set()
        self.users[name] = user
        return user

    def add_repo(self, path: str, admins: set[str]) -> FakeRepo:
        repo = FakeRepo(self.next_id(), path, self.folder / f"{self.next_id()}.git", admins)
        git("init", "-q", "--bare", "-b", "main", str(repo.folder), folder=self.folder)
        git("config", "http.receivepack", "true", folder=repo.folder)
        self.repos[repo.id] = repo
        return repo

    def move(self, repo: FakeRepo, path: str) -> None:
        repo.old_paths.add(repo.path)
        repo.path = path

    def push(self, repo: FakeRepo, refs: str, files: dict[str, str], message: str = "a change", *more: str) -> str:
        """Push a commit on top of main with real git over HTTP; return its id. `refs` is where it is pushed to."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            clone = Path(place)
            git("init", "-q", "-b", "main", folder=clone)
            remote = f"{self.url}/{repo.path}.git"
            if git("for-each-ref", "refs/heads/main", folder=repo.folder):
                git("pull", "-q", remote, "main", folder=clone)
            for name, text in files.items():
                (clone / name).parent.mkdir(parents=True, exist_ok=True)
                (clone / name).write_text(text)
            git("add", "-A", folder=clone)
            git("commit", "-q", "--allow-empty", "-m", message, folder=clone)
            if refs.startswith("refs/tags/"):
                git("tag", "-a", "-m", "a tag", refs.removeprefix("refs/tags/"), folder=clone)
                git("push", "-q", remote, refs, *more, folder=clone)
            else:
                git("push", "-q", remote, f"HEAD:{refs}", *more, folder=clone)
            return git("rev-parse", "HEAD", folder=clone)

    def delete_ref(self, repo: FakeRepo, ref: str) -> None:
        git("push", "-q", f"{self.url}/{repo.path}.git", f":{ref}", folder=repo.folder)

    def open_pull(self, repo: FakeRepo, branch: str, title: str, fork: FakeRepo | None = None) -> FakePull:
        """Open a pull request of a branch, of the repository itself or of a fork; its webhook is sent."""
        source = fork or repo
        number = len(repo.pulls) + 1
        ref = f"{self.pull_refs}{number}/head"
        git("fetch", "-q", str(source.folder), f"+refs/heads/{branch}:{ref}", folder=repo.folder)
        sha = git("rev-parse", ref, folder=repo.folder)
        pull = FakePull(self.next_id(), number, title, branch, sha, source)
        repo.pulls.append(pull)
        self.send_pull(repo, pull, "opened")
        return pull

    def authorize(self, user: str, challenge: str) -> str:
        """Return the code with which a browser comes back."""
        code = secrets.token_hex(8)
        self.codes[code] = (user, challenge)
        return code

    # What a host fills in.

    def send_push(self, repo: FakeRepo, ref: str, before: str, after: str) -> None:
        raise NotImplementedError

    def send_pull(self, repo: FakeRepo, pull: FakePull, action: str) -> None:
        raise NotImplementedError

    def checked(self, request: FakeRequest, answer: FakeAnswer) -> FakeAnswer:
        """Check a request and its answer against the host's description; return the answer."""
        return answer

    # How it answers.

    def answer(self, request: FakeRequest) -> FakeAnswer:
        for method, pattern, route in self.routes:
            if method == request.method and (found := pattern.fullmatch(request.path)):
                arguments = {name: unquote(value) for name, value in found.groupdict().items()}
                try:
                    with self._lock:
                        answer = route(request, **arguments)
                except Refused as error:
                    answer = error.answer
                try:
                    return self.checked(request, answer)
                except Exception as error:
                    self.violations.append(f"{request.method} {request.path}: {error}")
                    raise
        return FakeAnswer(404, {"message": f"no route for {request.method} {request.path}"})

    def repo_of(self, request: FakeRequest, path: str) -> FakeRepo:
        for repo in self.repos.values():
            if path in (repo.path, *repo.old_paths, str(repo.id) if self.type == "gitlab" else repo.path):
                return repo
        raise Refused(404, "Not Found")

    def administered(self, request: FakeRequest, path: str) -> FakeRepo:
        repo = self.repo_of(request, path)
        if self.user_of(request).name not in repo.admins:
            raise Refused(403, "you are no administrator")
        return repo

    def user_of(self, request: FakeRequest) -> FakeUser:
        if request.user is None:
            raise Refused(401, "Bad credentials")
        return request.user

    def page(self, request: FakeRequest, items: list[Any], size: str) -> FakeAnswer:
        """Answer with a page of a list, and a link to the next one."""
        count, page = int(request.query.get(size, "30")), int(request.query.get("page", "1"))
        link = {}
        if len(items) > count * page:
            others = "&".join(f"{name}={value}" for name, value in request.query.items() if name != "page")
            link["Link"] = f'<{self.url}{request.path}?{others}&page={page + 1}>; rel="next"'
        return FakeAnswer(200, items[count * (page - 1) : count * page], link)

    def agree(self, request: FakeRequest) -> FakeAnswer:
        """The page where a user authorizes an application: the first user agrees at once."""
        code = self.authorize(next(iter(self.users)), request.query["code_challenge"])
        back = urlencode({"code": code, "state": request.query["state"]})
        return FakeAnswer(302, b"", {"Location": f"{request.query['redirect_uri']}?{back}"})

    def tokens(self, request: FakeRequest) -> FakeAnswer:
        """The token endpoint of OAuth2."""
        form = request.form()
        if (form["client_id"], form["client_secret"]) != ("client", "client-secret"):
            return FakeAnswer(401, {"error": "invalid_client"})
        if form["grant_type"] == "refresh_token":
            user = self.refresh_tokens.pop(form["refresh_token"], "")
        else:
            user, challenge = self.codes.pop(form["code"], ("", ""))
            if challenge != pkce(form["code_verifier"]):
                user = ""
        if not user:
            return FakeAnswer(200 if self.type == "github" else 400, {"error": "invalid_grant"})
        access, refresh = f"access-{secrets.token_hex(16)}", f"refresh-{secrets.token_hex(16)}"
        self.users[user].tokens.add(access)
        self.refresh_tokens[refresh] = user
        return FakeAnswer(
            200, {"access_token": access, "refresh_token": refresh, "expires_in": 7200, "token_type": "bearer"}
        )

    def file_at(self, repo: FakeRepo, commit: str, name: str) -> bytes:
        try:
            return subprocess.run(
                ["git", "show", f"{commit}:{name}"], cwd=repo.folder, env=_GIT, capture_output=True, check=True
            ).stdout
        except subprocess.CalledProcessError:
            raise Refused(404, "Not Found") from None

    def resolved(self, repo: FakeRepo, revision: str) -> str:
        try:
            return git("rev-parse", "--verify", "-q", "--end-of-options", revision, folder=repo.folder)
        except subprocess.CalledProcessError:
            raise Refused(404, "Not Found") from None

    def message_of(self, repo: FakeRepo, commit: str) -> str:
        return git("log", "-1", "--format=%B", commit, folder=repo.folder)

    def commits_between(self, repo: FakeRepo, before: str, after: str) -> list[str]:
        """The new commits of a push, oldest first."""
        known = [f"^{before}"] if before.strip("0") else []
        return git("rev-list", "--reverse", after, *known, folder=repo.folder).split()

    def deliver(self, url: str, headers: dict[str, str], payload: object) -> None:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        sent = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(sent, timeout=20) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        except OSError:
            status = 0
        self.delivered.append(Delivered(url, headers, body, status))

    def refs_of(self, repo: FakeRepo) -> dict[str, str]:
        listed = git("for-each-ref", "--format=%(refname) %(objectname)", folder=repo.folder)
        return dict(line.split() for line in listed.splitlines())


def pkce(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def route(text: str) -> re.Pattern[str]:
    """`/repos/{path:2}/keys/{id}`: a name takes one element of a path, `:2` two, `:*` any number."""
    places = {"1": "[^/]+", "2": "[^/]+/[^/]+", "*": ".+"}
    found = re.split(r"\{(\w+)(?::(.))?\}", text)
    pattern = re.escape(found[0])
    for name, count, rest in zip(found[1::3], found[2::3], found[3::3], strict=True):
        pattern += f"(?P<{name}>{places[count or '1']}){re.escape(rest)}"
    return re.compile(pattern)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], host: FakeHost) -> None:
        self.host = host
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError):
            super().handle_error(request, client_address)

    def close_all(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was faster


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        host, parts = self.server.host, urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body()
        if found := re.match(r"/(.+?)\.git(/.*)", parts.path):
            self._git(host, found[1], found[2], parts.query, body)
            return
        token = headers.get("authorization", "").partition(" ")[2]
        user = next((user for user in host.users.values() if token in user.tokens), None)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = FakeRequest(self.command, parts.path, query, headers, body, user)
        host.requests.append(request)
        fault = host.faults.pop(0) if host.faults else None
        answer = fault(request) if fault else host.answer(request)
        if answer is None:
            self._send(host.answer(request), half=True)
        else:
            self._send(answer, asked=headers.get("if-none-match", ""))

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = bytearray()
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(body)
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _send(self, answer: FakeAnswer, *, asked: str = "", half: bool = False) -> None:
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        headers = dict(answer.headers)
        if self.command == "GET" and answer.status == 200:
            tag = f'W/"{hash(content) & 0xFFFFFFFF:x}"'
            headers["ETag"] = tag
            if asked == tag:
                answer, content = FakeAnswer(304), b""
        if answer.status in (204, 304):
            content = b""
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self.close_connection = True

    def _git(self, host: FakeHost, path: str, rest: str, query: str, body: bytes) -> None:
        repo = next((repo for repo in host.repos.values() if repo.path == path), None)
        if repo is None:
            self._send(FakeAnswer(404, b"not found"))
            return
        before = host.refs_of(repo)
        environment = {
            **_GIT,
            "GIT_PROJECT_ROOT": str(repo.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": rest,
            "REQUEST_METHOD": self.command,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "git",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        after = host.refs_of(repo)
        # Before the answer: when `git push` ends, the webhooks have been sent.
        for ref in sorted(before.keys() | after.keys()):
            old, new = before.get(ref, ZERO), after.get(ref, ZERO)
            if old != new and ref.startswith(("refs/heads/", "refs/tags/")):
                host.send_push(repo, ref, old, new)
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def answers(status: int, **headers: str) -> Fault:
    """A fault: this status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: FakeAnswer(status, {"message": f"fault {status}"}, named)


def half(request: FakeRequest) -> None:
    """A fault: half of the answer."""


@contextmanager
def serving(host: FakeHost) -> Iterator[FakeHost]:
    host.start()
    try:
        yield host
    finally:
        host.released.set()
        host.stop()
