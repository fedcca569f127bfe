"""Saving a working tree as a commit, without a change to the index, HEAD or any file of it.

A copy of the index is reset to the tree of the branch, and then gets what is in the working tree: modified files,
untracked ones, and ignored ones if asked for. Its tree becomes a commit without parents, so that a push sends this
state alone. Filters of the user (such as those of Git LFS) are applied, hooks are not run.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from runstream.errors import BadRequestError, NotExistError
from runstream.git.command import Git, GitLimits, GitOutput, user_git
from runstream.git.login import with_password
from runstream.repository_urls import split_url

MESSAGE = "runstream direct run"
SAVE_SECONDS = 600.0
"""Maximum time of each git command of a save or push."""
_OUTPUT_BYTES = 256 << 20
_REF = "refs/gitsave/gitsavebranch-"
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UUID_SETTING = "agola.repouuid"
"""Where the id of a clone is, with the model's name: a clone has the same repository and caches by either command."""
_EVERY_FILE = {
    "core.safecrlf": "false",
    "core.splitIndex": "false",
    "advice.addEmbeddedRepo": "false",
}
"""Settings of the user that would refuse a file for its line ends, or write a second index file."""
_PUSH = {
    "push.followTags": "false",
    "push.gpgSign": "false",
    "push.negotiate": "false",
    "push.pushOption": "",
    "push.recurseSubmodules": "no",
}
_NOBODY = {"user.name": "runstream", "user.email": "runstream@localhost"}


@dataclass(frozen=True, slots=True)
class SavedTree:
    """A working tree as a commit."""

    top: Path
    """The folder of the working tree."""
    commit: str
    branch: str
    """The branch that is checked out, without `refs/heads/`."""
    clone_id: str
    """The UUID of this clone, which its git configuration keeps."""
    ref: str
    """The ref that leads to the commit, until the next save."""
    message: str
    nested: tuple[str, ...] = ()
    """Repositories in the working tree that are not submodules: their files are not saved."""


def save_working_tree(
    folder: Path, *, untracked: bool = True, ignored: bool = False, message: str = MESSAGE
) -> SavedTree:
    """Save the working tree around a folder as a commit.

    Raises NotExistError without a working tree, BadRequestError if no branch is checked out or a file cannot be read.
    """
    work = _WorkingTree.around(folder)
    branch, clone_id = work.branch(), work.clone_id()
    index = work.git_dir / f"runstream-index-{secrets.token_hex(8)}"
    try:
        commit, nested = work.save(index, untracked=untracked, ignored=ignored, message=message)
    finally:
        for leftover in (index, index.with_name(f"{index.name}.lock")):
            leftover.unlink(missing_ok=True)
    ref = f"{_REF}{clone_id}"
    work.ask("update-ref", ref, commit, what=f"write {ref}")
    return SavedTree(work.top, commit, branch, clone_id, ref, message, nested)


def push_saved(saved: SavedTree, url: str, ref: str, *, username: str = "", password: str = "") -> None:
    """Push a saved tree to a full ref of a repository, whatever the ref led to.

    Raises BadRequestError (pushTooLarge) for one that the server does not take, GitError with git's reason otherwise.
    """
    git = user_git(GitLimits(seconds=SAVE_SECONDS)).given({"GIT_ALLOW_PROTOCOL": "http:https"}, _PUSH)
    shown = split_url(url).shown
    if username or password:
        git = with_password(git, shown, username, password)
    done = git.run_here(
        *("push", "--quiet", "--force", "--no-verify", "--end-of-options", shown, f"{saved.commit}:{ref}"),
        folder=saved.top,
    )
    if done.status and "HTTP 413" in done.errors:
        raise BadRequestError(
            f"the files of {saved.top} are more than {shown} takes",
            code="pushTooLarge",
            hint="leave out large ones: add them to .gitignore, or save no untracked files",
        )
    done.require(f"push to {shown}")


