"""System calls without a function in Python. Each raises OSError with the path concerned."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
_CLONE_INTO_CGROUP = 0x200000000

MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2

ATTR_RDONLY: Final = 1
ATTR_NOSUID: Final = 2
ATTR_NODEV: Final = 4

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 428, 429, 442, 444, 446
"""The same numbers on every architecture."""
_MACHINE = os.uname().machine
_SIGACTION = {"x86_64": 13, "aarch64": 134, "riscv64": 134}.get(_MACHINE)
_KERNEL_SIGACTION_BYTES, _SIGSET_BYTES = 32, 8
_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220}.get(_MACHINE)
_CAPSET = {"x86_64": 126, "aarch64": 91, "riscv64": 91}.get(_MACHINE)
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}.get(_MACHINE)
_CAPABILITY_VERSION_3 = 0x20080522
_AT_FDCWD = -100
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_FROM_EMPTY_PATH = 4
_LANDLOCK_VERSION = 1
_LANDLOCK_ABI_OF_SCOPES = 6
_SCOPE_ABSTRACT_UNIX_SOCKET = 1
_CLONE3 = 435
_LAST_CAPABILITY = 63

_libc = ctypes.CDLL(None, use_errno=True)
# Here, once: a fork pays for each object that it creates.
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc.mount.argtypes = (*(ctypes.c_char_p,) * 3, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.pivot_root.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_libc.unshare.argtypes = (ctypes.c_int,)
_OWN_CAPABILITIES = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_NO_CAPABILITIES = (ctypes.c_uint32 * 6)()


def unshare(flags: int) -> None:
    """Move this process into new namespaces of these kinds."""
    _check(_libc.unshare(flags), "unshare")


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid"),
            *("set_tid_size", "cgroup"),
        )
    )


def fork(namespaces: int = 0, group: str = "") -> int:
    """Fork into new namespaces and into a control group (its folder); return 0 in the child.

    Moving into a group later would wait some milliseconds for all CPUs. Only for a process with one thread: Python does
    not know of this fork.
    """
    flags = namespaces
    descriptor = -1
    if group:
        flags |= _CLONE_INTO_CGROUP
        descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _CloneArgs(flags=flags, exit_signal=signal.SIGCHLD, cgroup=max(descriptor, 0))
        return _check(_libc.syscall(_CLONE3, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))), group or "clone3")
    except OSError as error:
        if error.errno != errno.ENOSYS or group or _CLONE is None:  # a filter that cannot look into its arguments
            raise
        none = ctypes.c_void_p()
        return _check(_libc.syscall(_CLONE, ctypes.c_ulong(flags | signal.SIGCHLD), none, none, none, none), "clone")
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace of this kind that the descriptor refers to."""
    _check(_libc.setns(descriptor, ctypes.c_int(kind)), "setns")


def default_signal(number: int) -> None:
    """Reset a signal to its default, even one of those that the C library reserves and so leaves ignored."""
    if _SIGACTION is not None:
        action = bytes(_KERNEL_SIGACTION_BYTES)
        _libc.syscall(_SIGACTION, ctypes.c_int(number), action, None, ctypes.c_size_t(_SIGSET_BYTES))


def prctl(option: int, value: int = 0) -> None:
    """Change an attribute of this process."""
    _check(_libc.prctl(option, value, 0, 0, 0), "prctl")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount a new file system, or change how mounts propagate."""
    done = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, data.encode())
    _check(done, target)


def detach(target: str) -> None:
    """Unmount, with all mounts below."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root, and move the old one to `old`."""
    _check(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), new)


def open_tree(path: str) -> int:
    """Return a descriptor of a detached copy of the mounts at a path and below."""
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    return _check(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), ctypes.c_uint(flags)), path)


class _MountAttr(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


def restrict_mounts(tree: int, attributes: int, path: str) -> None:
    """Add attributes to all mounts of a tree; no attribute is removed."""
    _set_attributes(tree, _MountAttr(attributes, 0, 0, 0), path, _AT_RECURSIVE)


def change_mount(root: int, attribute: int, path: str, *, add: bool) -> None:
    """Add an attribute to the mount with this root, or remove it."""
    _set_attributes(root, _MountAttr(attribute if add else 0, 0 if add else attribute, 0, 0), path, 0)


def _set_attributes(tree: int, how: _MountAttr, path: str, flags: int) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(how))
    done = _libc.syscall(_MOUNT_SETATTR, tree, b"", ctypes.c_uint(_AT_EMPTY_PATH | flags), ctypes.byref(how), size)
    _check(done, path)


def attach(tree: int, path: str) -> None:
    """Attach a tree of mounts at a path."""
    flags = ctypes.c_uint(_MOVE_MOUNT_FROM_EMPTY_PATH)
    _check(_libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(path), flags), path)


def drop_capabilities() -> None:
    """Drop every capability of this process and of the programs that it starts."""
    change = _libc.prctl  # called 41 times, so without the way through `prctl`
    for capability in range(_LAST_CAPABILITY + 1):
        if change(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:  # the kernel has no further capability
            break
    if _CAPSET is not None:
        _check(_libc.syscall(_CAPSET, _OWN_CAPABILITIES, _NO_CAPABILITIES), "capset")


def leave_keyring() -> None:
    """Join an empty session keyring, so that the executor's is out of reach."""
    if _KEYCTL is not None:
        _libc.syscall(_KEYCTL, ctypes.c_int(1), None)  # a kernel without keyrings has none to hide


def scope_abstract_sockets() -> bool:
    """Deny access to abstract sockets of other processes; return False if the kernel cannot."""
    abi = _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_LANDLOCK_VERSION))
    if abi < _LANDLOCK_ABI_OF_SCOPES:
        return False
    scoped = (ctypes.c_uint64 * 3)(0, 0, _SCOPE_ABSTRACT_UNIX_SOCKET)
    size = ctypes.c_size_t(ctypes.sizeof(scoped))
    ruleset = _check(_libc.syscall(_LANDLOCK_CREATE, scoped, size, ctypes.c_uint(0)), "landlock")
    try:
        _check(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, ctypes.c_uint(0)), "landlock")
    finally:
        os.close(ruleset)
    return True


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
