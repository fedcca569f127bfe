"""`runstream doctor`: check this machine, the servers, the log and its consumers, and say what to do.

A finding is `ok`, `warning` (works, but not as well as it should), `problem` (does not work, or loses data) or
`unknown` (only another user can ask). Each check yields the findings of one thing: the running service, the machine,
the keys of secrets, what crosses the network, NATS with the streams of the log, Postgres, the object storage, the
consumers of the log.

How NATS syncs to disk can be asked only in its system account; the embedded server has a user there.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import ipaddress
import os
import platform
import resource
import secrets
import shutil
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

import nats.errors
import orjson
import uvloop
from cyclopts import Parameter
from nats.aio.client import Client
from rich.text import Text

from runstream.api import Stall
from runstream.cli.connection import with_program
from runstream.cli.output import Column, Output, print_json, print_table
from runstream.commits import Position
from runstream.counting import counted
from runstream.database import Database
from runstream.database.connection import connect
from runstream.database.migrating import migration_state
from runstream.domain.executor import SKEW_SECONDS
from runstream.errors import InternalError, RunstreamError
from runstream.executor.drivers.process import missing_sandbox
from runstream.executor.limits import control_groups, counts_processes
from runstream.executor.workdir import ExecutorPlace
from runstream.jetstream.api import StoreUse, request, store_use
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.messaging import Questions
from runstream.leases import ExecutorSightings, LeaseBucket
from runstream.log import streams
from runstream.log.jetstream import open_log
from runstream.log.reader import end_of, stream_state
from runstream.objects import BytesSource, ObjectStorage
from runstream.objects.open import open_objects
from runstream.objects.s3_location import parse_location
from runstream.open_files import FILES_OF_A_TASK, OPEN_FILES
from runstream.sealing import Keyring
from runstream.service.configuration import ServerOptions, settings_of
from runstream.service.data_dir import NEEDED_BYTES, holder
from runstream.service.serve import needs_database
from runstream.service.servers import reached
from runstream.service.stalls import Consumed
from runstream.settings import Settings
from runstream.subjects import Subjects

Status = Literal["ok", "warning", "problem", "unknown"]
LOW_BYTES = 2 << 30
_SECRETS_KEYS = "secrets keys"
SAMPLES = 16
"""Number of messages read of each stream, evenly from first to last; `runstream fsck` reads all."""
_REPLICA_ATTEMPTS, _REPLICA_SECONDS = 20, 0.1
_REQUEST_SECONDS = 3.0
OLDEST_NATS = (2, 14)
SMALLEST_PAYLOAD = 1 << 20
_CLOCK_SECONDS = 1.0
_NEARLY_FULL = 0.1
"""Free fraction of the limit below which the store is nearly full."""
_ALWAYS = "set `sync_interval: always` in the jetstream block of the server's configuration"
OLDEST_POSTGRES = 140000
FEWEST_CONNECTIONS = 40
_DURABLE = {
    "fsync": "a power cut may destroy the database (it can be made again from the log, but that takes time)",
    "full_page_writes": "a power cut may destroy the database (it can be made again from the log)",
    "synchronous_commit": "migrations and parked commits may be lost in a power cut",
}
_TLS_MODES = ("require", "verify-ca", "verify-full")
_PROBES = "probes/"
_FILES_OF_A_SERVICE = 256
"""Descriptors for everything but tasks: connections of clients, NATS, Postgres, objects, and a reserve."""
_COLUMNS = (Column(""), Column("what", wraps=True), Column("found", wraps=True), Column("what to do", wraps=True))
_STYLES: dict[Status, str] = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "dim"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: what was found, and what to do about it."""

    what: str
    status: Status
    found: str
    todo: str = ""


def judged(what: str, found: str, *, good: bool, todo: str, otherwise: Status = "problem") -> Finding:
    """Return a finding that is ok when `good`, else `otherwise` with what to do."""
    return Finding(what, "ok", found) if good else Finding(what, otherwise, found, todo)