@dataclass(frozen=True, slots=True)
class _WorkingTree:
    git: Git
    top: Path
    git_dir: Path

    @classmethod
    def around(cls, folder: Path) -> _WorkingTree:
        environment = {name: value for name, value in user_git().environment.items() if not name.endswith("ER_DATE")}
        git = replace(user_git(), environment=environment, limits=GitLimits(SAVE_SECONDS, _OUTPUT_BYTES))
        git = git.given(config=_EVERY_FILE)
        found = git.run_here("rev-parse", "--show-toplevel", folder=folder)
        if found.status or not found.text:
            raise NotExistError(
                f"there is no working tree at {folder}: {found.reason}",
                code="noWorkingTree",
                hint="run it in a clone of a git repository that is not bare",
            )
        top = Path(found.text)
        git_dir = git.run_here("rev-parse", "--absolute-git-dir", folder=top).require("find the repository").text
        return cls(git, top, Path(git_dir))

    def ask(self, *arguments: str, what: str, given: bytes = b"", index: Path | None = None) -> GitOutput:
        git = self.git if index is None else self.git.given({"GIT_INDEX_FILE": str(index)})
        return git.run_here(*arguments, folder=self.top, given=given).require(what)

    def branch(self) -> str:
        found = self.git.run_here("symbolic-ref", "-q", "HEAD", folder=self.top)
        if found.status or not found.text.startswith("refs/heads/"):
            raise BadRequestError(
                f"no branch is checked out in {self.top} (HEAD is detached)",
                code="detachedHead",
                hint="check one out: `git switch NAME`, or `git switch -c NAME` for a new one",
            )
        return found.text.removeprefix("refs/heads/")

    def clone_id(self) -> str:
        found = self.git.run_here("config", "--local", "--get", _UUID_SETTING, folder=self.top).text
        if _UUID.fullmatch(found):
            return found
        made = str(uuid.uuid4())
        self.ask("config", "--local", "--replace-all", _UUID_SETTING, made, what="write its configuration")
        return made

    def save(self, index: Path, *, untracked: bool, ignored: bool, message: str) -> tuple[str, tuple[str, ...]]:
        """Return the commit of the working tree, and the nested repositories that are not in it."""
        own = self.top / self.ask("rev-parse", "--git-path", "index", what="find the index").text
        if own.exists():
            # Also its time: git trusts the recorded state of files that are older than the index, and of those alone.
            shutil.copy2(own, index)
        tree = self.git.run_here("rev-parse", "--verify", "-q", "HEAD^{tree}", folder=self.top).text
        self.ask("read-tree", *(("--reset", tree) if tree else ("--empty",)), what="read the index", index=index)
        self.ask("add", "--update", what="save the modified files", index=index)
        others = self._others(index) if untracked else []
        others += self._others(index, "--ignored") if ignored else []
        files = sorted({name for name in others if not name.endswith(b"/")})
        self.ask(
            *("update-index", "--add", "--remove", "-z", "--stdin"),
            given=b"".join(name + b"\0" for name in files),
            what="save the untracked files",
            index=index,
        )
        made = self.ask("write-tree", what="write a tree", index=index).text
        commit = self._committing().run_here("commit-tree", made, folder=self.top, given=message.encode())
        nested = sorted({os.fsdecode(name) for name in others if name.endswith(b"/")})
        return commit.require("write a commit").text, tuple(nested)

    def _others(self, index: Path, *options: str) -> list[bytes]:
        """Return the untracked files, and the nested repositories with a slash at the end."""
        done = self.ask(
            "ls-files", "-z", "--others", *options, "--exclude-standard", what="list the files", index=index
        )
        return [name for name in done.output.split(b"\0") if name]

    def _committing(self) -> Git:
        """Return git with the user's name; where it knows none, with ours."""
        known = self.git.run_here("var", "GIT_COMMITTER_IDENT", folder=self.top).status == 0
        return self.git if known else self.git.given(config=_NOBODY)
