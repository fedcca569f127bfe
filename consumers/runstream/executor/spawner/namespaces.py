"""The sandbox of one task: its own namespaces, and a root file system with only the places that the task may see.

As root, the mounts are made with root's powers in a mount namespace that belongs to the machine, and only then does the
task's user namespace begin, as an unprivileged user of the machine: no process of the task ever has a capability over
its mounts. As an ordinary user the user namespace comes first, because it permits the rest; all its capabilities are
dropped at the end, and the kernel locks the mounts against user namespaces that a task might create.

The first process of the PID namespace is the task's agent: when it ends, the kernel ends all others. Signals of the
task do not end it, and because it is not dumpable, no process of the task can trace it or read its memory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import struct
from collections.abc import Iterator, Sequence

from runstream.executor.spawner import kernel
from runstream.executor.spawner.plan import Sandbox

_NEW_ROOT = "/tmp"  # noqa: S108  (every machine has it; the new root covers it only in the namespace of the task)
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
    "dev/ptmx": "pts/ptmx",
}
_FOLDERS = ("dev", "dev/pts", "dev/shm", "proc", "run", "tmp", "var", "home")
_PLAIN = kernel.MS_NOSUID | kernel.MS_NODEV
_WRITABLE = kernel.ATTR_NOSUID | kernel.ATTR_NODEV
_READ_ONLY = _WRITABLE | kernel.ATTR_RDONLY
_SHARED_MEMORY = "1g"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


NAMESPACES = (
    ("user", kernel.CLONE_NEWUSER),
    ("mnt", kernel.CLONE_NEWNS),
    ("pid", kernel.CLONE_NEWPID),
    ("ipc", kernel.CLONE_NEWIPC),
    ("net", kernel.CLONE_NEWNET),
)
"""The namespaces of a sandbox, by their name in /proc, in the order in which an ordinary user can enter them."""


def new_namespaces(sandbox: Sandbox) -> int:
    """Return the namespaces in which a sandbox's first process begins. As root it begins its user namespace later."""
    kinds = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC
    if not sandbox.network:
        kinds |= kernel.CLONE_NEWNET
    return kinds if os.geteuid() == 0 else kinds | kernel.CLONE_NEWUSER


