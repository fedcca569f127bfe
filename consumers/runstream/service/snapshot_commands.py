"""`runstream snapshot`: work on snapshot files without any server."""

from __future__ import annotations

import sys
from datetime import UTC
from pathlib import Path

from runstream.cli.output import Column, Output, print_json, print_table, say
from runstream.commits import LogPosition
from runstream.counting import counted
from runstream.errors import BadRequestError, NotExistError
from runstream.service.configuration import Service
from runstream.service.progress import progress
from runstream.snapshots.compare import Comparison, compare
from runstream.snapshots.errors import name_file_in_errors
from runstream.snapshots.manifest import Manifest
from runstream.snapshots.reading import Snapshot, open_snapshot
from runstream.snapshots.segments import line_of
from runstream.snapshots.signing import fingerprint, make_keys, read_public_key
from runstream.snapshots.verify import VerifyReport, verify

_SHOWN = 20


def verify_command(file: Path, /, *, key: Path | None = None, output: Output = "table") -> int:
    """Check a snapshot: hashes, chain, signature, counts, every event and reference. Exits 1 when something is wrong.

    Parameters
    ----------
    file
        The snapshot file.
    key
        Require a signature by this public key (PEM).
    """
    public_key = read_public_key(key) if key is not None else ""
    with progress("verifying") as step:
        report = verify(file, public_key=public_key, tell=step)
    if output == "json":
        print_json(_report_json(report))
    else:
        _print_report(report, trusted=key is not None)
    return 0 if report.good else 1


def show_command(
    file: Path, position: str = "", /, *, service: Service | None = None, output: Output = "table"
) -> None:
    """Show what a snapshot holds, or one commit of it.

    Parameters
    ----------
    file
        The snapshot file. Only the hashes of the commit that is shown are checked.
    position
        PARTITION/SEQUENCE of a commit.
    service
        Show the log of this service only: runs, or config. Default: all that the file holds; of a commit, the first.
    """
    with name_file_in_errors(file), open_snapshot(file) as snapshot:
        shown = [one for one in snapshot.all if service in (None, one.header.service)]
        if not shown:
            raise NotExistError(f"the snapshot has no log of the service {service}", code="otherService")
        if position:
            say(_commit(shown[0], position))
        elif output == "json":
            print_json({**_json(shown[0]), **({"also": [_json(one) for one in shown[1:]]} if shown[1:] else {})})
        else:
            for one in shown:
                _show(one)


def diff_command(first: Path, second: Path, /, *, output: Output = "table") -> int:
    """Compare the commits of two snapshots, whatever their epochs. Exits 1 when they differ.

    Parameters
    ----------
    first
        A snapshot file.
    second
        The snapshot file to compare it with.
    """
    with (
        name_file_in_errors(first),
        open_snapshot(first) as one,
        name_file_in_errors(second),
        open_snapshot(second) as other,
    ):
        found = compare(one, other)
    if output == "json":
        print_json({"equal": found.equal, "same": found.same, "only": found.only, "differences": found.differences})
    else:
        _print_comparison(found)
    return 0 if found.equal else 1


def keygen_command(file: Path, /) -> None:
    """Make a pair of Ed25519 keys: one signs (`export --sign`), one checks (`verify --key`; .pub in its name).

    Parameters
    ----------
    file
        File for the private key, such as snapshots.pem; it must not exist yet.
    """
    public = make_keys(file)
    say(f"{file} is the private key: keep it secret")
    say(f"{public} is the public key, {fingerprint(read_public_key(public))}")


