"""The client: one connection pool, with the operations of a service grouped by subject."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx2

from runstream.api import Health, Readiness, Service, StorageStatus
from runstream.client.audit import Audit
from runstream.client.errors import ClientError
from runstream.client.following import Events, Logs
from runstream.client.operations import Caches, Checks, Executors, MaintenanceMode, ParkedClient, Snapshots
from runstream.client.organizations import Organizations
from runstream.client.owned_runs import OwnedRuns
from runstream.client.projects import ProjectGroups, Projects
from runstream.client.remote_sources import RemoteSources
from runstream.client.runs import Runs
from runstream.client.secrets import Secrets, Variables
from runstream.client.session import WAIT_SECONDS, Session, Waiting, silent
from runstream.client.users import Users


class Client:
    """A client of the service at `url`. Use it as `async with Client(…) as client:`.

    While the service waits for NATS or Postgres, or a stream is interrupted, requests are retried for `wait_seconds`;
    `waiting` is called with the reason. Requests that create something are retried only with an idempotency key.
    `detailed_errors` asks the service for the chain of causes of each error; `transport` replaces the network in tests.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        detailed_errors: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
        wait_seconds: float = WAIT_SECONDS,
        waiting: Waiting = silent,
    ) -> None:
        self._session = Session(
            url,
            token,
            detailed_errors=detailed_errors,
            transport=transport,
            wait_seconds=wait_seconds,
            waiting=waiting,
        )
        self._runs = Runs(self._session)
        self._logs = Logs(self._session)
        self._events = Events(self._session)
        self._executors = Executors(self._session)
        self._caches = Caches(self._session)
        self._snapshots = Snapshots(self._session)
        self._parked = ParkedClient(self._session)
        self._checks = Checks(self._session)
        self._maintenance = MaintenanceMode(self._session)
        self._users = Users(self._session)
        self._audit = Audit(self._session)
        self._organizations = Organizations(self._session)
        self._project_groups = ProjectGroups(self._session)
        self._projects = Projects(self._session)
        self._project_runs = OwnedRuns(self._session, "projects")
        self._user_runs = OwnedRuns(self._session, "users")
        self._remote_sources = RemoteSources(self._session)
        self._secrets = Secrets(self._session, "projects")
        self._variables = Variables(self._session, "projects")
        self._group_secrets = Secrets(self._session, "projectgroups")
        self._group_variables = Variables(self._session, "projectgroups")

    @classmethod
    def local(cls, data_dir: str | Path | None = None, *, detailed_errors: bool = False) -> Self:
        """Return a client of the service that the command line would use in the same environment.

        Without `data_dir` that is RUNSTREAM_URL with RUNSTREAM_TOKEN, if set; else the service of RUNSTREAM_DATA_DIR,
        else of the user's data folder. Raises ClientError (not-exist) when none is running.
        """
        url = os.environ.get("RUNSTREAM_URL", "")
        if data_dir is None and url:
            return cls(url, token=os.environ.get("RUNSTREAM_TOKEN", ""), detailed_errors=detailed_errors)
        service = local_service(default_data_dir() if data_dir is None else Path(data_dir).expanduser())
        return cls(service.url, token=service.token, detailed_errors=detailed_errors)

    @property
    def runs(self) -> Runs:
        """Create, restart, read, list, stop and approve runs."""
        return self._runs

    @property
    def logs(self) -> Logs:
        """Read and follow the logs of tasks."""
        return self._logs

    @property
    def events(self) -> Events:
        """Follow the event log from any position."""
        return self._events

    @property
    def caches(self) -> Caches:
        """The caches of tasks."""
        return self._caches

    @property
    def executors(self) -> Executors:
        """List, drain and remove executors."""
        return self._executors

    @property
    def snapshots(self) -> Snapshots:
        """Export the log, import a snapshot."""
        return self._snapshots

    @property
    def maintenance(self) -> MaintenanceMode:
        """Enable and disable maintenance mode, and read its status."""
        return self._maintenance

    @property
    def parked(self) -> ParkedClient:
        """List, show, retry and skip parked commits."""
        return self._parked

    @property
    def checks(self) -> Checks:
        """Compare rows, archive and objects with the log."""
        return self._checks

    @property
    def users(self) -> Users:
        """Create, read and delete users and their tokens; answer invitations."""
        return self._users

    @property
    def organizations(self) -> Organizations:
        """Create, read, change and delete organizations, their members and invitations."""
        return self._organizations

    @property
    def project_groups(self) -> ProjectGroups:
        """Create, read, change and delete project groups."""
        return self._project_groups

    @property
    def projects(self) -> Projects:
        """Create, read, change and delete projects."""
        return self._projects

    @property
    def project_runs(self) -> OwnedRuns:
        """The runs of projects, by number."""
        return self._project_runs

    @property
    def user_runs(self) -> OwnedRuns:
        """The direct runs of users, by number."""
        return self._user_runs

    @property
    def remote_sources(self) -> RemoteSources:
        """Create, read, change and delete remote sources."""
        return self._remote_sources

    @property
    def secrets(self) -> Secrets:
        """The secrets of projects."""
        return self._secrets

    @property
    def variables(self) -> Variables:
        """The variables of projects."""
        return self._variables

    @property
    def group_secrets(self) -> Secrets:
        """The secrets of project groups."""
        return self._group_secrets

    @property
    def group_variables(self) -> Variables:
        """The variables of project groups."""
        return self._group_variables

    @property
    def audit(self) -> Audit:
        """Who changed users, organizations, projects and secrets."""
        return self._audit

    @property
    def url(self) -> str:
        """The service's URL, without a slash at its end."""
        return self._session.url

    async def storage(self) -> StorageStatus:
        """Return what the object storage holds, measured within the last minute. Raises ClientError."""
        return await self._session.read("/storage", StorageStatus)

    async def health(self) -> Health:
        """Return what the gateway finds out about the servers behind it, as `runstream doctor` tells it.

        Raises ClientError.
        """
        return await self._session.read("/health", Health)

    async def version(self) -> Service:
        """Return the service's name and version. Needs no token."""
        return await self._session.read("/version", Service)

    async def readiness(self) -> Readiness:
        """Return whether the service is ready, with the result of each check. Needs no token."""
        return await self._session.readiness()

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """The URL and token of a service; those of a local one come from `service.json` in its data directory."""

    url: str
    token: str
    data_dir: Path | None = None
    """The data directory of a local service; None for others."""
    pid: int = 0
    """The process that wrote the file; it may have been killed since."""


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return RUNSTREAM_DATA_DIR, else `runstream` in the user's data folder (XDG_DATA_HOME, else ~/.local/share)."""
    if environ.get("RUNSTREAM_DATA_DIR"):
        return Path(environ["RUNSTREAM_DATA_DIR"]).expanduser()
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "runstream"