async def guarded(what: str, findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    """Yield the findings; a check that fails yields a problem instead of the rest."""
    try:
        async for finding in findings:
            yield finding
    except RunstreamError as error:
        yield Finding(what, "problem", error.message, error.hint)
    except OSError as error:  # the kernel or a filter refuses what the check needs
        yield Finding(what, "problem", str(error), "allow this user what the check needs, or check by hand")


def running_service(settings: Settings) -> Finding:
    """Check whether a process holds the data directory."""
    pid = holder(settings.data_dir)
    if pid is not None:
        return Finding("service", "ok", f"running in {settings.data_dir} (process {pid})")
    if settings.nats_url:
        return Finding("service", "ok", f"not running in {settings.data_dir}; the settings name servers of their own")
    return Finding("service", "warning", f"not running in {settings.data_dir}", "start it with `runstream serve`")


def connections(settings: Settings) -> Iterator[Finding]:
    """Check that what crosses the network is encrypted, and that the API listens on this machine alone."""
    yield judged(
        "TLS",
        f"not required for {', '.join(readable)}"
        if (readable := _readable(settings))
        else "nothing crosses a network without it",
        good=not readable,
        todo="use tls:// for NATS, ?sslmode=verify-full for Postgres, and no tls=off for the objects",
        otherwise="warning",
    )
    if "gateway" in settings.components:
        yield judged(
            "API",
            f"listens on {settings.host}" + ("" if _is_local(settings.host) else ", without TLS"),
            good=_is_local(settings.host),
            todo="listen on 127.0.0.1, and put a proxy with TLS in front: each request carries the token",
            otherwise="warning",
        )


def _readable(settings: Settings) -> list[str]:
    """Return the servers on other machines that are asked without requiring TLS."""
    found = []
    if any(
        url.scheme in ("nats", "ws") and not _is_local(url.hostname or "")
        for url in map(urlsplit, settings.nats_url.split(",") if settings.nats_url else ())
    ):
        found.append("NATS")
    database = urlsplit(settings.database_url)
    options = dict(parse_qsl(database.query))
    if not _is_local(options.get("host") or database.hostname or "") and options.get("sslmode") not in _TLS_MODES:
        found.append("Postgres")
    if settings.objects_url:
        location = parse_location(settings.objects_url)
        if not location.tls and not _is_local(urlsplit(f"//{location.endpoint}").hostname or ""):
            found.append("the object storage")
    return found


def _is_local(host: str) -> bool:
    """Return whether a host is this machine: empty, a socket's path, or of the loopback."""
    if host in ("", "localhost") or host.startswith("/"):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


async def machine(settings: Settings) -> AsyncIterator[Finding]:
    """Check Python, disks, and what an executor needs."""
    yield judged(
        "Python",
        f"{platform.python_version()} ({sys.executable})",
        good=sys.version_info >= (3, 11),
        todo="use Python 3.11 or later",
    )
    for finding in _disks(settings):
        yield finding
    if "executor" in settings.components:
        git = shutil.which("git")
        found = git or "not on PATH: steps that clone a repository fail"
        yield judged("git", found, good=git is not None, todo="install git")
        sandbox = await _sandbox(settings)
        yield sandbox
        yield _user()
        pid = holder(settings.data_dir)
        if os.geteuid() == 0 and sandbox.status != "ok" and not await asyncio.to_thread(_counts_processes, pid):
            yield Finding(
                "processes of a task",
                "warning",
                "unbounded: tasks run as root without a sandbox, and no cgroup with the controller `pids` can be made",
                "run the service as its own user, make a sandbox possible, or delegate a cgroup to the service",
            )
        if pid is None:  # a running executor says how many tasks it runs
            yield open_files(settings.executor.active_tasks_limit, _limit_of_service(settings.data_dir))


def _disk(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return judged(
        f"disk of {folder}",
        f"{free / (1 << 30):.1f} GB free",
        good=free >= LOW_BYTES,
        todo="free some space: on a full disk no commit can be appended",
        otherwise="problem" if free < NEEDED_BYTES else "warning",
    )


async def _sandbox(settings: Settings) -> Finding:
    """Say what the executor of the running service has; without one try to make a sandbox, as it does at its start."""
    if holder(settings.data_dir) is not None and (state := ExecutorPlace(settings.data_dir).noted_sandbox()):
        lack = "" if state == "sandboxed" else f"{state} (in the running service)"
        refused = state.startswith("refused")
        todo = "tasks can read and change all that this user can: start the service with --sandbox require"
    elif settings.executor.sandbox == "off":
        return Finding("sandbox", "warning", "it is off", "tasks can read and change all that this user can")
    else:
        try:
            lack = await missing_sandbox()
        except OSError as error:
            lack = f"the sandbox cannot be made: {error}"
        refused = settings.executor.sandbox == "require"
        todo = "without one tasks can read and change all that this user can: allow user namespaces on this machine"
    if refused:
        todo = "tasks are refused: allow user namespaces on this machine, or start the executor with --sandbox auto"
    return judged("sandbox", lack or "works", good=not lack, todo=todo, otherwise="problem" if refused else "warning")


def _counts_processes(service: int | None) -> bool:
    """Return whether cgroups bound the processes of tasks of a running service, or else of one that starts here."""
    if service is not None:
        return counts_processes(service)
    groups = control_groups(f"doctor-{os.getpid()}")
    groups.remove()
    return groups.pids is not None or "pids" in groups.controllers


def open_files(tasks: int, limit: int) -> Finding:
    """Judge a service's limit of open files by the number of tasks that its executor runs at once (0: no limit)."""
    needed = _FILES_OF_A_SERVICE + FILES_OF_A_TASK * tasks
    return judged(
        "open files",
        f"at most {limit} for {counted(tasks, 'task') if tasks else 'any number of tasks'} at once",
        good=limit >= needed,
        todo=f"raise LimitNOFILE (ulimit -n) to {needed} or more: the executor takes no tasks while files are short",
        otherwise="warning",
    )


def _limit_of_service(data_dir: Path) -> int:
    """Return the limit of open files of the running service, or of one that this user would start."""
    if (pid := holder(data_dir)) is not None:
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            return _finite(resource.prlimit(pid, resource.RLIMIT_NOFILE)[0])
    return min(_finite(resource.getrlimit(resource.RLIMIT_NOFILE)[1]), OPEN_FILES)


def _finite(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _user() -> Finding:
    return judged(
        "user",
        "root" if os.geteuid() == 0 else getpass.getuser(),
        good=os.geteuid() != 0,
        todo="run the service as its own user, so that a task that escapes is not root",
        otherwise="warning",
    )


async def secrets_keys(settings: Settings) -> AsyncIterator[Finding]:
    """Check that the keys of secrets can be read, by this user alone."""
    path = settings.secrets_key_path
    if settings.secrets_key_file is None and not path.exists():
        if "gateway" in settings.components:
            yield Finding(_SECRETS_KEYS, "ok", f"{path} is made when a gateway starts for the first time")
        else:
            todo = "give all gateways and executors the same --secrets-key-file"
            yield Finding(_SECRETS_KEYS, "warning", "none: tasks that use secrets fail in their setup", todo)
        return
    ids = Keyring.read(path).ids
    found = f"{path}: encrypts with key {ids[0]}" + (f", decrypts also with {', '.join(ids[1:])}" if ids[1:] else "")
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding(_SECRETS_KEYS, "problem", f"others may read {path}", f"chmod 600 {path}")
    else:
        yield Finding(_SECRETS_KEYS, "ok", found)


@dataclass(slots=True)
class _Streams:
    """The state of the log's streams, by stream name."""

    messages: int = 0
    few: list[str] = field(default_factory=list)
    """Streams with fewer replicas than the settings say."""
    away: list[str] = field(default_factory=list)
    """Replicas that do not follow their leader."""
    compressed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Positions at the ends of streams without their messages."""
    broken: list[str] = field(default_factory=list)
    """Streams that cannot be read, with the reason."""


async def log_streams(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    """Check that every stream of the current epoch has a leader and its replicas, and can be read."""
    description = await streams.described(client, settings.namespace, "runs")
    if description is None:
        yield Finding("log", "ok", f"none yet in namespace {settings.namespace!r}; the first `serve` makes it")
        return
    subjects = Subjects(settings.namespace, "runs", description.epoch)
    found = _Streams()
    for partition in range(description.partitions):
        try:
            await _check_stream(client, subjects.stream(partition), settings.replicas, found)
            found.lost += await _lost_at_end(client, subjects, partition)
        except (RunstreamError, nats.errors.Error) as error:
            found.broken.append(f"{subjects.stream(partition)} ({str(error) or type(error).__name__})")
    partitions = description.partitions
    yield Finding(
        "log",
        "ok",
        f"epoch {description.epoch}, {counted(partitions, 'partition')}, {counted(found.messages, 'commit')}",
    )
    yield _replicas(found, partitions, settings.replicas)
    yield judged(
        "log compression",
        ", ".join(found.compressed) or "none",
        good=not found.compressed,
        todo="start `runstream serve` of this version: it turns compression off. Killed nodes left compressed streams "
        "unreadable",
        otherwise="warning",
    )
    yield judged(
        "log complete",
        "; ".join(f"{lost} is no longer in the log" for lost in found.lost) or "each stream has its last message",
        good=not found.lost,
        todo="was the disk of NATS full? Such a commit was not acknowledged. The next commit behind it parks the "
        "position; then: runstream parked skip POSITION --reason …",
        otherwise="warning",
    )
    yield judged(
        "log readable",
        "; ".join(found.broken) or f"{SAMPLES} commits of every stream were read",
        good=not found.broken,
        todo="restart the server that leads the stream; if it stays so, remove this replica's peer "
        "(nats stream cluster peer-remove), or restore the log from its archive",
    )


async def _lost_at_end(client: Client, subjects: Subjects, partition: int) -> list[str]:
    """Name the positions behind the last message of a stream; those before it are parked."""
    _, state = await stream_state(client, subjects.stream(partition))
    end, last = end_of(state), state["last_seq"]
    if end == last:
        return []
    first = f"position {Position(subjects.epoch, partition, end + 1)}"
    return [first if end + 1 == last else f"{first} and {counted(last - end - 1, 'more position')}"]


async def _is_at_replicas(client: Client, stream: str, sequence: int) -> bool:
    """Return whether a replica answers with a message; one that was restarted gets time to catch up."""
    body = orjson.dumps({"seq": sequence})
    for _ in range(_REPLICA_ATTEMPTS):
        answer = await client.request(f"$JS.API.DIRECT.GET.{stream}", body, timeout=_REQUEST_SECONDS)
        if not (answer.headers or {}).get("Status"):
            return True
        await asyncio.sleep(_REPLICA_SECONDS)
    return False


async def _check_stream(client: Client, stream: str, replicas: int, found: _Streams) -> None:
    info = await request(client, f"STREAM.INFO.{stream}", seconds=_REQUEST_SECONDS)
    config, state = info["config"], info["state"]
    found.messages += state["messages"]
    if streams.compressed(config):
        found.compressed.append(stream)
    if config["num_replicas"] < replicas:
        found.few.append(stream)
    found.away += [f"{stream} on {name}" for name in _lagging_replicas(info.get("cluster") or {})]
    for sequence in _samples(state["first_seq"], state["last_seq"]):
        # The leader answers the first, any replica the second.
        await request(client, f"STREAM.MSG.GET.{stream}", {"seq": sequence}, seconds=_REQUEST_SECONDS)
        if not await _is_at_replicas(client, stream, sequence):
            found.broken.append(f"{stream} (a replica has no message {sequence})")
            return


def _lagging_replicas(cluster: Mapping[str, Any]) -> list[str]:
    """Return the replicas that are offline or behind."""
    return [peer["name"] for peer in cluster.get("replicas") or () if peer.get("offline") or not peer.get("current")]


def _samples(first: int, last: int) -> list[int]:
    """Return sequences spread evenly from the first to the last; empty for an empty stream."""
    if last < first or last == 0:
        return []
    return sorted({first + (last - first) * at // (SAMPLES - 1) for at in range(SAMPLES)})


def _replicas(found: _Streams, partitions: int, wanted: int) -> Finding:
    if found.few:
        return Finding(
            "log replicas",
            "problem",
            f"{len(found.few)} of {counted(partitions, 'stream')} with fewer than {wanted}",
            f"raise them: nats stream edit {found.few[0]} --replicas {wanted}",
        )
    return judged(
        "log replicas",
        f"away or behind: {', '.join(found.away)}" if found.away else f"each stream has {counted(wanted, 'replica')}",
        good=not found.away,
        todo="start the servers that are away; a replica that is behind catches up by itself",
        otherwise="warning",
    )


async def nats_server(settings: Settings, admin_url: str | None, folder: Path | None) -> AsyncIterator[Finding]:
    """Check version, durability, limits, clocks and the log's streams at the NATS of the settings.

    `admin_url` is a user of its system account, if known; `folder` is the folder of an embedded server.
    """
    async with nats_connection(settings.nats_url, "runstream doctor", 5.0) as client:
        yield _version(client)
        yield _payload(client)
        async for finding in _durability(settings, admin_url, folder):
            yield finding
        yield await _limits(client, folder)
        yield await _clock(client)
        async for finding in executors(client, settings):
            yield finding
        async for finding in log_streams(client, settings):
            yield finding


def _version(client: Client) -> Finding:
    version = client.connected_server_version
    return judged(
        "NATS version",
        f"{version.major}.{version.minor}.{version.patch}",
        good=(version.major, version.minor) >= OLDEST_NATS,
        todo="install nats-server 2.14 or later: atomic batches and message schedules are needed",
    )


def _payload(client: Client) -> Finding:
    return judged(
        "NATS max_payload",
        f"{client.max_payload >> 10} KiB",
        good=client.max_payload >= SMALLEST_PAYLOAD,
        todo="set `max_payload: 8MB` in the server's configuration: large run configs are refused",
        otherwise="warning",
    )


async def _durability(settings: Settings, admin_url: str | None, folder: Path | None) -> AsyncIterator[Finding]:
    what = "NATS sync to disk"
    if admin_url is None:
        yield Finding(what, "unknown", "only the server's system account can tell", f"{_ALWAYS}; see --nats-admin-url")
        return
    async with nats_connection(admin_url, "runstream doctor", 5.0) as client:
        for server, data in await _all_servers(client):
            config = data.get("config", {})
            always = bool(config.get("sync_always"))
            seconds = config.get("sync_interval", 0) / 1e9
            yield judged(
                what,
                f"{server}: always" if always else f"{server}: every {seconds:.0f} s",
                good=always,
                todo=f"{_ALWAYS}: else a power cut loses what was acknowledged",
                otherwise="problem" if settings.replicas == 1 else "warning",
            )
            yield _server_store(server, data, folder)


async def _all_servers(client: Client) -> list[tuple[str, Mapping[str, Any]]]:
    """Ask all servers about their JetStream; return the answers by name, until none comes for half a second."""
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    await client.publish("$SYS.REQ.SERVER.PING.JSZ", b'{"config":true}', reply=inbox)
    found: list[tuple[str, Mapping[str, Any]]] = []
    try:
        while True:
            answer = orjson.loads((await answers.next_msg(timeout=0.5)).data)
            found.append((answer["server"]["name"], answer.get("data", {})))
    except nats.errors.TimeoutError:
        return found
    finally:
        await answers.unsubscribe()


async def _limits(client: Client, folder: Path | None) -> Finding:
    account = await request(client, "INFO")
    store = await store_use(client, folder)
    streams, consumers = counted(account["streams"], "stream"), counted(account["consumers"], "consumer")
    return judged(
        "NATS storage",
        f"{store}; {streams}, {consumers}",
        good=not _nearly_full(store),
        todo="free space on its disk, or raise the account's max_file_store: a full store takes no commit any more",
    )


def _server_store(server: str, data: Mapping[str, Any], folder: Path | None) -> Finding:
    used, limit = int(data.get("storage", 0)), int(data.get("config", {}).get("max_storage", 0))
    free = None if folder is None else shutil.disk_usage(folder).free
    store = StoreUse(used, limit if limit > 0 else None, free)
    again = "it then restarts by itself" if folder is not None else "then restart it: it refuses writes until then"
    return judged(
        "NATS store",
        f"{server}: {store}",
        good=not _nearly_full(store),
        todo=f"free space on its disk or raise max_file_store; {again}",
    )


def _nearly_full(store: StoreUse) -> bool:
    """Return whether less than a tenth of the limit is left."""
    return store.full or (store.limit is not None and (store.left or 0) < _NEARLY_FULL * store.limit)


async def _clock(client: Client) -> Finding:
    asked = time.time()
    try:
        answer = await client.request("$SYS.REQ.USER.INFO", b"", timeout=_REQUEST_SECONDS)
    except nats.errors.Error:
        return Finding("NATS clock", "unknown", "the server does not tell its time", "keep all clocks set by NTP")
    middle = (asked + time.time()) / 2
    theirs = datetime.fromisoformat(orjson.loads(answer.data)["server"]["time"]).timestamp()
    return clock("NATS clock", theirs - middle)


async def executors(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    """Say what each living executor announces in its lease; compare its clock with the server's.

    The settings of this command may differ from those of the executors.
    """
    try:
        seen = await ExecutorSightings(LeaseBucket(client, f"{settings.namespace}_executors", 0)).seen()
    except InternalError:
        return  # no executor has ever started
    here = _executor_here(settings)
    for executor_id, sighting in sorted(seen.items()):
        offer = sighting.offer
        limit = counted(offer.active_tasks_limit, "task") if offer.active_tasks_limit else "any number of tasks"
        running = counted(sum(offer.open_tasks.values()), "open task")
        yield Finding(f"executor {executor_id}", "ok", f"takes {limit} at once, has {running}")
        if executor_id == here:
            yield open_files(offer.active_tasks_limit, _limit_of_service(settings.data_dir))
        if abs(sighting.skew) > SKEW_SECONDS:
            yield Finding(
                f"clock of executor {executor_id}",
                "warning",
                f"{sighting.skew:+.1f} s from the log's server",
                "set its clock by NTP: its times in runs are wrong",
            )


def _executor_here(settings: Settings) -> str:
    """Return the id of the executor of the service that holds the data directory; empty if none is known."""
    if holder(settings.data_dir) is None:
        return ""
    with contextlib.suppress(OSError):
        return (settings.data_dir / "executor" / "id").read_text().strip()
    return settings.executor.id


def clock(what: str, seconds: float) -> Finding:
    """Compare a server's clock with this machine's."""
    close = abs(seconds) <= _CLOCK_SECONDS
    return judged(
        what,
        "in sync" if close else f"{seconds:+.3f} s from this machine's",
        good=close,
        todo="set the clocks by NTP: times in runs and timeouts come from different machines",
        otherwise="warning",
    )


async def postgres(settings: Settings) -> AsyncIterator[Finding]:
    """Check version, durability, connections, clock and migrations of Postgres."""
    connection = await connect(settings.database_url, settings.database_schema, application="runstream doctor")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        number = int(await connection.fetchval("SHOW server_version_num"))
        yield judged(
            "Postgres version",
            str(await connection.fetchval("SHOW server_version")),
            good=number >= OLDEST_POSTGRES,
            todo="install Postgres 14 or later",
        )
        for name, consequence in _DURABLE.items():
            value = str(await connection.fetchval("SELECT current_setting($1)", name))
            yield judged(
                f"Postgres {name}",
                value,
                good=value != "off",
                todo=f"set {name} = on in postgresql.conf: {consequence}",
                otherwise="warning",
            )
        most = int(await connection.fetchval("SHOW max_connections"))
        yield judged(
            "Postgres connections",
            f"at most {most}",
            good=most >= FEWEST_CONNECTIONS,
            todo=f"set max_connections to at least {FEWEST_CONNECTIONS}",
            otherwise="warning",
        )
        asked = time.time()
        theirs = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
        yield clock("Postgres clock", theirs - (asked + time.time()) / 2)
    yield await _migrations(settings)


async def _migrations(settings: Settings) -> Finding:
    state = await migration_state(settings.database_url, settings.database_schema)
    if state.up_to_date:
        return Finding("migrations", "ok", f"at {state.current}")
    if state.known:
        found = f"at {state.current or 'none'}, this version needs {state.wanted}"
        return Finding("migrations", "problem", found, "start `runstream serve`: it migrates before anything else")
    found = f"at {state.current}, which this version does not know"
    return Finding("migrations", "problem", found, "use the version of Runstream that migrated it, or a later one")


async def object_storage(settings: Settings) -> AsyncIterator[Finding]:
    """Write, list, read and delete a small object."""
    storage = await open_objects(settings, make=False)
    began = time.perf_counter()
    await _probe(storage)
    took = time.perf_counter() - began
    where = settings.objects_url or settings.objects_path
    yield Finding("object storage", "ok", f"{where}: wrote, listed, read and deleted a probe in {took * 1000:.0f} ms")


async def _probe(storage: ObjectStorage) -> None:
    path, content = f"{_PROBES}{secrets.token_hex(8)}", secrets.token_bytes(64)
    await storage.write(path, BytesSource(content), size=len(content), persist=True)
    try:
        listed = [found.path async for found in storage.list(path)]
        async with await storage.read(path) as stored:
            read = await stored.read(0, stored.size)
    finally:
        await storage.delete(path)
    if listed != [path] or read != content:
        raise InternalError(
            "the object storage returns other bytes than were written",
            code="objectsUnfaithful",
            hint="check for a proxy or cache in between that changes requests or responses",
        )


async def consumers(settings: Settings) -> AsyncIterator[Finding]:
    """Check that every consumer of the log moves; no stalls before the first `serve` has made log and rows."""
    for service, what in (("runs", "consumers of the log"), ("config", "consumers of the config log")):
        stalls = await _stalls(settings, service)
        for stall in stalls:
            yield Finding(f"{stall.component} of {stall.where}", "problem", str(stall), stall.todo)
        if not stalls:
            yield Finding(what, "ok", "none stands still, no commit is parked")


async def _stalls(settings: Settings, service: str) -> list[Stall]:
    async with nats_connection(settings.nats_url, "runstream doctor", 5.0) as client:
        if await streams.described(client, settings.namespace, service) is None:
            return []
        if not (await migration_state(settings.database_url, settings.database_schema)).up_to_date:
            return []
        async with (
            Database(settings.database_url, settings.database_schema, pool_size=1) as database,
            await open_log(client, settings.namespace, service) as log,
        ):
            objects = await open_objects(settings, make=False)
            return await Consumed(log, database, Questions(client), objects).stalls()


def doctor_command(
    *,
    output: Output = "table",
    nats_admin_url: Annotated[str | None, Parameter(env_var="RUNSTREAM_NATS_ADMIN_URL")] = None,
    options: ServerOptions | None = None,
) -> int:
    """Check servers, versions, durability, migrations, clocks, disk and keys, and say what to do. Exits 1 on a problem.

    Parameters
    ----------
    nats_admin_url
        URL with a user of NATS's system account, needed to check how the server syncs to disk.
    """
    return show(uvloop.run(examine(settings_of(options), nats_admin_url)), output)


async def examine(settings: Settings, admin_url: str | None) -> list[Finding]:
    """Run all checks. `admin_url` is a user of NATS's system account, if the user gave one."""
    findings = [running_service(settings), *[finding async for finding in machine(settings)]]
    findings += [finding async for finding in guarded("secrets keys", secrets_keys(settings))]
    findings += connections(settings)
    try:
        async with reached(settings) as (complete, own_admin_url):
            nats_folder = None if settings.nats_url else settings.data_dir / "nats"
            checks = {"NATS": nats_server(complete, admin_url or own_admin_url, nats_folder)}
            if needs_database(settings):
                checks |= {"Postgres": postgres(complete), "consumers of the log": consumers(complete)}
            checks["object storage"] = object_storage(complete)
            findings += [finding for what, check in checks.items() async for finding in guarded(what, check)]
    except RunstreamError as error:
        findings.append(Finding("servers", "problem", error.message, error.hint))
    return findings


async def examine_servers(settings: Settings, nats_folder: Path | None) -> AsyncIterator[Finding]:
    """Run the checks of a serving process: its disk, keys, settings and servers, whose URLs the settings have."""
    for finding in (*_disks(settings), *connections(settings)):
        yield finding
    for what, check in (
        ("secrets keys", secrets_keys(settings)),
        ("NATS", nats_server(settings, None, nats_folder)),
        ("Postgres", postgres(settings)),
        ("consumers of the log", consumers(settings)),
        ("object storage", object_storage(settings)),
    ):
        async for finding in guarded(what, check):
            yield finding


def _disks(settings: Settings) -> Iterator[Finding]:
    yield _disk(settings.data_dir)
    if not settings.objects_url and not settings.objects_path.is_relative_to(settings.data_dir):
        yield _disk(settings.objects_path)


def show(findings: Sequence[Finding], output: str) -> int:
    """Print the findings; return 1 for a problem, else 0."""
    findings = [replace(finding, todo=with_program(finding.todo)) for finding in findings]
    if output == "json":
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(Text(f.status, _STYLES[f.status]), f.what, f.found, f.todo) for f in findings]
        print_table(_COLUMNS, rows, "nothing was checked")
    return int(any(finding.status == "problem" for finding in findings))
