"""Both embedded servers keep the same promises: they start again, on what they had, whatever ended them."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import asyncpg
import nats
import psutil
import pytest

from runstream.embedded import NatsServer, PostgresServer
from runstream.errors import InternalError

Server = NatsServer | PostgresServer


@pytest.fixture(params=["nats", "postgres"])
def folder(request: pytest.FixtureRequest, open_path: Path) -> Path:
    return open_path / str(request.param)


def server_in(folder: Path) -> Server:
    if folder.name == "nats":
        return NatsServer(folder)
    return PostgresServer(folder)


async def remember(server: Server, text: str) -> None:
    if isinstance(server, NatsServer):
        client = await nats.connect(server.url)
        stream = client.jetstream()
        await stream.add_stream(name="kept", subjects=["kept"])
        await stream.publish("kept", text.encode())
        await client.close()
    else:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE kept (text text)")
        await connection.execute("INSERT INTO kept VALUES ($1)", text)
        await connection.close()


async def remembered(server: Server) -> str:
    if isinstance(server, NatsServer):
        client = await nats.connect(server.url)
        message = await client.jetstream().get_last_msg("kept", "kept")
        await client.close()
        assert message.data is not None
        return message.data.decode()
    connection = await asyncpg.connect(server.url)
    text = await connection.fetchval("SELECT text FROM kept")
    await connection.close()
    assert isinstance(text, str)
    return text


def pid_of(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


async def test_starts_again_with_everything_still_there(folder: Path) -> None:
    first = server_in(folder)
    await first.start()
    url = first.url
    await remember(first, "something")
    await first.stop()
    assert not psutil.pid_exists(pid_of(first))

    second = server_in(folder)
    await second.start()
    assert second.url == url
    assert await remembered(second) == "something"
    await second.stop()


async def test_starts_again_after_the_server_was_killed(folder: Path) -> None:
    first = server_in(folder)
    await first.start()
    await remember(first, "something")
    psutil.Process(pid_of(first)).kill()
    assert first.process is not None
    await first.process.ended.wait()

    second = server_in(folder)
    await second.start()
    assert await remembered(second) == "something"
    await second.stop()


async def test_ends_the_server_that_was_left_behind(folder: Path) -> None:
    left = server_in(folder)
    await left.start()
    await remember(left, "something")

    second = server_in(folder)
    await second.start()
    assert pid_of(second) != pid_of(left)
    assert left.process is not None
    await left.process.ended.wait()
    assert await remembered(second) == "something"
    await second.stop()


async def test_takes_another_port_when_its_own_is_taken(folder: Path) -> None:
    first = server_in(folder)
    await first.start()
    port = int((folder / "port").read_text())
    await first.stop()
    with socket.create_server(("127.0.0.1", port)):
        second = server_in(folder)
        await second.start()
        assert int((folder / "port").read_text()) != port
        await second.stop()


async def test_only_this_user_can_read_the_credentials(folder: Path) -> None:
    server = server_in(folder)
    await server.start()
    await server.stop()
    for path in (folder / "credentials.json", folder / "nats.conf"):
        assert not path.exists() or stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not [name for name in os.listdir(folder) if name.startswith(".password")]  # noqa: PTH208


async def test_a_stranger_with_the_pid_of_the_lock_file_is_left_alone(open_path: Path) -> None:
    server = PostgresServer(open_path / "postgres")
    await server.start()
    await server.stop()
    stranger = psutil.Popen(["sleep", "60"])
    lock = open_path / "postgres" / "data" / "postmaster.pid"
    lock.write_text(f"{stranger.pid}\n{lock.parent}\n")
    await server.start()
    assert stranger.is_running()
    stranger.kill()
    stranger.wait()
    await server.stop()


async def test_listens_on_loopback_alone(folder: Path) -> None:
    server = server_in(folder)
    await server.start()
    addresses = {c.laddr.ip for c in psutil.Process(pid_of(server)).net_connections() if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}
    await server.stop()


async def test_a_wrong_password_is_refused(open_path: Path) -> None:
    postgres = PostgresServer(open_path / "postgres")
    await postgres.start()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url, password="wrong")
    await postgres.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
async def test_a_copy_that_belongs_to_another_user_is_refused_by_name(open_path: Path) -> None:
    server = PostgresServer(open_path / "postgres", durable=False)
    await server.start()
    await server.stop()
    for path in (open_path / "postgres" / "data", *(open_path / "postgres" / "data").rglob("*")):
        os.chown(path, 0, 0)
    with pytest.raises(InternalError, match="belong to user root, and Postgres runs as runstream-db") as caught:
        await server.start()
    assert caught.value.hint.startswith("chown -R runstream-db ")
