"""Whether a log is the one that was archived: nothing is archived behind another log's commits.

The log may be ahead of the archive, which is archived then. It may not be behind it, nor have another last commit
where the archive ends: then one of the two is older than the other, or of another deployment.
"""

from __future__ import annotations

from collections.abc import Collection

from runstream.counting import counted
from runstream.datamanager.errors import ContradictionError
from runstream.datamanager.status import DataStatus, fingerprint
from runstream.snapshots.writing import ReadableLog


async def require_agreement(
    log: ReadableLog, status: DataStatus, deployment: str, where: str, without: Collection[int] = ()
) -> None:
    """Raise ContradictionError unless the log continues what is archived in `where`.

    `deployment` is the id that NATS and the database have; `without` are partitions that are not looked at. Raises
    InternalError when the log cannot be read.
    """
    if status.deployment != deployment:
        raise ContradictionError(
            f"the archive in {where} is of deployment {status.deployment}; NATS and the database are of {deployment}",
            code="otherDeployment",
            details={"archive": status.deployment, "deployment": deployment},
            hint="name the object storage (or the namespace) of this deployment; to let it have this place, move the "
            "other one's archive away",
        )
    if len(status.partitions) != log.partitions:
        raise ContradictionError(
            f"the archive in {where} has {counted(len(status.partitions), 'partition')}, the log has {log.partitions}",
            code="otherPartitions",
            details={"archive": len(status.partitions), "log": log.partitions},
            hint="one of them is of another deployment: check the NATS URL, the namespace and the object storage",
        )
    for partition, archived in enumerate(status.partitions):
        if archived.tip is None or partition in without:
            continue
        end = await log.end(partition, at_least=archived.last)
        if end < archived.last:
            raise _went_back(status, partition, end, where)
        async with log.read(partition, archived.last - 1) as reader:
            (message,) = await reader.next_batch(1)
        if fingerprint(message) != archived.tip.sha256:
            raise _differs(status, partition, where)


def _went_back(status: DataStatus, partition: int, end: int, where: str) -> ContradictionError:
    last = status.partitions[partition].last
    return ContradictionError(
        f"the log has gone back in time: partition {partition} of stream {status.subjects.stream(partition)} ends at "
        f"{end}, but is archived up to {last} in {where}",
        code="logWentBack",
        details={"partition": partition, "log": end, "archive": last},
        hint=ways_out(status, where),
    )


def _differs(status: DataStatus, partition: int, where: str) -> ContradictionError:
    last = status.partitions[partition].last
    return ContradictionError(
        f"commit {last} of partition {partition} is another one in the log (stream "
        f"{status.subjects.stream(partition)}) than in the archive in {where}: they have different histories",
        code="logDiffers",
        details={"partition": partition, "sequence": last},
        hint=ways_out(status, where),
    )


def ways_out(status: DataStatus, where: str) -> str:
    """What to do when log and archive do not have one history."""
    until = f" as of {status.until:%Y-%m-%d %H:%M:%S} UTC" if status.until is not None else ""
    streams = f"{status.namespace}_{status.service}_{status.epoch}_*"
    return (
        f"(1) give NATS its newest data back and start again; or (2) if the archive is right: delete the streams "
        f"{streams} (or NATS's data directory), and the log is restored from the archive{until}; or (3) if the log is "
        f"right: move {where} away, and it is archived anew"
    )
