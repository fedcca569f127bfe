"""The servers that all tests share are there, and each test has its own corner of them."""

from __future__ import annotations

import asyncpg
import nats


async def test_servers_answer(nats_url: str, database_url: str, namespace: str, database_schema: str) -> None:
    client = await nats.connect(nats_url)
    made = await client.jetstream().add_stream(name=namespace, subjects=[f"{namespace}.>"])
    assert made.state.messages == 0
    await client.close()
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"CREATE SCHEMA {database_schema}")
    assert await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", database_schema)
    await connection.close()
