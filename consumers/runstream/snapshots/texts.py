"""What a snapshot says to people who have nothing but `tar`, `zstd` and `jq`."""

from __future__ import annotations

import inspect

from msgspec.structs import fields

from runstream.events.event import Event
from runstream.events.registry import EVENT_TYPES
from runstream.snapshots.manifest import SnapshotHeader

_README = """\
# A snapshot of Runstream

The event log of the deployment `{namespace}` (service `{service}`, epoch {epoch}, {partitions} partitions), exported on
{created} by Runstream {runstream}. Everything that ever happened there is in these files, up to one position of each
partition. Nothing but `tar`, `zstd` and `jq` is needed to read it.

| file | holds |
|---|---|
| `event-types.md` | every type of event and its fields |
| `snapshot.json` | what was to be exported |
| `segments/<partition>/<first>-<last>.jsonl.zst` | the commits of a partition, one JSON object a line, in order |
| `logs/...`, `workspacearchives/...` | step logs and workspace archives, if they were asked for |
| `object-lists/...` | the sizes and hashes of those |
| `manifest.json` | positions, counts and the SHA-256 of every file before it; what was left out |
| `signature.ed25519` | of `manifest.json`, if it was signed |
| `END` | the SHA-256 of `manifest.json`; without it the file was cut off |

    tar -xf SNAPSHOT && sha256sum -c END
    jq '.positions, .events, .left_out' manifest.json
    cat segments/000/*.zst | zstd -d | jq -c '{{sequence, subject, events: [.commit.events[].type]}}' | head
    find segments -type f | sort | xargs sha256sum | awk '{{print $1}}' > found
    jq -r '.segments | sort_by(.partition, .first)[].file_sha256' manifest.json | cmp - found && echo all as exported

A line's `commit` is one decision about one aggregate: its id, `aggregate`, `version` (1, 2, 3 ...), `time`, `actor`,
`cause` (the commit that led to it) and `events`. `sequence` is its place in the partition, `stored_at` when
the server had it.

`runstream snapshot verify FILE` checks all of it without any server; `runstream import FILE` loads it.
"""


def readme(header: SnapshotHeader) -> bytes:
    """The README.md of a snapshot."""
    return _README.format(
        namespace=header.namespace,
        service=header.service,
        epoch=header.epoch,
        partitions=header.partitions,
        created=f"{header.created:%Y-%m-%d %H:%M:%S} UTC",
        runstream=header.runstream,
    ).encode()


def event_types() -> bytes:
    """The event-types.md of a snapshot: every type that this Runstream writes."""
    lines = ["# Types of events", "", "| type | version | says | fields |", "|---|---|---|---|"]
    lines += [_row(name, event) for name, event in EVENT_TYPES.items()]
    return ("\n".join(lines) + "\n").encode()


def _row(name: str, event: type[Event]) -> str:
    says = " ".join((inspect.getdoc(event) or "").split()).replace("|", "\\|")
    names = ", ".join(f"`{field.name}`" for field in fields(event))
    return f"| `{name}` | {event.SCHEMA_VERSION} | {says} | {names} |"