def _print_report(report: VerifyReport, *, trusted: bool) -> None:
    for problem in report.problems:
        say(str(problem))
    if report.problem_count > len(report.problems):
        say(f"and {report.problem_count - len(report.problems):,} more")
    if report.manifest is None or not report.good:
        say(f"the snapshot is not good: {counted(report.problem_count, 'problem')}")
        return
    if parked := sum(one.parked for one in report.all):
        say(f"parked in the source: {counted(parked, 'commit')}, parked or applied where it is imported")
    skips = sum(one.skipped for one in report.all)
    skipped = f" ({skips:,} of them skipped)" if skips else ""
    manifests = [one.manifest for one in report.all if one.manifest is not None]
    signed = "not signed"
    if report.signer:
        signed = f"signed with {report.signer}" + ("" if trusted else ", not known to be trusted (--key)")
    say(
        f"the snapshot is good: {counted(sum(one.commits for one in report.all), 'commit')}{skipped}, "
        f"{counted(sum(manifest.event_count for manifest in manifests), 'event')}, "
        f"{counted(sum(found.objects for found in report.manifest.objects), 'object')}; {signed}"
    )


def _report_json(report: VerifyReport) -> dict[str, object]:
    return {
        "good": report.good,
        "commits": sum(one.commits for one in report.all),
        "skipped": sum(one.skipped for one in report.all),
        "parked": sum(one.parked for one in report.all),
        "events": sum(one.manifest.event_count for one in report.all if one.manifest is not None),
        "signer": report.signer,
        "problem_count": report.problem_count,
        "problems": report.problems,
    }


def _json(snapshot: Snapshot) -> dict[str, object]:
    return {"snapshot": snapshot.header, "manifest": snapshot.manifest, "signer": snapshot.signer}


def _show(snapshot: Snapshot) -> None:
    header, manifest = snapshot.header, snapshot.manifest
    facts = (
        ("log", f"{header.namespace}, service {header.service}, epoch {header.epoch}"),
        ("exported", f"{header.created.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC by Runstream {header.runstream}"),
        ("position", str(LogPosition(header.epoch, manifest.positions))),
        ("until", str(header.until) if header.until is not None else "the end at that time"),
        ("commits", f"{manifest.commits:,} in {counted(len(manifest.segments), 'segment')}"),
        ("objects", f"{sum(found.objects for found in manifest.objects):,}"),
        ("size", counted(snapshot.size, "byte")),
        ("signed with", snapshot.signer or "nothing"),
        *(("parked", line) for line in _parked(manifest)),
        *(("left out", what) for what in manifest.left_out),
    )
    print_table((Column(""), Column("", wraps=True)), facts, "")
    counts = [(name, f"{count:,}") for name, count in manifest.events.items()]
    print_table(("event", "count"), [*counts, ("all", f"{manifest.event_count:,}")], "")


def _parked(manifest: Manifest) -> list[str]:
    parked = [f"{one.partition}/{one.sequence} {one.subject}: {one.reason}" for one in manifest.parked[:_SHOWN]]
    more = len(manifest.parked) - len(parked)
    return [*parked, f"and {more:,} more"] if more else parked


def _commit(snapshot: Snapshot, text: str) -> str:
    partition, _, sequence = text.partition("/")
    if not (partition.isdigit() and sequence.isdigit() and len(text) < 30):
        raise BadRequestError(
            f"{text[:80]!r} is not the position of a commit",
            code="invalidPosition",
            hint="PARTITION/SEQUENCE, as in 0/812",
        )
    message = snapshot.message(int(partition), int(sequence))
    if message is None:
        raise NotExistError(
            f"the snapshot has no commit {text}",
            code="commitDoesNotExist",
            hint=f"it goes up to {LogPosition(snapshot.header.epoch, snapshot.manifest.positions)}",
        )
    return line_of(message)[0].decode().rstrip("\n")


def _print_comparison(found: Comparison) -> None:
    for difference in found.differences:
        say(difference)
    if found.equal:
        say(f"they are equal: {counted(found.same, 'commit')}")
    else:
        first, second = found.only
        same = counted(found.same, "commit")
        say(f"{same} in both, {first:,} only in the first snapshot, {second:,} only in the second")
    sys.stdout.flush()
