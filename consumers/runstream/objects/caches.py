"""Caches: archives that tasks save under a key and restore in later runs (rules step-23 and step-24).

A cache is an object in the folder of its group, which is the project or user of its run, or a name that several share.
It is never replaced: what has changed has another key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from urllib.parse import quote, unquote

from runstream.api import Cache, CacheList
from runstream.counting import counted
from runstream.errors import BadRequestError, NotExistError
from runstream.objects import ObjectReader, ObjectStorage, paths

MAX_KEY_BYTES = 200
"""Of an escaped key."""
_PLAIN = "$&+=:@"
_DIGESTED = re.compile("[^~]{1,10}~[0-9a-f]{64}")
"""The folder of a group with a long name."""


class StoredCaches:
    """The caches in an object storage."""

    def __init__(self, objects: ObjectStorage) -> None:
        self._objects = objects

    async def find(self, group: str, key: str) -> Cache | None:
        """Return the cache of a key; None if there is none."""
        try:
            found = await self._objects.stat(_path(group, key))
        except NotExistError:
            return None
        return Cache(group, key, found.size, found.modified)

    async def newest(self, group: str, prefix: str) -> Cache | None:
        """Return the newest cache of a group whose key begins with a text; None if there is none."""
        newest: Cache | None = None
        async with aclosing(self.list(group, prefix)) as caches:
            async for cache in caches:
                if newest is None or cache.created > newest.created:
                    newest = cache
        return newest

    async def page(self, group: str, prefix: str, limit: int, cursor: str) -> CacheList:
        """Return up to `limit` caches of a list, from a cursor on. Raises BadRequestError for another list's cursor."""
        begin = _begin(group, prefix)
        if cursor and not cursor.startswith(begin):
            raise BadRequestError("the cursor is not one of this list", code="invalidCursor")
        caches: list[Cache] = []
        last = ""
        async with aclosing(self._listed(begin, prefix, cursor)) as listed:
            async for path, cache in listed:
                if len(caches) == limit:
                    return CacheList(tuple(caches), last)
                caches.append(cache)
                last = path
        return CacheList(tuple(caches), "")

    async def list(self, group: str = "", prefix: str = "") -> AsyncGenerator[Cache, None]:
        """Yield the caches of a group, or of all groups, whose key begins with a text."""
        async with aclosing(self._listed(_begin(group, prefix), prefix)) as listed:
            async for _, cache in listed:
                yield cache

    async def _listed(self, begin: str, prefix: str, after: str = "") -> AsyncGenerator[tuple[str, Cache], None]:
        async for found in self._objects.list(begin, start_after=after):
            elements = found.path.split("/")
            if len(elements) == 3 and elements[2].endswith(".tar"):
                key = unquote(elements[2].removesuffix(".tar"))
                if key.startswith(prefix):
                    yield found.path, Cache(unquote(elements[1]), key, found.size, found.modified)

    async def read(self, cache: Cache) -> ObjectReader:
        """Open a cache; the caller closes it. Raises NotExistError for one that was deleted meanwhile."""
        return await self._objects.read(_path(cache.group, cache.key))

    async def create(self, group: str, key: str, content: Path) -> bool:
        """Store a local file as the cache of a key; return False if the key has one. The caller removes the file."""
        return await self._objects.create(_path(group, key), content)

    async def delete(self, group: str, key: str) -> None:
        """Delete the cache of a key. Raises NotExistError."""
        if await self.find(group, key) is None:
            raise NotExistError(
                f"group {group[:200]!r} has no cache {key[:200]!r}",
                code="cacheDoesNotExist",
                hint="`runstream cache list` shows the caches and their groups",
            )
        await self._objects.delete(_path(group, key))


def group_of(run_group: str, cache_group: str) -> str:
    """Return the group of the caches of a run: that of its run config, or else its project or user."""
    return cache_group or "/".join(run_group.split("/")[:3])


def require_key(key: str) -> None:
    """Raise BadRequestError for what cannot be the key of a cache, or the beginning of one."""
    if not key:
        raise BadRequestError("the key is empty", code="invalidCacheKey", hint="is a variable in it not set?")
    size = len(_escaped(key))
    if size > MAX_KEY_BYTES:
        raise BadRequestError(
            f"the key {key[:80]!r} has {counted(size, 'byte')} when it is escaped as in a URL; "
            f"a key has at most {MAX_KEY_BYTES}",
            code="invalidCacheKey",
            hint="use the checksum of a file instead of its content",
        )


def _begin(group: str, prefix: str) -> str:
    """Return the beginning of the paths of some caches."""
    if group:
        return f"{paths.CACHES}/{_folder(group)}/{_escaped(prefix) if prefix.strip('.') else ''}"
    return f"{paths.CACHES}/"


def _path(group: str, key: str) -> str:
    return paths.cache(_folder(group), _escaped(key))


def _folder(group: str) -> str:
    """Return the folder of a group; that of a long name has its beginning and a digest.

    A list of all caches shows such a folder as the group, and it names the same caches.
    """
    if _DIGESTED.fullmatch(group):
        return quote(group, safe=_PLAIN + "~")
    escaped = _escaped(group)
    if len(escaped) <= MAX_KEY_BYTES:
        return escaped
    digest = hashlib.sha256(group.encode(errors="surrogateescape")).hexdigest()
    return f"{_escaped(group[:10].replace('~', '-'))}~{digest}"


def _escaped(text: str) -> str:
    """Return a text as an element of a path, as in a URL."""
    escaped = quote(text, safe=_PLAIN, errors="surrogateescape").replace("~", "%7E")
    return escaped if escaped.strip(".") else escaped.replace(".", "%2E")
