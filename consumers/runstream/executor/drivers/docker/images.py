"""The images of an engine: how one is pulled, and checked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiodocker import DockerError

from runstream.errors import BadRequestError
from runstream.executor.drivers.containers import EngineRefusedError, EngineUnreachableError, hint_when_full
from runstream.executor.drivers.docker.engine import Engine
from runstream.executor.drivers.port import Output
from runstream.executor.drivers.registries import HUB, PullPolicy, login_for, registry_of, require_reference, tagged
from runstream.executor.spec import Login

_PROGRESS_SECONDS = 5.0
"""Interval between lines about the same layer, in seconds."""
_STEPS = frozenset({"Pull complete", "Already exists"})
_NOT_FOUND = 404


class Images:
    """The images of an engine."""

    def __init__(self, engine: Engine, policy: PullPolicy) -> None:
        self._engine = engine
        self._policy = policy

    async def require(self, image: str, arch: str, logins: Mapping[str, Login], output: Output) -> None:
        """Make an image available, pulled as the policy says; write the progress to `output`.

        Raises BadRequestError for one that is not there, or is of another architecture than `arch`; empty for the
        engine's.
        """
        require_reference(image)
        wanted = tagged(image)
        found = None if self._policy == "always" else await self._found(wanted)
        if found is None:
            if self._policy == "never":
                raise BadRequestError(
                    f"image {image} is not on this executor, which pulls none (executor.pull_policy is `never`)",
                    code="imageMissing",
                    hint="load it there with `docker pull` or `docker load`",
                )
            await self._pull(wanted, arch, login_for(image, logins), output)
            found = await self._found(wanted)
        if found is None:
            raise BadRequestError(f"image {image} is not there", code="imageMissing")
        has, needs = str(found.get("Architecture", "")), arch or self._engine.arch
        if has and needs and has != needs:
            raise BadRequestError(
                f"image {image} is for {has}, not for {needs}",
                code="imageArchitecture",
                hint="use an image for this architecture, or ask for an executor with `runtime: {arch: …}`",
            )

    async def _found(self, image: str) -> dict[str, Any] | None:
        try:
            async with self._engine.asked() as docker:
                return await docker.images.inspect(image)
        except EngineRefusedError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    async def _pull(self, image: str, arch: str, login: tuple[str, str] | None, output: Output) -> None:
        output(f"Pulling {image}{f' as {login[0]}' if login and login[0] else ''}.\n".encode())
        progress = _Progress(output)
        options: dict[str, Any] = {"platform": f"linux/{arch}"} if arch else {}
        if login is not None:
            options["auth"] = {"username": login[0], "password": login[1]}
        try:
            async with self._engine.asked(None) as docker:
                async for message in docker.images.pull(_qualified(image), stream=True, **options):
                    progress.heard(message)
        except EngineRefusedError as error:
            raise _not_pulled(image, error.reason) from error
        except EngineUnreachableError as error:
            raise EngineUnreachableError(f"{error.reason} (while it pulled {image})") from error


def _qualified(image: str) -> str:
    """Return the reference with its registry, which the client library needs beside a login."""
    if registry_of(image) != HUB:
        return image
    name = image.removeprefix("docker.io/").removeprefix(f"{HUB}/")
    return f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"


def _not_pulled(image: str, reason: str) -> BadRequestError:
    low = reason.lower()
    hint = hint_when_full(reason)
    if any(sign in low for sign in ("unauthorized", "denied", "authentication required", "no basic auth")):
        hint = f"give a login for {registry_of(image)} in `docker_registries_auth`, and check the name of the image"
    elif "not found" in low or "manifest unknown" in low:
        hint = "check its name and tag"
    elif "no matching manifest" in low or "does not match the specified platform" in low:
        hint = "the image has none for this architecture"
    return BadRequestError(f"image {image} cannot be pulled: {reason}", code="imageNotPulled", hint=hint)


class _Progress:
    """Lines about a pull: each step of a layer once, a download every few seconds."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._said: dict[str, float] = {}

    def heard(self, message: dict[str, Any]) -> None:
        if "error" in message:
            raise DockerError(500, str(message["error"]))
        status, layer = str(message.get("status", "")), str(message.get("id", ""))
        detail = message.get("progressDetail") or {}
        if not status:
            return
        if detail.get("total"):
            now = asyncio.get_running_loop().time()
            if now < self._said.setdefault(layer, now) + _PROGRESS_SECONDS:
                return
            self._said[layer] = now
            amount = f" {_megabytes(detail.get('current', 0))} of {_megabytes(detail['total'])}"
            self._output(f"{layer}: {status}{amount}\n".encode())
        elif status in _STEPS or (not detail and (not layer or status.startswith(("Pulling from", "Retrying")))):
            self._output((f"{layer}: {status}\n" if layer else f"{status}\n").encode())


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"
