"""Storage for what is too big for the log: step logs, archives, caches. One interface over every backend.

objects = await open_objects(settings)      runstream.objects.open: on disk, or in a bucket
await objects.write(paths.step_log(run_task, 0), BytesSource(b"..."), persist=True)
async with await objects.read(path) as stored: ...
"""

from runstream.objects.port import ByteSource, BytesSource, FileSource, Object, ObjectReader, ObjectStorage
from runstream.objects.posix import PosixObjects

__all__ = ["ByteSource", "BytesSource", "FileSource", "Object", "ObjectReader", "ObjectStorage", "PosixObjects"]
