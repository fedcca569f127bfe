"""The audit trail: who changed what."""

from __future__ import annotations

from datetime import datetime

from runstream.api import AuditEntry
from runstream.client.pages import items
from runstream.client.session import Session, Stream


class Audit:
    """Changes of users, organizations, projects, secrets, variables and remote sources."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def read(self, *, project: str = "", user: str = "", since: datetime | None = None) -> Stream[AuditEntry]:
        """Read changes, the earliest first: of a project (path or id), by a user, since a time with its zone.

        An administrator sees all, an owner those of what the owner has. Raises ClientError.
        """
        query = {"project": project, "user": user, "since": since.isoformat() if since else "", "limit": "500"}
        params = {name: value for name, value in query.items() if value}
        return self._session.streams.stream(items(self._session, "/audit", list[AuditEntry], params))
