"""Real repositories for tests, made by the git command with nothing of this machine's configuration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "me",
    "GIT_AUTHOR_EMAIL": "me@example.com",
    "GIT_COMMITTER_NAME": "me",
    "GIT_COMMITTER_EMAIL": "me@example.com",
}


def git(folder: Path, *arguments: str, check: bool = True, **environment: str) -> str:
    """Run git in a folder; return its output. Its messages are in the error when it fails."""
    done = git_process(folder, *arguments, **environment)
    assert not check or done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode().removesuffix("\n")


def git_process(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder; return what became of it."""
    return subprocess.run(
        ["git", *arguments], check=False, capture_output=True, cwd=folder, env={**ENVIRONMENT, **environment}
    )


def new_repository(folder: Path, files: dict[str, str] | None = None, *, message: str = "the first") -> Path:
    """Make a repository with one commit on `main`."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    commit(folder, files or {}, message)
    return folder


def commit(folder: Path, files: dict[str, str], message: str = "change") -> str:
    """Commit these files, and return the commit."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")
