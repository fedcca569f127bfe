"""An API server of Kubernetes for tests, with a node that runs containers as processes of this machine.

It is no cluster: it keeps objects, checks each that it gets with the published schemas and with rules that a schema
cannot tell, answers watches, and runs commands. Containers have a root file system of busybox, own namespaces for
mounts and processes, and the machine's network. It can be slow, away, forgetful (410), and refuse.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate.utils as kubernetes_validate  # type: ignore[import-untyped]
import psutil
import pytest
import uvicorn
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.docker_engine import root_file_system

Object = dict[str, Any]
IMAGE = "tiny:1"
"""An image of busybox."""
BARE = "bare:1"
"""An image without a shell."""
PRIVATE = "registry.test/private:1"
"""An image that needs the login `ci`, `topsecret`."""
NAMESPACE, TOKEN = "ci", "a-token"
OLDEST, NEWEST = "1.25", "1.37"
"""Versions whose schemas check each object."""
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_KINDS = {"pods": "Pod", "secrets": "Secret", "configmaps": "ConfigMap", "leases": "Lease", "nodes": "Node"}
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"|[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_ENTER = """
mount --make-rprivate /
mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && r=$1 && shift && exec "$CHROOT" "$r" "$@"
"""


@cache
def missing() -> str:
    """Return what is missing for containers on this machine; empty if nothing is."""
    absent = [name for name in ("unshare", "nsenter", "chroot", "busybox") if shutil.which(name) is None]
    if absent:
        return f"no {' and '.join(absent)} (apt-get install util-linux busybox-static)"
    if os.geteuid():
        return "only root can make namespaces without a user"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return tried.stderr.decode().strip()


needs_containers = pytest.mark.skipif(bool(missing()), reason=f"no containers: {missing()}")


class RefusedError(Exception):
    """An answer with a status of failure."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


@dataclass(slots=True)
class Running:
    """A container: its first process, seen from outside and as the first of its namespace."""

    outer: asyncio.subprocess.Process
    inner: int
    spec: Object
    environment: dict[str, str]
    log: bytearray = field(default_factory=bytearray)
    ended: int | None = None
    """Its exit status."""
    reading: asyncio.Task[None] | None = None


