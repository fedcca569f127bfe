"""`runstream serve` and `doctor` with their objects in a bucket, or without being able to reach it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runstream.objects import ObjectStorage
from runstream.objects import paths as layout
from runstream.service.doctor import Finding, guarded, object_storage
from runstream.settings import Settings
from tests.objects.backends import KEYS, open_at
from tests.objects.backends import s3_location as location
from tests.objects.faulty import Refuse, Request, faulty
from tests.objects.reading import content, paths
from tests.service.running import a_run, runstream, serving

PIPELINE = """
runs:
  - name: hand over
    tasks:
      - name: one
        runtime: {type: host}
        steps:
          - {run: echo hello | tee greeting}
          - {type: save_to_workspace, contents: [{source_dir: ., dest_dir: /, paths: [greeting]}]}
      - name: two
        runtime: {type: host}
        depends: [one]
        steps:
          - {type: restore_workspace, dest_dir: .}
          - {run: cat greeting}
"""


def environment(url: str, bucket: str) -> dict[str, str]:
    return {
        "RUNSTREAM_OBJECTS_URL": f"s3://{bucket}/some/where?endpoint={url}&region=eu-central-1",
        "RUNSTREAM_OBJECTS_ACCESS_KEY": KEYS.access,
        "RUNSTREAM_OBJECTS_SECRET_KEY": KEYS.secret,
    }


async def of_runs(storage: ObjectStorage) -> list[str]:
    """The paths of what runs have left; the archive of the log is in the same bucket."""
    return [path for path in await paths(storage) if path.startswith((layout.LOGS, layout.ARCHIVES))]


async def test_logs_and_archives_of_a_run_are_in_the_bucket(open_path: Path, s3_url: str, namespace: str) -> None:
    bucket = environment(s3_url, namespace)
    async with serving(open_path / "data", **bucket) as service:
        run = await a_run(open_path / "data", PIPELINE)
        storage = await open_at(location(s3_url, namespace))
        stored = await of_runs(storage)
        archive = next(path for path in stored if path.startswith(layout.ARCHIVES))
        one = layout.run_task_id_from_path(archive)
        [two] = {path.split("/")[1] for path in stored} - {one}
        assert set(stored) == {
            *(
                path(task, step)
                for path in (layout.step_log, layout.log_index)
                for task in (one, two)
                for step in (None, 0, 1)
            ),
            *(layout.log_reference(task, run) for task in (one, two)),
            *(layout.archive(one, 1), layout.archive_reference(one, run)),
        }
        assert (await content(storage, layout.step_log(two, 1))).split() == [b"hello"]
        code, out, told = await runstream(
            "--data-dir", str(open_path / "data"), "log", "get", run, "two", "--step", "1"
        )
        assert (code, out.strip()) == (0, "hello"), told
        code, out, told = await runstream("--data-dir", str(open_path / "data"), "doctor", "--output", "json", **bucket)
        assert code == 0, out
        finding = next(each for each in json.loads(out) if each["what"] == "object storage")
        assert "wrote, listed, read and deleted a probe" in finding["found"]
        assert KEYS.secret not in out
        assert set(await of_runs(storage)) == set(stored)
        service.process.terminate()
        await service.ended()
    assert not (open_path / "data" / "objects").exists()


@pytest.mark.parametrize("attempt", range(2))
async def test_a_start_without_the_bucket_is_refused(open_path: Path, namespace: str, attempt: int) -> None:
    code, _, told = await runstream(
        *("--data-dir", str(open_path / "data"), "serve", "--wait-for-dependencies", "0s"),
        **environment("http://127.0.0.1:1", namespace),
    )
    assert code == 1
    assert told.splitlines()[-2].startswith(
        f"error: the object storage s3://{namespace}/some/where at 127.0.0.1:1 cannot"
    )
    assert told.splitlines()[-1].startswith("hint: check the endpoint in --objects-url")
    assert "Traceback" not in told
    assert KEYS.secret not in told


async def examined(settings: Settings) -> list[Finding]:
    return [finding async for finding in guarded("object storage", object_storage(settings))]


def of_bucket(folder: Path, url: str, bucket: str) -> Settings:
    values = {name.removeprefix("RUNSTREAM_").lower(): value for name, value in environment(url, bucket).items()}
    return Settings(data_dir=folder, **values)  # type: ignore[arg-type]


async def test_doctor_makes_nothing(tmp_path: Path, s3_url: str, namespace: str) -> None:
    for settings, missing in (
        (Settings(data_dir=tmp_path), f"the object storage {tmp_path}/objects does not exist"),
        (of_bucket(tmp_path, s3_url, namespace), "has no such bucket"),
    ):
        for _ in range(2):
            [finding] = await examined(settings)
            assert finding.status == "problem"
            assert missing in finding.found
            assert "`runstream serve` makes it" in finding.todo


async def test_doctor_on_disk(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    [finding] = await examined(Settings(data_dir=tmp_path))
    assert (finding.status, finding.what) == ("ok", "object storage")
    assert str(tmp_path / "objects") in finding.found


async def test_doctor_says_what_is_wrong_with_a_bucket(tmp_path: Path, s3_url: str, namespace: str) -> None:
    await open_at(location(s3_url, namespace))
    async with faulty(s3_url) as proxy:

        async def refuse_writes(request: Request) -> Refuse | None:
            return Refuse(403, "AccessDenied") if request.method == "PUT" else None

        proxy.decide = refuse_writes
        [finding] = await examined(of_bucket(tmp_path, proxy.url, namespace))
    assert finding.status == "problem"
    assert "refuses our keys: AccessDenied" in finding.found
    assert "RUNSTREAM_OBJECTS_SECRET_KEY" in finding.todo


def test_a_process_with_its_objects_on_disk_needs_no_client() -> None:
    words = (
        "import sys, runstream.service.platform, runstream.service.configuration; sys.exit('obstore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", words], check=False, timeout=60).returncode == 0
