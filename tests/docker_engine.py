"""A real Docker Engine for tests: without a network bridge, and with small images made of busybox."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runstream.embedded.process import ServerCommand, ServerProcess, end_process, find_process

IMAGE = "tiny:1"
"""An image of busybox, with the users root and ci."""
BARE = "bare:1"
"""An image with one static program, and no shell."""
GIT_IMAGE = "tiny-git:1"
"""The first one with git, and with a date that knows nanoseconds."""
GIVEN = os.environ.get("RUNSTREAM_TEST_ENGINE", "")
"""The socket of a running engine to test with, such as Podman's; empty for an engine that the tests start."""
_START_SECONDS = 60.0
_PROGRAM = "dockerd"


@cache
def missing() -> str:
    """Return what is missing for an engine on this machine; empty if nothing is."""
    if GIVEN:
        return ""
    absent = [name for name in (_PROGRAM, "docker", "busybox") if shutil.which(name) is None]
    if absent:
        return f"no {' and '.join(absent)} (apt-get install docker.io busybox-static)"
    if os.geteuid() != 0:
        return "only root can start dockerd"
    mounts = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False, stderr=subprocess.DEVNULL
    )
    return "this machine does not let root mount, which dockerd needs" if mounts.returncode else ""


needs_engine = pytest.mark.skipif(bool(missing()), reason=f"no container engine: {missing()}")


class DockerEngine:
    """The engine whose data, socket and pid are in a folder."""

    def __init__(
        self, folder: Path, *, tied: bool = True, mirror: str = "", storage: str = "", tls: bool = False
    ) -> None:
        """With `tls` it also listens on a port, for clients with a certificate of `tls_folder`.

        Without the name of a storage driver it takes overlay2 where that works, and vfs elsewhere, which copies all
        files of an image twice for each container.
        """
        self.folder = folder
        self._tls = tls
        self._tied = tied
        self._storage = storage
        self._mirror = mirror
        self.process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Its socket."""
        return f"unix://{self.folder}/s"

    @property
    def tls_folder(self) -> Path:
        """The folder with ca.pem, cert.pem and key.pem."""
        return self.folder / "tls"

    @cached_property
    def tls_url(self) -> str:
        """Its port."""
        return (self.tls_folder / "url").read_text()

    async def start(self) -> None:
        """Start it, and load the images if it has none."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        for stale in ("pid", "s"):
            (self.folder / stale).unlink(missing_ok=True)
        words = [
            *(shutil.which(_PROGRAM) or _PROGRAM, "--data-root", str(data)),
            *("--exec-root", f"{self.folder}/run", "--pidfile", f"{self.folder}/pid", "-H", self.url),
            *("--iptables=false", "--ip6tables=false", "--bridge=none"),
            f"--storage-driver={self._storage or ('overlay2' if _overlays(data) else 'vfs')}",
            *(("--registry-mirror", self._mirror) if self._mirror else ()),
            *(self._listen_with_tls() if self._tls else ()),
        ]
        command = ServerCommand("Docker", words, self.folder / "docker.log", signal.SIGTERM, tied=self._tied)
        self.process = ServerProcess(command)
        (self.folder / "server").write_text(str(self.process.pid))
        await self.process.until(self._ready, _START_SECONDS)
        await self.use()

    async def kill(self) -> None:
        """End it at once, with its helpers, as a crash would."""
        await end_process(self._found(), signal.SIGKILL, 10.0)

    def hang(self) -> None:
        """Suspend it: it holds its connections and answers nothing."""
        if (process := self._found()) is not None:
            process.suspend()

    def go_on(self) -> None:
        """Resume it."""
        if (process := self._found()) is not None:
            process.resume()

    async def end_leftover(self) -> None:
        """End it."""
        self.go_on()
        await end_process(self._found(), signal.SIGTERM, 20.0)
        await asyncio.to_thread(self._unmount)

    def cli(self, *words: str, stdin: bytes = b"") -> str:
        """Run the engine's own client; return what it prints."""
        done = subprocess.run(["docker", "-H", self.url, *words], input=stdin, capture_output=True, check=False)
        if done.returncode:
            raise AssertionError((done.stdout + done.stderr).decode())
        return done.stdout.decode().strip()

    def containers(self, **labels: str) -> list[dict[str, str]]:
        """All containers that have these labels, running or not."""
        filters = [
            word for name, value in labels.items() for word in ("--filter", f"label=runstream.io/{name}={value}")
        ]
        listed = self.cli("ps", "-a", "--no-trunc", *filters, "--format", "{{json .}}")
        return [json.loads(line) for line in listed.splitlines()]

    async def use(self) -> None:
        """Load the images if it has none."""
        if IMAGE not in self.cli("images", "--format", "{{.Repository}}:{{.Tag}}"):
            await asyncio.to_thread(self._load)

    def _listen_with_tls(self) -> list[str]:
        self.tls_folder.mkdir(exist_ok=True)
        make_certificates(self.tls_folder)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        (self.tls_folder / "url").write_text(url)
        files = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}
        return ["-H", url, "--tlsverify", *(f"--{option}={self.tls_folder / name}" for option, name in files.items())]

    def _found(self) -> psutil.Process | None:
        return find_process(int((self.folder / "server").read_text()), _PROGRAM, self.url)

    def _unmount(self) -> None:
        """Unmount what a killed engine has left, so that its folder can be removed."""
        for mount in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if (place := mount.split(" ")[4]).startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)

    def _ready(self) -> bool:
        done = subprocess.run(["docker", "-H", self.url, "version"], capture_output=True, check=False)
        return done.returncode == 0

    def _load(self) -> None:
        self.cli("import", "--change", "ENV OF_IMAGE=yes", "-", IMAGE, stdin=root_file_system())
        self.cli("import", "-", GIT_IMAGE, stdin=root_file_system(programs=("git", "date")))
        self.cli("import", "-", BARE, stdin=_tar({"bin/true": Path(shutil.which("busybox") or "")}, {}))