def other_owner(path: Path) -> str:
    """Return the user that a path belongs to, or the nearest folder above it that can be seen.

    Empty for this user, and for a path that does not exist.
    """
    for place in (path, *path.absolute().parents):
        try:
            owner = place.stat().st_uid
        except PermissionError:
            continue
        except OSError:
            return ""
        if owner == os.geteuid():
            return ""
        try:
            return pwd.getpwuid(owner).pw_name
        except KeyError:
            return str(owner)
    return ""


def local_service(data_dir: Path) -> ServiceAddress:
    """Return the service of a data directory.

    Raises ClientError: not-exist without one, bad-request for a bad file, forbidden for that of another user.
    """
    path = data_dir / "service.json"
    try:
        found = json.loads(path.read_bytes())
        return ServiceAddress(str(found["url"]), str(found["token"]), data_dir, int(found.get("pid", 0)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ClientError(
            f"no service is running in {data_dir}",
            kind="not-exist",
            code="noService",
            details={"data_dir": str(data_dir)},
            hint="start one with `runstream serve`; name another data directory with --data-dir or "
            "RUNSTREAM_DATA_DIR, a service elsewhere with --url or RUNSTREAM_URL",
        ) from error
    except PermissionError as error:
        if not (owner := other_owner(data_dir)):
            raise ClientError(
                f"{path} cannot be read: permission denied",
                kind="forbidden",
                code="dataDirNotReadable",
                hint=f"give yourself access: chmod -R u+rwX {data_dir}",
            ) from error
        raise ClientError(
            f"the data directory {data_dir} belongs to user {owner}: permission denied",
            kind="forbidden",
            code="dataDirOfAnotherUser",
            details={"data_dir": str(data_dir), "owner": owner},
            hint=f"run the command as user {owner}, or set RUNSTREAM_URL and RUNSTREAM_TOKEN "
            f"(`runstream env` prints them for user {owner})",
        ) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ClientError(
            f"{path} cannot be read: {error}",
            kind="bad-request",
            code="noService",
            hint="restart the service: it writes the file anew",
        ) from error
