"""`maintenance enable` and `disable` while something is killed by -9: the command itself, or one of the processes.

Afterwards all of it is enabled or all of it is disabled, the status says which, and the command can be given again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runstream.maintenance.request import MaintenanceControl
from tests.acceptance.deployment import TOKEN, Deployment, deployed, environment
from tests.chaos.kills import Chaos, Victim, kills, say
from tests.log.servers import connected
from tests.maintenance.test_processes import a_run, get, until

ORDINARILY = 6


@dataclass
class Switch:
    """Maintenance of a deployment, turned on and off."""

    deployment: Deployment
    chaos: Chaos
    enabled: bool = False
    done: Counter[str] = field(default_factory=Counter)
    """How often the change went through in spite of the kill, by victim."""
    victims: dict[bool, Victim] = field(default_factory=dict)

    async def measure(self) -> None:
        """Turn it on and off once."""
        reached = ("--url", self.deployment.gateway.url, "--token", TOKEN)
        for wanted in (True, False):
            words = (*reached, "maintenance", word(wanted), "--wait")
            self.victims[wanted] = Victim(self.chaos, words, environment())
            await self.victims[wanted].measure()

    async def killed(self, who: str) -> str:
        """Give the command for the other state, and kill it or a process before it ends; return the moment."""
        wanted = not self.enabled
        if who == "the command":
            return await self.victims[wanted].killed()
        command = asyncio.create_task(self.deployment.run("maintenance", word(wanted), "--wait"))
        seconds = self.chaos.random.uniform(0.3, 1.2) * self.victims[wanted].seconds
        await asyncio.wait({command}, timeout=seconds)
        await self.deployment.processes[who].kill()
        await self.deployment.processes[who].start()
        await command
        return f"{seconds:.2f} s"

    async def check_agreement(self, who: str) -> None:
        """Check that the key, the status and every process agree."""
        async with connected(self.deployment.nats.url) as nats:
            said = await MaintenanceControl(nats, "runstream").requested("runs")
        assert said is not None
        self.done[who] += said.enabled is not self.enabled
        self.enabled = said.enabled
        async with self.deployment.client() as client:
            status = await until(client, lambda status: status.parked if status.requested else status.resumed)
            assert (status.requested, status.current) == (self.enabled, self.enabled)
            states = {one.pid: one.state for one in status.instances}
            state = "parked" if self.enabled else "running"
            assert states == {process.pid: state for process in self.deployment.processes.values()}
            assert get(self.deployment, "/api/v1alpha/runs") == ((503, "10") if self.enabled else (200, None))
            assert get(self.deployment, "/healthz") == (200, None)

    async def again(self, *, wanted: bool) -> None:
        """Give the command again: it completes the change, or says that it is complete."""
        before = self.enabled
        done = await self.deployment.run("maintenance", word(wanted), "--wait")
        if before is wanted:
            assert (done.code, f"already {word(wanted)}d" in done.err) == (1, True)
        else:
            assert done.code == 0, done.err
            await self.check_agreement("no victim")
        assert self.enabled is wanted


def word(enable: bool) -> str:
    return "enable" if enable else "disable"


@pytest.mark.chaos
@pytest.mark.seconds(90 + 20 * kills(ORDINARILY))
async def test_killed_at_any_moment_all_of_it_is_enabled_or_disabled(open_path: Path) -> None:
    chaos = Chaos(7, ORDINARILY)
    async with deployed(open_path, "--driver", "noop", schedulers=1, executors=1) as deployment:
        switch = Switch(deployment, chaos)
        await switch.measure()
        people = ["the command", *deployment.processes]
        for number in chaos:
            wanted = not switch.enabled
            who = people[number % len(people)] if number < len(people) else chaos.random.choice(people)
            moment = await switch.killed(who)
            say(f"{word(wanted)}: {who} after {moment}")
            await switch.check_agreement(who)
            await switch.again(wanted=wanted)
        if switch.enabled:
            await switch.again(wanted=False)
        async with deployment.client() as client:
            await a_run(client)
        assert (await deployment.fsck()).code == 0
        say(f"came about in spite of the kill of: {dict(switch.done)}")
