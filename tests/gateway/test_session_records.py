"""Records of sessions in NATS behave as those in memory, which other tests use."""

from __future__ import annotations

import pytest

from runstream.gateway.session_records import StoredRecords
from runstream.gateway.sessions import Records
from tests.gateway.config_world import MemoryRecords
from tests.log.servers import connected
from tests.servers import Servers


@pytest.mark.parametrize("stored", [True, False])
async def test_a_record_is_written_replaced_and_removed_only_as_it_was_read(servers: Servers, stored: bool) -> None:
    async with connected(servers.nats_url) as nc:
        records: Records = await StoredRecords.open(nc, servers.namespace, 1) if stored else MemoryRecords()
        assert await records.read("session.u.a") is None
        assert await records.keep("session.u.a", b"1", 60)
        assert await records.keep("session.v.a", b"other", 60)
        first = await records.read("session.u.a")
        assert first is not None
        assert first.value == b"1"
        assert await records.keep("session.u.a", b"2", 60, first.revision)
        assert not await records.keep("session.u.a", b"3", 60, first.revision)
        assert not await records.remove("session.u.a", first.revision)
        assert dict(await records.below("session.u")) == {"session.u.a": b"2"}
        second = await records.read("session.u.a")
        assert second is not None
        assert await records.remove("session.u.a", second.revision)
        assert not await records.remove("session.u.a", second.revision)
        assert await records.read("session.u.a") is None
        assert dict(await records.below("session.u")) == {}
        assert not await records.keep("session.u.a", b"2", 60, second.revision)
