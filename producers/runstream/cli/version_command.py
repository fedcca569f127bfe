"""`runstream version`: the versions of the client and of the service that it talks to."""

from __future__ import annotations

from runstream.cli.client_session import with_client
from runstream.cli.output import Output, print_json, say
from runstream.client import Client
from runstream.release import version


def print_versions(*, output: Output = "table") -> int:
    """Print the versions of this command and of the service. `runstream --version` asks no service."""
    if output == "table":
        say(f"client: {version()}")

    async def work(client: Client) -> None:
        service = await client.version()
        if output == "json":
            print_json({"client": version(), service.service: service.version})
        else:
            say(f"{service.service}: {service.version}")

    return with_client(work)
