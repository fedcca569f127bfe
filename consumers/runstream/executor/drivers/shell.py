"""What runs inside a container on Runstream's behalf: scripts for the image's own /bin/sh.

So an image needs no program of ours, and nothing is compiled for it. It must have `/bin/sh` with the built-ins of
POSIX; `mkdir` for a working directory that is missing; `cat` for cache keys that hash files; `tar` for steps with
workspaces and caches, and `dd` too if the engine is reached with TLS; and `git` for `clone`.

Texts that may be secret reach these scripts in variables, which neither the list of processes nor the engine shows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

SHELL = "/bin/sh"
SLEEPER = "trap '' TERM; read -r _"
"""The process of a main container: it waits for the end of its input, which comes when the executor ends or dies."""
KILLER = "kill -TERM -1"
_TEXT = "RUNSTREAM_TEXT_"
_PART_LETTERS = 30_000
"""Letters in one variable, at most 4 bytes each: the kernel allows 128 KiB."""
MAX_TEXT_BYTES = 1 << 20
"""Maximum size of a text that a script writes to a file; the kernel allows 2 MiB for all variables and arguments."""

PROBE = r"""
h=${HOME:-/}
case $1 in
  '~') w=$h;;
  '~/'*) w=${h%/}/${1#??};;
  /*) w=$1;;
  *) w=${h%/}/$1;;
esac
if [ ! -d "$w" ]; then
  mkdir -p "$w" || exit 1
fi
for d in /dev/shm "${TMPDIR:-/tmp}" /tmp /var/tmp "$h" "$w"; do
  if [ -d "$d" ] && [ -w "$d" ]; then break; fi
done
printf '%s\n%s\n' "$h" "$d"
"""
"""Makes the working directory; prints the home, and a folder for scripts."""

_RUN = r"""
if ! cd "$1" 2>/dev/null; then
  if [ -d "$1" ]; then echo "the working directory $2 cannot be used"
  else echo "the working directory $2 does not exist"; fi
  exit 1
fi
if [ -n "$3" ]; then
  (umask 077; printf '%s' @TEXT@ > "$3") ||
    { echo "the command cannot be written to $3: is its file system full?"; exit 1; }
  unset @NAMES@
fi
shift 3
command -v "$1" >/dev/null 2>&1 || { echo "$1 cannot be executed: there is no such program"; exit 1; }
exec "$@"
"""

_WRITE = r"""
umask "$2"
printf '%s' @TEXT@ > "$1"
"""


NO_FOLDER = 66
"""Exit status of `PACK` for a source that is not a folder; `tar` has none above 2."""
NO_TAR = 127
PACK = r"""
cd "$1" 2>/dev/null || exit 66
shift
for p in "$@"; do
  shift
  if [ -e "$p" ] || [ -L "$p" ]; then set -- "$@" "$p"; fi
done
[ $# -gt 0 ] || exit 0
exec tar -cf - "$@"
"""
"""Writes a tar of the paths below a folder that exist; each begins with `./`."""

LIST = r"""
[ -d "$1" ] || mkdir -p "$1" || exit 1
cd "$1" || exit 1
list() {
  for p in "$1"* "$1".[!.]* "$1"..?*; do
    if [ -L "$p" ]; then printf 'l%s\0' "$p"
    elif [ -d "$p" ]; then printf 'd%s\0' "$p"; list "$p/"
    elif [ -e "$p" ]; then printf 'f%s\0' "$p"; fi
  done
}
list ./
"""
"""Makes a folder if it is missing; prints what is below it, each with its kind and a NUL."""

UNPACK = r"""
cd "$1" || exit 1
exec tar -xpof -
"""
"""Unpacks its input into a folder, with the modes of the archive and the user's ownership."""

FED = r"""
while read -r n && [ "$n" -gt 0 ]; do dd bs="$n" count=1 iflag=fullblock 2>/dev/null || exit 1; done | "$@"
"""
"""Runs its arguments with the input that `in_pieces` made: for connections of which no single direction can end."""


async def in_pieces(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the chunks with their sizes, and 0 at the end, as `FED` reads them."""
    async for chunk in source:
        if chunk:
            yield b"%d\n%b" % (len(chunk), chunk)
    yield b"0\n"


def in_variables(text: str) -> dict[str, str]:
    """Return the text cut into variables for `_RUN` and `_WRITE`."""
    parts = [text[at : at + _PART_LETTERS] for at in range(0, len(text), _PART_LETTERS)] or [""]
    return {f"{_TEXT}{at}": part for at, part in enumerate(parts)}


def to_run(folder: str, named: str, arguments: Sequence[str], script: str, texts: Mapping[str, str]) -> list[str]:
    """Return the command that runs `arguments` in a folder, after it has written the texts to the file `script`.

    `named` is the folder as the user wrote it; `script` is empty if there is nothing to write.
    """
    return [SHELL, "-c", _filled(_RUN, texts), SHELL, folder, named, script, *arguments]


def to_write(path: str, mode: int, texts: Mapping[str, str]) -> list[str]:
    """Return the command that writes the texts to a file."""
    return [SHELL, "-c", _filled(_WRITE, texts), SHELL, path, f"{0o777 & ~mode:03o}"]


def _filled(script: str, texts: Mapping[str, str]) -> str:
    parts = " ".join(f'"${name}"' for name in texts)
    return script.replace("@TEXT@", parts).replace("@NAMES@", " ".join(texts))
