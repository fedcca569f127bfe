"""The steps `save_cache` and `restore_cache`, which keep files for later runs (rules step-23 and step-24).

A key is a template, rendered with the environment and the files of the step. Saving a key that has a cache does
nothing. Restoring goes through its keys, and takes the newest cache whose key begins with one of them.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Container, Mapping
from datetime import datetime

from runstream.api import Cache
from runstream.counting import counted
from runstream.errors import BadRequestError, NotExistError
from runstream.executor.drivers.port import Files
from runstream.executor.masking import Masking
from runstream.executor.steps.archives import compressed, plain
from runstream.executor.steps.run import StepContext
from runstream.executor.steps.workspace import counted_entries
from runstream.objects.caches import StoredCaches, require_key
from runstream.objects.port import chunks
from runstream.runconfig.templates import MAX_FILE_BYTES, parse_template, render

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""Names of Go for those of the kernel, where they differ."""


async def save_cache(context: StepContext, caches: StoredCaches, masking: Masking) -> None:
    """Pack and store the selected files, unless their key has a cache. Raises BadRequestError."""
    target, files, group = context.folder.archive(context.index), context.pod.files, context.spec.cache_group
    key = await rendered(context, context.step.key, masking)
    if await caches.find(group, key) is not None:
        context.log.line(f"cache {key!r} exists already: nothing is saved")
        return
    with target.open("wb") as file, compressed(file) as archive:
        folder = files.path(context.working_dir)
        packed = await files.pack(archive, context.step.contents or (), folder, context.stopped)
    for warning in packed.warnings:
        context.log.line(f"warning: {warning}")
    size = counted(target.stat().st_size, "byte")
    if await caches.create(group, key, target):
        context.log.line(f"saved cache {key!r}: {counted_entries(packed.entries)}, {size}")
    else:
        context.log.line(f"cache {key!r} was saved by another task meanwhile")
    target.unlink()


async def restore_cache(context: StepContext, caches: StoredCaches, masking: Masking) -> None:
    """Unpack the first cache found, and replace files that are there; do nothing if there is none.

    Raises BadRequestError.
    """
    asked: list[str] = []
    for template in context.step.keys or ():
        asked.append(await rendered(context, template, masking))
        found = await caches.newest(context.spec.cache_group, asked[-1])
        if found is not None and await _restored(context, caches, found, asked[-1]):
            return
    context.log.line(f"no cache has a key that begins with {' or '.join(map(repr, asked))}")


async def rendered(context: StepContext, template: str, masking: Masking) -> str:
    """Return the key of a template. Raises BadRequestError for one that cannot be rendered or be a key."""
    environment = {**context.spec.environment, **context.spec.step_environments[context.index]}
    source = _Source(context.pod.files, context.working_dir, environment, context.spec.secrets)
    try:
        key = await render(parse_template(template), source)
    except ValueError as error:
        raise BadRequestError(f"key {template[:200]!r}: {error}", code="invalidCacheKey") from error
    if masking.masked(key) != key:
        raise BadRequestError(
            f"key {template[:200]!r} contains a secret",
            code="invalidCacheKey",
            hint="keys of caches are shown; use the checksum of a file, or another variable",
        )
    require_key(key)
    return key


async def _restored(context: StepContext, caches: StoredCaches, found: Cache, asked: str) -> bool:
    """Unpack a cache; return False if it was deleted meanwhile."""
    files, fetched = context.pod.files, context.folder.archive(context.index)
    try:
        async with await caches.read(found) as stored:
            with fetched.open("wb") as file:
                async for chunk in chunks(stored):
                    await asyncio.to_thread(file.write, chunk)
    except NotExistError:
        return False
    destination = files.path(context.step.dest_dir or ".", files.path(context.working_dir))
    unpacking = files.unpacking(destination, context.stopped, replace=True)
    named = f"{found.key!r}{'' if found.key == asked else f' for {asked!r}'}, {counted(found.size, 'byte')}"
    try:
        with fetched.open("rb") as file:
            count = await unpacking.unpack(plain(file), "")
    except BadRequestError as error:
        raise BadRequestError(
            f"cache {named}, cannot be restored: {error.message}", code=error.code, hint=error.hint
        ) from error
    fetched.unlink()
    context.log.line(f"cache hit: {named}; restored {counted_entries(count)}")
    return True


class _Source:
    """The environment and the files of a step; a `KeySource`."""

    def __init__(self, files: Files, working_dir: str, environment: Mapping[str, str], secrets: Container[str]) -> None:
        self._files = files
        self._working_dir = working_dir
        self._environment = environment
        self._secrets = secrets
        self.now = datetime.now().astimezone()
        self.system = sys.platform
        self.arch = _ARCHITECTURES.get(platform.machine(), platform.machine())

    def env(self, name: str) -> str:
        """Return a variable of the step. Raises ValueError for a secret, also one too short to be masked."""
        value = self._environment.get(name, "")
        if value and value in self._secrets:
            raise ValueError(f"variable {name} is a secret, and keys of caches are shown")
        return value

    async def file(self, path: str) -> bytes:
        """Return the content of a file of the task. Raises ValueError."""
        try:
            return await self._files.read(self._files.path(path, self._files.path(self._working_dir)), MAX_FILE_BYTES)
        except BadRequestError as error:
            raise ValueError(str(error)) from error
