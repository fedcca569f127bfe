"""How the objects of an archive are called.

    archive/<namespace>/<service>/current.json                                   which epoch is the current one
    archive/<namespace>/<service>/<epoch>/status-<generation>.json               the data status
    archive/<namespace>/<service>/<epoch>/<partition>/<first>-<last>.<hash>.jsonl.zst
    archive/<namespace>/<service>/<epoch>/<partition>/index-<first>-<last>.<hash>.json

Whatever is named after its content (a part of its SHA-256) is never changed: two who write the same name write the
same bytes. A data status is named after its generation, in which one datamanager writes: the highest one holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runstream.snapshots.segments import SegmentDescription
from runstream.subjects import Subjects

_HASH_DIGITS = 12
_STATUS = re.compile(r"status-(\d{9})\.json")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the archive of one epoch is."""

    namespace: str
    service: str
    epoch: int

    @classmethod
    def of(cls, subjects: Subjects) -> Places:
        """The places of the log with these subjects."""
        return cls(subjects.namespace, subjects.service, subjects.epoch)

    @property
    def service_folder(self) -> str:
        """What all objects of the service begin with."""
        return f"archive/{self.namespace}/{self.service}/"

    @property
    def folder(self) -> str:
        """What all objects of the epoch begin with."""
        return f"{self.service_folder}{self.epoch}/"

    @property
    def current(self) -> str:
        """The object that names the current epoch."""
        return f"{self.service_folder}current.json"

    @property
    def statuses(self) -> str:
        """What the data statuses begin with."""
        return f"{self.folder}status-"

    def status(self, generation: int) -> str:
        """The data status of a generation."""
        return f"{self.statuses}{generation:09}.json"

    def generation(self, path: str) -> int | None:
        """The generation of the data status with this path; None for anything else."""
        match = _STATUS.fullmatch(path.removeprefix(self.folder))
        return int(match[1]) if match is not None else None

    def segment(self, segment: SegmentDescription) -> str:
        """A segment."""
        name = f"{segment.first:012}-{segment.last:012}.{segment.file_sha256[:_HASH_DIGITS]}.jsonl.zst"
        return f"{self.folder}{segment.partition:03}/{name}"

    def index(self, partition: int, first: int, last: int, sha256: str) -> str:
        """A list of segments."""
        return f"{self.folder}{partition:03}/index-{first:012}-{last:012}.{sha256[:_HASH_DIGITS]}.json"