class Boundary:
    """The sandbox of one task, made by its first process."""

    def __init__(self, sandbox: Sandbox, uid: int, gid: int) -> None:
        """`uid` and `gid` are the spawner's: in a new user namespace they are unknown until they are mapped."""
        self._sandbox = sandbox
        self._root = uid == 0
        self._uid, self._gid = uid, gid

    def make(self) -> int:
        """Enter the new root as the task's user, without capabilities; return this process's id on the machine."""
        pid = int(os.readlink("/proc/self"))  # still the machine's /proc
        if not self._root:
            self._map_ids(self._uid, self._gid)
        kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
        if not self._sandbox.network:
            _raise_loopback()
        self._build()
        kernel.pivot_root(".", ".")
        kernel.mount("proc", "/proc", "proc", _PLAIN | kernel.MS_NOEXEC)  # allowed only while another /proc is visible
        _set_root_read_only(True)
        kernel.detach(".")  # a process whose root is covered cannot begin a user namespace
        os.chdir("/")
        if self._root:
            os.setgroups([])
            _become(self._sandbox.uid, self._sandbox.gid)
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # otherwise its files in /proc belong to root
            kernel.unshare(kernel.CLONE_NEWUSER)
            self._map_ids(self._sandbox.uid, self._sandbox.gid)
        _write("/proc/sys/user/max_user_namespaces", "0")
        _give_up_privileges()
        return pid

    def _map_ids(self, uid: int, gid: int) -> None:
        inside = self._sandbox.inside_uid
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{inside} {uid} 1")
        _write("/proc/self/gid_map", f"{inside} {gid} 1")

    def _build(self) -> None:
        """Build the new root in a tmpfs, and make it the working directory."""
        trees = list(self._trees())
        devices = [(f"/dev/{name}", kernel.open_tree(f"/dev/{name}")) for name in _DEVICES]
        kernel.mount("runstream", _NEW_ROOT, "tmpfs", _PLAIN, "size=4m,mode=755")
        os.chdir(_NEW_ROOT)
        for path in _FOLDERS:
            os.mkdir(path, 0o755)
        for path, target in _LINKS.items():
            os.symlink(target, path)
        kernel.mount("devpts", "dev/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "newinstance,ptmxmode=0666")
        kernel.mount("shm", "dev/shm", "tmpfs", _PLAIN, f"size={_SHARED_MEMORY},mode=1777")
        os.symlink("/tmp", "var/tmp")  # noqa: S108
        for path, tree in sorted([*trees, *devices]):
            if isinstance(tree, str):
                _make_parents(path)
                os.symlink(tree, path.lstrip("/"))
            else:
                _attach(tree, path)
        for path in self._sandbox.masked:
            _mask(path.lstrip("/"))

    def _trees(self) -> Iterator[tuple[str, int | str]]:
        """Yield each path of the new root with its mounts, or with the target if it is a link."""
        box = self._sandbox
        for paths, attributes in ((box.readonly, _READ_ONLY), (box.writable, _WRITABLE)):
            for path in paths:
                if os.path.islink(path):
                    yield path, os.readlink(path)
                elif os.path.exists(path):
                    yield path, _tree(path, attributes)
        yield box.inside_home, _tree(box.home, _WRITABLE)
        yield "/tmp", _tree(box.tmp, _WRITABLE)  # noqa: S108
        for inside, outside in box.files:
            yield inside, _tree(outside, _READ_ONLY)


def join(namespaces: Sequence[int], seen: Sequence[str], inside_uid: int) -> None:
    """Enter the sandbox with these namespaces, in the order of `NAMESPACES`, and add the places in `seen`,
    read-only."""
    root = os.geteuid() == 0
    (user, _), *others = entered = list(zip(namespaces, (kind for _, kind in NAMESPACES), strict=False))
    if root:
        os.setgroups([])
    else:
        kernel.setns(user, kernel.CLONE_NEWUSER)
        kernel.unshare(kernel.CLONE_NEWNS)  # copying mounts requires an own mount namespace
    trees = [(path, _tree(path, _READ_ONLY)) for path in seen]
    for namespace, kind in others:
        kernel.setns(namespace, kind)
    kernel.unshare(kernel.CLONE_NEWNS)
    os.chdir("/")
    _set_root_read_only(False)
    for path, tree in trees:
        _attach(tree, path)
    _set_root_read_only(True)
    if root:
        kernel.setns(user, kernel.CLONE_NEWUSER)
        _become(inside_uid, inside_uid)
    _give_up_privileges()
    for namespace, _ in entered:
        os.close(namespace)


def _set_root_read_only(read_only: bool) -> None:
    """Change the mount of the root, which is the working directory."""
    root = os.open(".", os.O_PATH | os.O_CLOEXEC)
    kernel.change_mount(root, kernel.ATTR_RDONLY, "/", add=read_only)
    os.close(root)


def describe(error: BaseException) -> str:
    """Describe an error, with the path concerned."""
    if isinstance(error, OSError) and error.filename == "clone3" and error.errno == errno.ENOSPC:
        return "no namespace can be made: their number is limited (sysctl user.max_*_namespaces)"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _tree(path: str, attributes: int) -> int:
    tree = kernel.open_tree(path)
    kernel.restrict_mounts(tree, attributes, path)
    return tree


def _attach(tree: int, path: str) -> None:
    """Attach mounts at an absolute path of the new root, which is the working directory; close the descriptor."""
    relative = path.lstrip("/")
    if not os.path.exists(relative):
        try:
            _make_point(tree, relative)
        except FileNotFoundError:
            _make_parents(path)
            _make_point(tree, relative)
    kernel.attach(tree, relative)
    os.close(tree)


def _make_point(tree: int, path: str) -> None:
    """Create the directory or the file at which mounts can be attached, as their root requires."""
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _make_parents(path: str) -> None:
    parent = os.path.dirname(path).lstrip("/")
    if parent:
        os.makedirs(parent, 0o755, exist_ok=True)


def _mask(path: str) -> None:
    """Hide a place under an empty one, if it exists."""
    if os.path.isdir(path):
        kernel.mount("runstream", path, "tmpfs", _PLAIN, "size=4k,mode=755")
    elif os.path.exists(path):
        _attach(kernel.open_tree("dev/null"), path)


def _become(uid: int, gid: int) -> None:
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _give_up_privileges() -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # the task must not trace this process; a command's exec sets it again
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # last, because a change of user clears it


def _raise_loopback() -> None:
    """Bring up the loopback interface of a new network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)
