"""Opens the object storage that the settings name: a bucket, else a folder."""

from __future__ import annotations

import structlog

from runstream.errors import InternalError
from runstream.objects.port import ObjectStorage
from runstream.objects.posix import PosixObjects
from runstream.settings import Settings

log = structlog.get_logger()


async def open_objects(settings: Settings, *, make: bool = True) -> ObjectStorage:
    """Open the object storage; create a missing bucket or folder if `make`, else fail.

    Raises BadRequestError for an invalid URL, InternalError for a storage that cannot be used.
    """
    if settings.objects_url:
        # Imported here: a process with its objects on disk needs no S3 client.
        from runstream.objects.s3 import Credentials, open_s3
        from runstream.objects.s3_location import parse_location

        access, secret = settings.objects_access_key, settings.objects_secret_key
        location = parse_location(settings.objects_url)
        return await open_s3(location, Credentials(access, secret) if access else None, make=make)
    folder = settings.objects_path
    if not make and not folder.exists():
        raise InternalError(
            f"the object storage {folder} does not exist",
            code="objectsDirMissing",
            hint="`runstream serve` makes it when it starts; or correct --objects-dir",
        )
    try:
        storage = PosixObjects(folder)
        removed = await storage.sweep() if make else 0
    except OSError as error:
        raise InternalError(
            f"the object storage {folder} cannot be used: {error.strerror}",
            code="objectsDirNotWritable",
            hint="give a folder that this user may write with --objects-dir",
        ) from error
    if removed:
        log.info(
            f"removed {removed} unfinished objects of an earlier process",
            action="objects_swept",
            files=removed,
        )
    return storage
