"""Tokens of runs: each reads one repository of a user, until its run has ended.

    rsr_<run id>_<id of the key>_<keyed digest of run and repository>

Nothing is stored for a token: the digest needs the deployment's key, and the log says whether the run has ended. The
token is sealed in the run config, as every credential there, and only the clone step of a task gets it.
"""

from __future__ import annotations

import hmac
import re
import uuid
from collections.abc import Mapping
from urllib.parse import urlsplit

from runstream.errors import InternalError, NotExistError, UnauthorizedError
from runstream.events.run_config import RunConfig, Sealed, Text
from runstream.git.server import RepositoryName
from runstream.log.port import Log
from runstream.log.runs import find_run, locate_run
from runstream.sealing import Keyring, to_seal
from runstream.subjects import group_root

PREFIX = "rsr_"
USERNAME = "runstream"
_TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{32}})_([0-9a-f]+)_([0-9a-f]{{64}})")
_OURS = re.compile(r"/repos/([^/]+/[^/]+)\.git")


def clone_token(keyring: Keyring, run_id: str, repository: str) -> str:
    """Return the token of a run for a repository. Raises InternalError without a key."""
    if not keyring.ids:
        raise InternalError(
            "this process has no key to make a run's token with",
            code="noSecretsKey",
            hint="give it a file of keys with --secrets-key-file",
        )
    key, digest = keyring.digest(_content(run_id, repository))
    return f"{PREFIX}{uuid.UUID(run_id).hex}_{key}_{digest}"


def clone_credentials(keyring: Keyring, run_id: str, repository: str) -> dict[str, Text]:
    """Return the variables with which a run's tasks clone a repository, the token marked to be sealed."""
    token = clone_token(keyring, run_id, repository)
    named: dict[str, Text] = {"GIT_USERNAME": USERNAME, "GIT_PASSWORD": to_seal(token)}
    return {f"{prefix}{name}": text for prefix in ("AGOLA_", "RUNSTREAM_") for name, text in named.items()}


def cloned_repository(group: str, config: RunConfig) -> str:
    """Return the user's repository that a run clones with a token; empty for any other run."""
    static: Mapping[str, Text] = config.static_environment
    url = static.get("RUNSTREAM_REPOSITORY_URL", "")
    if not isinstance(url, str) or not isinstance(static.get("RUNSTREAM_GIT_PASSWORD"), Sealed):
        return ""
    found = _OURS.fullmatch(urlsplit(url).path)
    try:
        name = RepositoryName.parse(found[1]) if found else None
    except NotExistError:
        return ""
    return str(name) if name is not None and group_root(group) == f"/user/{name.user_id}" else ""


def is_clone_token(text: str) -> bool:
    """Return whether a text has the form of a run's token."""
    return text.startswith(PREFIX)


async def require_clone_token(log: Log, keyring: Keyring, token: str, repository: str) -> None:
    """Raise UnauthorizedError unless the token is of an unfinished run, and for this repository."""
    found = _TOKEN.fullmatch(token)
    if found is None or found[2] not in keyring.ids:
        raise _invalid("the token is not valid")
    run_id = str(uuid.UUID(found[1]))
    _, digest = keyring.digest(_content(run_id, repository), found[2])
    if not hmac.compare_digest(digest, found[3]):
        raise _invalid("the token is not one for this repository")
    try:
        run = (await find_run(log, await locate_run(log, run_id))).run
    except NotExistError as error:
        raise _invalid("the run of the token does not exist") from error
    if run.finished:
        raise _invalid("the run of the token has ended")


def _content(run_id: str, repository: str) -> bytes:
    return f"clone {run_id} {repository}".encode()


def _invalid(message: str) -> UnauthorizedError:
    return UnauthorizedError(message, code="invalidToken", hint="the tasks of a run get a token that ends with it")