def _overlays(folder: Path) -> bool:
    """Return whether files of this folder can be below and above an overlay."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        for name in ("lower", "upper", "work", "all"):
            (Path(own) / name).mkdir()
        options = f"lowerdir={own}/lower,upperdir={own}/upper,workdir={own}/work"
        words = ["unshare", "--mount", "mount", "-t", "overlay", "-o", options, "overlay", f"{own}/all"]
        return not subprocess.run(words, check=False, capture_output=True).returncode


def make_certificates(folder: Path) -> None:
    """Write ca.pem, and cert.pem with key.pem, which serve for 127.0.0.1 and for its clients."""
    now = datetime.now(UTC)
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of tests")])

    def certificate(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        serial = x509.random_serial_number()
        begin, end = now - timedelta(hours=1), now + timedelta(days=1)
        built = x509.CertificateBuilder(issuer, name, public, serial, begin, end)
        return built.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
        )

    constraints = x509.BasicConstraints(ca=True, path_length=None)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        **dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            False,
        ),
        encipher_only=False,
        decipher_only=False,
    )
    root = certificate(issuer, authority.public_key()).add_extension(constraints, critical=True)
    root = root.add_extension(usage, critical=True)
    leaf = certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "engine")]), key.public_key())
    leaf = leaf.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
    ).add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
    )
    for name, built in (("ca.pem", root), ("cert.pem", leaf)):
        signed = built.sign(authority, hashes.SHA256())
        (folder / name).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class GivenEngine(DockerEngine):
    """The engine that `RUNSTREAM_TEST_ENGINE` names; the tests neither start nor end it."""

    @property
    def url(self) -> str:
        """Its socket."""
        return GIVEN

    async def start(self) -> None:
        """Load the images if it has none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        await self.use()

    async def end_leftover(self) -> None:
        """Leave it as it is."""


@cache
def root_file_system(*, programs: tuple[str, ...] = (), scripts: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A tar of a root file system with busybox, these programs of this machine, and scripts with their texts."""
    busybox = shutil.which("busybox") or ""
    applets = subprocess.run([busybox, "--list"], capture_output=True, check=True).stdout.decode().split()
    links = {f"bin/{name}": "busybox" for name in applets if name != "busybox"}
    accounts = b"root:x:0:0:root:/root:/bin/sh\nci:x:1000:1000:ci:/home/ci:/bin/sh\n"
    files: dict[str, Path | bytes] = {"bin/busybox": Path(busybox), "etc/passwd": accounts}
    files |= {f"bin/{name}": text.encode() for name, text in scripts}
    for program in programs:
        found = shutil.which(program) or ""
        linked = subprocess.run(["ldd", found], capture_output=True, check=True).stdout.decode().split()
        files |= {name.lstrip("/"): Path(name).resolve() for name in linked if name.startswith("/")}
        files[f"bin/{program}"] = Path(found).resolve()
    if "git" in programs:
        links |= {f"usr/lib/git-core/{name}": "/bin/git" for name in ("git", "git-upload-pack")}
    for name in files:
        links.pop(name, None)
    return _tar(files, links)


def _tar(files: dict[str, Path | bytes], links: dict[str, str]) -> bytes:
    target = io.BytesIO()
    parents = sorted({str(parent) for name in (*files, *links) for parent in Path(name).parents})
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, mode, owner in (
            *((parent, 0o755, 0) for parent in parents),
            ("home", 0o755, 0),
            *(("tmp", 0o1777, 0), ("root", 0o700, 0), ("home/ci", 0o755, 1000)),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, owner, owner
            tar.addfile(info)
        for name, source in files.items():
            content = source if isinstance(source, bytes) else source.read_bytes()
            info = tarfile.TarInfo(name)
            info.mode, info.size = 0o755, len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, to in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, to
            tar.addfile(info)
    return target.getvalue()
