"""Remote sources: hosts of git repositories."""

from __future__ import annotations

from runstream.api import RemoteSourceView
from runstream.client.config_types import NewRemoteSource, RemoteSourceChanges
from runstream.client.pages import items
from runstream.client.paths import api_path
from runstream.client.session import Session, Stream


class RemoteSources:
    """Operations on remote sources; one is named by its name, `get` also takes its id."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, source: str) -> RemoteSourceView:
        """Return a remote source. Raises ClientError (not-exist, `remoteSourceDoesNotExist`)."""
        return await self._session.read(api_path("remotesources", source), RemoteSourceView)

    def list(self) -> Stream[RemoteSourceView]:
        """Read all remote sources, by name. Needs no token. Raises ClientError."""
        return self._session.streams.stream(items(self._session, "/remotesources", list[RemoteSourceView]))

    async def create(self, source: NewRemoteSource) -> RemoteSourceView:
        """Create a remote source; for administrators. Raises ClientError."""
        return await self._session.write("POST", "/remotesources", source, RemoteSourceView)

    async def update(self, source: str, changes: RemoteSourceChanges) -> RemoteSourceView:
        """Change a remote source; for administrators. Raises ClientError (not-exist)."""
        return await self._session.write("PUT", api_path("remotesources", source), changes, RemoteSourceView)

    async def delete(self, source: str) -> None:
        """Delete a remote source; for administrators. Raises ClientError (not-exist)."""
        await self._session.write("DELETE", api_path("remotesources", source), None, type(None))
