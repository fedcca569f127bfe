"""Find a container engine for `make demo-containers`, and give it the demo's image.

Prints the settings of an executor that uses this engine, as lines for a shell. Starts no engine: that is the user's.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import tarfile
from pathlib import Path

import aiohttp
from aiodocker import Docker, DockerError

IMAGE = "runstream-demo:1"
"""The name of the image in .runstream/containers.yml."""
PUBLIC = "docker.io/library/busybox:1"
"""The image that is pulled on a machine without a static busybox."""
SECONDS = 10.0


def candidates() -> list[str]:
    """The engines to try: the one that DOCKER_HOST names, else the sockets that engines have by default."""
    if named := os.environ.get("DOCKER_HOST"):
        return [named]
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    sockets = ["/var/run/docker.sock", f"{runtime}/docker.sock", f"{Path.home()}/.docker/run/docker.sock"]
    podman = ["/run/podman/podman.sock", f"{runtime}/podman/podman.sock"]
    return [f"unix://{socket}" for socket in (*sockets, *podman)]


def settings(url: str) -> dict[str, str]:
    """The variables that make an executor use this engine."""
    found = {"ENGINE": url, "PULL_POLICY": "missing", "POD_NETWORK": "none"}
    if url.startswith("tcp://") and os.environ.get("DOCKER_TLS_VERIFY"):
        found["ENGINE_TLS_DIR"] = os.environ.get("DOCKER_CERT_PATH") or f"{Path.home()}/.docker"
    return {f"RUNSTREAM_EXECUTOR_{name}": value for name, value in found.items()}


def connect(url: str) -> Docker:
    """Return a client of this engine. Raises ValueError for a URL that an executor cannot use."""
    if not url.startswith(("unix://", "tcp://")):
        raise ValueError("an executor needs unix:///PATH or tcp://HOST:PORT")
    if (folder := settings(url).get("RUNSTREAM_EXECUTOR_ENGINE_TLS_DIR")) is None:
        return Docker(url=url)
    context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
    context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    return Docker(url=f"https://{url.partition('://')[2]}", ssl_context=context)


async def unusable(url: str) -> str:
    """Return why this engine cannot be used, and give it the image; empty if it can."""
    socket = url.removeprefix("unix://")
    if url.startswith("unix://") and not os.access(socket, os.R_OK | os.W_OK):
        return "you may not use it" if os.access(socket, os.F_OK) else "there is no such socket"
    try:
        async with connect(url) as docker:
            async with asyncio.timeout(SECONDS):
                await docker.version()
            await give_image(docker)
    except TimeoutError:
        return f"it did not answer within {SECONDS:.0f} seconds"
    except (DockerError, aiohttp.ClientError, OSError, ValueError) as error:
        return str(getattr(error, "message", error)) or type(error).__name__
    return ""


async def give_image(docker: Docker) -> None:
    """Make the demo's image available: of this machine's busybox if that is static, else from Docker Hub."""
    try:
        await docker.images.inspect(IMAGE)
        return
    except DockerError as error:
        if error.status != 404:
            raise
    if (busybox := static_busybox()) is not None:
        options = {"fromSrc": "-", "message": "made by make demo-containers"}
        content = root_file_system(busybox)
        async with docker._query("images/create", "POST", params=options, data=content) as response:  # noqa: SLF001
            made = json.loads((await response.read()).splitlines()[-1])["status"]
        # Only a tag has the same name in Docker and in Podman.
        await docker.images.tag(made, IMAGE.partition(":")[0], tag=IMAGE.partition(":")[2])
    else:
        sys.stderr.write(f"pulling {PUBLIC}, because this machine has no static busybox to make an image of\n")
        await docker.images.pull(PUBLIC)
        await docker.images.tag(PUBLIC, IMAGE.partition(":")[0], tag=IMAGE.partition(":")[2])
    await docker.images.inspect(IMAGE)


def static_busybox() -> Path | None:
    """This machine's busybox, if it needs no libraries."""
    found = shutil.which("busybox")
    if found is None or sys.platform != "linux":
        return None
    linked = subprocess.run(["ldd", found], capture_output=True, check=False)
    return Path(found) if linked.returncode else None


def root_file_system(busybox: Path) -> bytes:
    """A tar of the root file system of an image that has busybox alone."""
    applets = subprocess.run([busybox, "--list"], capture_output=True, check=True, text=True).stdout.split()
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        for path, content in (("bin/busybox", busybox.read_bytes()), ("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")):
            file = tarfile.TarInfo(path)
            file.mode, file.size = 0o755, len(content)
            tar.addfile(file, io.BytesIO(content))
        for applet in applets:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if applet != "busybox":
                tar.addfile(link)
    return target.getvalue()


async def main() -> int:
    """Print the settings for the first engine that can be used; return the exit status."""
    problems = {}
    for url in candidates():
        if not (problem := await unusable(url)):
            for name, value in settings(url).items():
                sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
            return 0
        problems[url] = problem
    lines = "".join(f"  {url}: {problem}\n" for url, problem in problems.items())
    sys.stderr.write(
        f"no container engine can be used:\n{lines}"
        "Start one (`sudo systemctl start docker`, Docker Desktop, `podman system service -t 0 &`), or name it:\n"
        "  make demo-containers DOCKER_HOST=unix:///PATH/TO/docker.sock\n"
        "A socket that you may not use needs its group: `sudo usermod -aG docker $USER`, then log in again.\n"
        "Without an engine, `make demo` runs a pipeline on this machine itself.\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