class KubernetesApi:
    """The API server. Use `started`."""

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        """`certificate` is a file (PEM) with a key and a certificate; with None, there is no TLS."""
        self.folder = folder
        self._certificate = certificate
        self.port = 0
        self.asked: list[str] = []
        """Method and path of each request."""
        self.made: list[Object] = []
        """Each object as it was sent."""
        self.failing = 0
        """The number of requests that are answered with 503."""
        self.refusing: dict[str, int] = {}
        """By plural, the status with which creating is refused."""
        self.protocols: tuple[str, ...] = _PROTOCOLS
        self.held: asyncio.Event | None = None
        """While set to an unset event, requests wait for it."""
        self.objects: dict[tuple[str, str], Object] = {}
        self._version = 100
        self._history: list[tuple[int, str, Object]] = []
        self._forgotten = 0
        """Watches from versions before it are answered with 410."""
        self._watches: set[tuple[str, asyncio.Queue[Object | None]]] = set()
        self._running: dict[tuple[str, str], Running] = {}
        self._nodes: dict[str, asyncio.Task[None]] = {}
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        for name, architecture in (("node1", "amd64"), ("node2", "arm64")):
            self._store("nodes", {"metadata": {"name": name}, "status": {"nodeInfo": _node_info(architecture)}})

    def write_config(self, authority: Path | None = None) -> Path:
        """Write the configuration of a client that trusts this authority to a file; return its path."""
        scheme = "http" if self._certificate is None else "https"
        cluster = {"server": f"{scheme}://127.0.0.1:{self.port}"}
        if authority is not None:
            cluster["certificate-authority"] = str(authority)
        named: dict[str, Any] = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "config"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "x", **named}))
        return path

    async def start(self) -> None:
        """Listen; on the same port as before."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app(),
                ws="wsproto",
                lifespan="off",
                log_config=None,
                timeout_graceful_shutdown=0,
                loop="none",
                ssl_certfile=self._certificate,
                ssl_keyfile=self._certificate,
            )
        )
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        self._serving = asyncio.create_task(self._server.serve([listening]))
        while not self._server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # sleeps: the server has no event for it

    async def stop(self) -> None:
        """Close all connections, and listen no more. Containers go on."""
        if self._server is not None and self._serving is not None:
            self.end_watches()
            self._server.should_exit = self._server.force_exit = True
            await asyncio.wait({self._serving})
            self._server = self._serving = None

    async def end(self) -> None:
        """Stop, and end all containers."""
        await self.stop()
        for kind, name in list(self.objects):
            if kind == "pods":
                await self._end_pod(name)

    def names(self, plural: str) -> list[str]:
        """The names of the objects of a kind."""
        return sorted(name for kind, name in self.objects if kind == plural)

    def put(self, plural: str, found: Object) -> None:
        """Add an object of somebody else."""
        self._store(plural, found)

    async def changed(self, plural: str, reached: Any) -> None:
        """Wait until the names of the objects of a kind are as `reached` says."""
        queue: asyncio.Queue[Object | None] = asyncio.Queue()
        watch = (plural, queue)
        self._watches.add(watch)
        try:
            while not reached(self.names(plural)):
                await queue.get()
        finally:
            self._watches.discard(watch)

    def processes(self) -> list[int]:
        """The first processes of all containers."""
        return [container.inner for container in self._running.values()]

    def end_watches(self) -> None:
        """End all watches."""
        for _kind, queue in self._watches:
            queue.put_nowait(None)

    def forget(self) -> None:
        """End all watches; those from now on that begin at an older version are answered with 410."""
        self._version += 10
        self._forgotten = self._version
        self.end_watches()

    async def remove(self, name: str) -> None:
        """Remove a pod, as an administrator does."""
        await self._delete("pods", name)

    def evict(self, name: str, reason: str, message: str) -> None:
        """End a pod as the node does."""
        pod = copy.deepcopy(self.objects["pods", name])
        pod["status"] |= {"phase": "Failed", "reason": reason, "message": message}
        self._store("pods", pod)
        for (of, _container), running in self._running.items():
            if of == name:
                os.kill(running.outer.pid, signal.SIGKILL)

    # The server.

    def _app(self) -> Starlette:
        base = "/api/v1/namespaces/{namespace}/{plural}"
        leases = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/{plural}"
        return Starlette(
            routes=[
                Route("/version", self._on_version),
                Route("/api/v1/{plural}", self._on_collection, methods=["GET"]),
                WebSocketRoute("/api/v1/namespaces/{namespace}/pods/{name}/exec", self._on_exec),
                Route("/api/v1/namespaces/{namespace}/pods/{name}/log", self._on_log),
                *(
                    each
                    for path in (base, leases)
                    for each in (
                        Route(path, self._on_collection, methods=["GET", "POST"]),
                        Route(f"{path}/{{name}}", self._on_object, methods=["GET", "PUT", "PATCH", "DELETE"]),
                    )
                ),
            ],
            exception_handlers={RefusedError: _refused},
        )

    async def _allow(self, request: Request) -> None:
        method = "WATCH" if request.query_params.get("watch") == "true" else request.method
        self.asked.append(f"{method} {request.url.path}")
        if self.held is not None:
            await self.held.wait()
        if self.failing:
            self.failing -= 1
            raise RefusedError(503, "ServiceUnavailable", "the server is currently unable to handle the request")
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise RefusedError(401, "Unauthorized", "Unauthorized")
        if request.path_params.get("namespace", NAMESPACE) != NAMESPACE:
            raise RefusedError(403, "Forbidden", "pods is forbidden in this namespace")

    async def _on_version(self, request: Request) -> Response:
        await self._allow(request)
        return JSONResponse({"major": "1", "minor": "37", "gitVersion": "v1.37.0"})

    async def _on_collection(self, request: Request) -> Response:
        await self._allow(request)
        plural = request.path_params["plural"]
        if request.method == "POST":
            if plural in self.refusing:
                raise RefusedError(self.refusing[plural], "Forbidden", f"{plural} is forbidden: exceeded quota")
            return JSONResponse(self._create(plural, await request.json()), 201)
        selector = request.query_params.get("labelSelector", "")
        if request.query_params.get("watch") == "true":
            return self._watch(plural, selector, int(request.query_params.get("resourceVersion", "0")))
        found = [each for (kind, _name), each in self.objects.items() if kind == plural and _selected(each, selector)]
        kind = f"{_KINDS[plural]}List"
        meta = {"resourceVersion": str(self._version)}
        return JSONResponse({"kind": kind, "apiVersion": "v1", "metadata": meta, "items": found})

    def _watch(self, plural: str, selector: str, version: int) -> Response:
        if version < self._forgotten:
            status = _status(410, "Expired", "too old resource version")
            return Response(json.dumps({"type": "ERROR", "object": status}) + "\n", media_type="application/json")
        queue: asyncio.Queue[Object | None] = asyncio.Queue()
        for at, kind, event in self._history:
            if at > version and kind == plural:
                queue.put_nowait(event)
        watch = (plural, queue)
        self._watches.add(watch)

        async def events() -> AsyncIterator[bytes]:
            try:
                while (event := await queue.get()) is not None:
                    if _selected(event["object"], selector):
                        yield json.dumps(event).encode() + b"\n"
            finally:
                self._watches.discard(watch)

        return StreamingResponse(events(), media_type="application/json")

    async def _on_object(self, request: Request) -> Response:
        await self._allow(request)
        plural, name = request.path_params["plural"], request.path_params["name"]
        found = self.objects.get((plural, name))
        if found is None:
            raise RefusedError(404, "NotFound", f'{plural} "{name}" not found')
        if request.method == "DELETE":
            await self._delete(plural, name)
            return JSONResponse({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        if request.method == "PATCH":
            assert request.headers["content-type"] == "application/merge-patch+json"
            merged = _merged(copy.deepcopy(found), await request.json())
            check(plural, merged)
            return JSONResponse(self._store(plural, merged))
        return JSONResponse(found)

    async def _on_log(self, request: Request) -> Response:
        await self._allow(request)
        running = self._running.get((request.path_params["name"], request.query_params.get("container", "")))
        if running is None:
            raise RefusedError(404, "NotFound", "no such container")
        return Response(bytes(running.log))

    def _create(self, plural: str, wanted: Object) -> Object:
        self.made.append(copy.deepcopy(wanted))
        check(plural, wanted)
        name = wanted["metadata"]["name"]
        if (plural, name) in self.objects:
            raise RefusedError(409, "AlreadyExists", f'{plural} "{name}" already exists')
        if plural == "secrets":
            given = wanted.pop("stringData", None) or {}
            encoded = {key: base64.b64encode(text.encode()).decode() for key, text in given.items()}
            wanted["data"] = (wanted.get("data") or {}) | encoded
        if plural == "pods":
            wanted["status"] = {"phase": "Pending"}
            self._nodes[name] = asyncio.create_task(self._start_pod(name))
        return self._store(plural, wanted, "ADDED")

    def _store(self, plural: str, found: Object, change: str = "MODIFIED") -> Object:
        self._version += 1
        found["metadata"] |= {"resourceVersion": str(self._version), "namespace": NAMESPACE}
        found["metadata"].setdefault("uid", f"uid-{self._version}")
        self.objects[plural, found["metadata"]["name"]] = found
        self._tell(plural, change, found)
        return found

    def _tell(self, plural: str, change: str, found: Object) -> None:
        self._history.append((self._version, plural, {"type": change, "object": copy.deepcopy(found)}))
        for kind, queue in self._watches:
            if kind == plural:
                queue.put_nowait({"type": change, "object": copy.deepcopy(found)})

    async def _delete(self, plural: str, name: str) -> None:
        if plural == "pods":
            await self._end_pod(name)
        if (found := self.objects.pop((plural, name), None)) is not None:
            self._version += 1
            self._tell(plural, "DELETED", found)

    # The node.

    async def _start_pod(self, name: str) -> None:
        spec = self.objects["pods", name]["spec"]
        architecture = (spec.get("nodeSelector") or {}).get("kubernetes.io/arch", "amd64")
        if architecture not in ("amd64", "arm64"):
            message = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            self._say(name, {"conditions": [condition]})
            return
        spec["nodeName"] = "node1"
        waiting = {container["name"]: _waiting(container, "ContainerCreating", "") for container in spec["containers"]}
        self._say_containers(name, waiting)
        for container in spec["containers"]:
            if error := self._not_pulled(container, spec):
                self._say_containers(name, waiting | {container["name"]: _waiting(container, "ErrImagePull", error)})
                backing_off = f'Back-off pulling image "{container["image"]}"'
                waits = _waiting(container, "ImagePullBackOff", backing_off)
                self._say_containers(name, waiting | {container["name"]: waits})
                return
        for container in spec["containers"]:
            try:
                await self._start_container(name, container)
            except FileNotFoundError as error:
                message = f'failed to create containerd task: exec: "{error}": executable file not found in $PATH'
                self._say_containers(
                    name, waiting | {container["name"]: _waiting(container, "RunContainerError", message)}
                )
                return
        self._say_states(name)

    def _not_pulled(self, container: Object, spec: Object) -> str:
        image = container["image"]
        if image in (IMAGE, BARE):
            return ""
        if image == PRIVATE:
            for reference in spec.get("imagePullSecrets") or ():
                secret = self.objects.get(("secrets", reference["name"]))
                if secret is not None and secret["type"] == "kubernetes.io/dockerconfigjson":
                    auths = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]
                    if auths.get("registry.test", {}).get("auth") == base64.b64encode(b"ci:topsecret").decode():
                        return ""
            return f'failed to pull "{image}": 401 Unauthorized'
        return f'failed to resolve reference "{image}": not found'

    async def _start_container(self, name: str, container: Object) -> None:
        root = self.folder / name / container["name"]
        await asyncio.to_thread(_make_root, root, bare=container["image"] == BARE)
        command = [*(container.get("command") or ["/bin/sh", "-c", "exit 0"]), *(container.get("args") or ())]
        if not (root / command[0].lstrip("/")).exists():
            raise FileNotFoundError(command[0])
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/root", "OF_IMAGE": "yes", **self._environment(container)}
        outer = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--"),
            *("/bin/sh", "-c", _ENTER, "sh", str(root), *command),
            stdin=asyncio.subprocess.PIPE if container.get("stdin") else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment | {"CHROOT": shutil.which("chroot") or ""},
        )
        while (inner := _entered(outer.pid)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # sleeps: the kernel tells no event for it
        running = self._running[name, container["name"]] = Running(outer, inner, container, environment)
        running.reading = asyncio.create_task(self._read(name, running))

    def _environment(self, container: Object) -> dict[str, str]:
        found = {}
        for each in container.get("env") or ():
            reference = each["valueFrom"]["secretKeyRef"]
            secret = self.objects["secrets", reference["name"]]
            found[each["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
        return found

    async def _read(self, name: str, running: Running) -> None:
        assert running.outer.stdout is not None
        while chunk := await running.outer.stdout.read(4096):
            running.log += chunk
        status = await running.outer.wait()
        running.ended = status if status >= 0 else 128 - status
        if ("pods", name) in self.objects and self.objects["pods", name]["status"]["phase"] == "Running":
            self._say_states(name)

    def _say_states(self, name: str) -> None:
        """Say which containers run, and which have ended."""
        statuses = {}
        for (of, container), running in self._running.items():
            if of == name:
                state: Object = {"running": {"startedAt": "2026-11-29T12:00:00Z"}}
                if (code := running.ended) is not None:
                    state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
                statuses[container] = _status_of(running.spec, state)
        self._say_containers(name, statuses, "Running")

    def _say_containers(self, name: str, statuses: dict[str, Object], phase: str = "") -> None:
        status: Object = {"containerStatuses": list(statuses.values())}
        if phase:
            status["phase"] = phase
        self._say(name, status)

    def _say(self, name: str, status: Object) -> None:
        if ("pods", name) in self.objects:
            pod = copy.deepcopy(self.objects["pods", name])
            pod["status"] |= status
            self._store("pods", pod)

    async def _end_pod(self, name: str) -> None:
        if (starting := self._nodes.pop(name, None)) is not None:
            starting.cancel()
            await asyncio.wait({starting})
        for of, container in list(self._running):
            if of == name:
                running = self._running.pop((of, container))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(running.outer.pid, signal.SIGKILL)
                await running.outer.wait()
        await asyncio.to_thread(shutil.rmtree, self.folder / name, ignore_errors=True)

    # Commands.

    async def _on_exec(self, socket: WebSocket) -> None:
        asked = socket.query_params
        name, container = socket.path_params["name"], asked.get("container", "")
        self.asked.append(f"EXEC {name} {' '.join(asked.getlist('command'))}")
        offered = socket.scope["subprotocols"]
        protocol = next((each for each in self.protocols if each in offered), None)
        running = self._running.get((name, container))
        if socket.headers.get("authorization") != f"Bearer {TOKEN}" or protocol is None or running is None:
            await socket.close()  # before it is accepted: 403
            return
        await socket.accept(protocol)
        closes_input = protocol == _PROTOCOLS[0]
        command = Command(socket, running, asked.getlist("command"), tty=asked.get("tty") == "true")
        await command.run(with_input=asked.get("stdin") == "true", closes_input=closes_input)
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.close()


class Command:
    """A command in a container."""

    def __init__(self, socket: WebSocket, running: Running, arguments: list[str], *, tty: bool) -> None:
        self._socket = socket
        self._running = running
        self._arguments = arguments
        self._tty = tty

    async def run(self, *, with_input: bool, closes_input: bool) -> None:
        """Run it, and send its outputs and its result."""
        if self._running.ended is not None or not self._running.inner:
            await self._send(3, json.dumps(_status(500, "InternalError", "container not running")).encode())
            return
        context = self._running.spec.get("securityContext") or {}
        user = ["-S", str(context["runAsUser"])] if context.get("runAsUser") is not None else []
        group = ["-G", str(context["runAsGroup"])] if context.get("runAsGroup") is not None else []
        words = ["setsid", *(["--ctty"] if self._tty else []), "--wait"]
        words += ["nsenter", "-t", str(self._running.inner), "-m", "-p", "-r", "-w", *user, *group, "--"]
        ours, theirs = pty.openpty() if self._tty else (-1, -1)
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                *self._arguments,
                stdin=theirs if self._tty else asyncio.subprocess.PIPE if with_input else asyncio.subprocess.DEVNULL,
                stdout=theirs if self._tty else asyncio.subprocess.PIPE,
                stderr=theirs if self._tty else asyncio.subprocess.PIPE,
                env=self._running.environment,
            )
        except ProcessLookupError:
            await self._send(3, json.dumps(_status(500, "InternalError", "container not running")).encode())
            return
        if self._tty:
            os.close(theirs)
        inputs = asyncio.create_task(self._inputs(process, ours, closes_input=closes_input))
        try:
            outputs = (
                [self._terminal(ours)] if self._tty else [self._copy(process.stdout, 1), self._copy(process.stderr, 2)]
            )
            errors = bytearray()
            for found in await asyncio.gather(*outputs):
                errors += found
            status = await process.wait()
        finally:
            inputs.cancel()
            if ours >= 0:
                os.close(ours)
        code = status if status >= 0 else 128 - status
        await self._send(3, json.dumps(_result(code, errors.decode(errors="replace"))).encode())

    async def _inputs(self, process: asyncio.subprocess.Process, terminal: int, *, closes_input: bool) -> None:
        with contextlib.suppress(WebSocketDisconnect, ConnectionError):
            while True:
                message = await self._socket.receive_bytes()
                channel, data = message[0], message[1:]
                if channel == 0 and process.stdin is not None:
                    process.stdin.write(data)
                    await process.stdin.drain()
                elif channel == 4 and terminal >= 0:
                    size = json.loads(data)
                    packed = struct.pack("HHHH", size["Height"], size["Width"], 0, 0)
                    fcntl.ioctl(terminal, termios.TIOCSWINSZ, packed)
                elif channel == 255 and closes_input and process.stdin is not None:
                    process.stdin.close()

    async def _copy(self, reader: asyncio.StreamReader | None, channel: int) -> bytes:
        assert reader is not None
        last = b""
        while chunk := await reader.read(32 << 10):
            last = chunk
            await self._send(channel, chunk)
        return last if channel == 2 else b""

    async def _terminal(self, descriptor: int) -> bytes:
        while True:
            try:
                chunk = await asyncio.to_thread(os.read, descriptor, 4096)
            except OSError:  # its last user has ended
                return b""
            if not chunk:
                return b""
            await self._send(1, chunk)

    async def _send(self, channel: int, data: bytes) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.send_bytes(bytes((channel,)) + data)


def _result(code: int, said: str) -> Object:
    if not code:
        return {"metadata": {}, "status": "Success"}
    if code == 127 and said.startswith("nsenter: failed to execute"):
        return _status(500, "InternalError", f'exec: "{said.split()[3]}": stat: no such file or directory')
    if said.startswith("nsenter:"):  # its first process has just ended
        return _status(500, "InternalError", "container not running")
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _entered(outer: int) -> int | None:
    """Return the first process of a container once it has its own root; 0 for one that has ended already."""
    try:
        children = psutil.Process(outer).children()
        if children and Path(f"/proc/{children[0].pid}/root").readlink() != Path("/"):
            return children[0].pid
        return 0 if psutil.Process(outer).status() == psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return 0


def _make_root(root: Path, *, bare: bool) -> None:
    root.mkdir(parents=True)
    if bare:
        (root / "bin").mkdir()
        shutil.copy(shutil.which("busybox") or "", root / "bin" / "true")
    else:
        with tarfile.open(fileobj=io.BytesIO(root_file_system())) as tar:
            tar.extractall(root, filter="fully_trusted")  # noqa: S202
    for name in ("proc", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)


def _status_of(container: Object, state: Object) -> Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": "running" in state,
        "restartCount": 0,
        "state": state,
    }


def _node_info(architecture: str) -> Object:
    names = ("bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion", "machineID")
    others = dict.fromkeys((*names, "operatingSystem", "osImage", "systemUUID"), "")
    return {"architecture": architecture, **others}


def _waiting(container: Object, reason: str, message: str) -> Object:
    waiting = {"reason": reason, "message": message} if message else {"reason": reason}
    return _status_of(container, {"waiting": waiting})


def _status(code: int, reason: str, message: str) -> Object:
    told = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return told | {"message": message, "reason": reason, "code": code}


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse(_status(error.code, error.reason, str(error)), error.code)


def _selected(found: Object, selector: str) -> bool:
    labels = found["metadata"].get("labels") or {}
    wanted = dict(part.split("=", 1) for part in selector.replace("==", "=").split(",") if part)
    return all(labels.get(name) == value for name, value in wanted.items())


def _merged(found: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name) or {}, value)
    return found


@cache
def _validator(version: str, api_version: str, kind: str) -> Any:
    """Return the validator that `kubernetes_validate.validate` makes for each object."""
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = kubernetes_validate.schema_contents(f"{folder}/{kind.lower()}-{group}.json", version)
    registry: Any = Resource.from_contents(_definitions(folder, version)) @ Registry()
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ registry)


@cache
def _definitions(folder: str, version: str) -> Object:
    found: Object = kubernetes_validate.schema_contents(f"{folder}/_definitions.json", version)
    return found


def check(plural: str, wanted: Object) -> None:
    """Raise RefusedError for an object that an API server refuses."""
    for version in (OLDEST, NEWEST):
        for error in _validator(version, wanted["apiVersion"], wanted["kind"]).iter_errors(wanted):
            raise RefusedError(422, "Invalid", f"{version}: {error.message}")
    meta = wanted["metadata"]
    problems = [] if _NAME.fullmatch(meta["name"]) else [f"metadata.name: {meta['name']!r}"]
    problems += [
        f"label {name}: {value!r}"
        for name, value in (meta.get("labels") or {}).items()
        if not _LABEL_VALUE.fullmatch(value)
    ]
    if plural == "pods":
        problems += _problems_of_pod(wanted["spec"])
    if plural == "secrets":
        keys = {**(wanted.get("data") or {}), **(wanted.get("stringData") or {})}
        problems += [f"data: {key!r}" for key in keys if not re.fullmatch(r"[-._a-zA-Z0-9]+", key)]
        if wanted.get("type") == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" not in keys:
            problems.append("data[.dockerconfigjson]: required")
    if problems:
        raise RefusedError(422, "Invalid", f"{plural} is invalid: {'; '.join(problems)}")


def _problems_of_pod(spec: Object) -> list[str]:
    names = [container["name"] for container in spec["containers"]]
    volumes = {volume["name"] for volume in spec.get("volumes") or ()}
    problems = [] if len(set(names)) == len(names) else ["spec.containers: duplicate names"]
    for container in spec["containers"]:
        context = container.get("securityContext") or {}
        if not container.get("image"):
            problems.append("image: required")
        if context.get("privileged") and context.get("allowPrivilegeEscalation") is False:
            problems.append("cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
        if "runAsGroup" in context and context.get("runAsUser") is None and context["runAsGroup"] is not None:
            problems.append("runAsGroup without runAsUser")
        paths = [mount["mountPath"] for mount in container.get("volumeMounts") or ()]
        problems += [] if all(paths) else ["volumeMounts: mountPath: Required value"]
        problems += [] if len(set(paths)) == len(paths) else ["volumeMounts: mountPath must be unique"]
        problems += [
            f"volumeMounts: {mount['name']!r} not found"
            for mount in container.get("volumeMounts") or ()
            if mount["name"] not in volumes
        ]
        problems += [
            f"env: {each['name']!r}"
            for each in container.get("env") or ()
            if not re.fullmatch(r"[ -<>-~]+", each["name"])
        ]
    return problems


@contextlib.asynccontextmanager
async def started(folder: Path, certificate: Path | None = None) -> AsyncIterator[KubernetesApi]:
    """Yield an API server that listens."""
    api = KubernetesApi(folder, certificate)
    await api.start()
    try:
        yield api
    finally:
        await api.end()
