"""`runstream secrets`: the keys with which the texts of projects, users and git hosts are sealed."""

from __future__ import annotations

import getpass
import socket
from collections import Counter
from dataclasses import dataclass

import uvloop

from runstream.cli.output import Output, print_json, say
from runstream.config.sealed import reseal
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.config_folding import SERVICE
from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.maintenance.request import MaintenanceControl
from runstream.sealing import Keyring
from runstream.service.configuration import ServerOptions, settings_of
from runstream.service.servers import reached
from runstream.settings import Settings

_NAMES = {"secret": "secret", "project": "project", "user": "user", "remotesource": "remote source"}


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was sealed again."""

    key: str
    """The id of the key that seals it now."""
    changed: dict[str, int]
    """Number of changed things by kind."""


def rotate_command(*, output: Output = "table", options: ServerOptions | None = None) -> None:
    """Seal the secrets of projects, users and remote sources again with the first key of the key file.

    Gateways and executors have to know that key already: put it on the first line of their key files, the old ones
    below it, and start them again, executors first. The old keys still open the secrets of runs that exist, and older
    exports. It can be repeated, also after an interruption.
    """
    done = uvloop.run(_rotate(settings_of(options)))
    if output == "json":
        print_json({"key": done.key, "changed": done.changed})
        return
    if not done.changed:
        say(f"everything is sealed with key {done.key} already")
        return
    things = ", ".join(counted(count, _NAMES[kind]) for kind, count in done.changed.items())
    say(f"sealed again with key {done.key}: {things}")


async def _rotate(settings: Settings) -> Rotated:
    keyring = Keyring.read(settings.secrets_key_path)
    async with (
        reached(settings) as (complete, _),
        nats_connection(complete.nats_url, "runstream secrets rotate") as client,
    ):
        requested = await MaintenanceControl(client, complete.namespace).requested(SERVICE)
        if requested is not None and requested.enabled:
            raise BadRequestError(
                "the service config is in maintenance: nothing is appended to its log",
                code="maintenance",
                hint=f"when maintenance has ended: runstream maintenance disable --service {SERVICE}",
            )
        async with await open_log(client, complete.namespace, SERVICE) as log:
            return await rotate(log, keyring, actor=f"user:{getpass.getuser()}@{socket.gethostname()}")


async def rotate(log: JetStreamLog, keyring: Keyring, *, actor: str) -> Rotated:
    """Seal what the config service has again. Raises InternalError for a text whose key is missing."""
    store = ConfigStore(log)
    async with ConfigFollower(store).serving():
        done = await store.change(lambda state: reseal(state, keyring), actor=actor)
    kinds: Counter[str] = Counter(commit.address.kind for commit in done.commits)
    return Rotated(keyring.ids[0], {kind: kinds[kind] for kind in _NAMES if kinds[kind]})
