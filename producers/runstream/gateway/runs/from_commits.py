"""Runs of commits: of a project's repository, and of a working tree that a user pushed (a direct run).

A project's commit comes from the gateway's mirror of its repository; variables and secrets come from the config store,
the nearest first. A direct run has the variables of its request alone.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from msgspec.structs import replace

from runstream.config.run_inputs import run_inputs
from runstream.config.sealed import open_text
from runstream.domain.config.permissions import Action, require
from runstream.domain.config.project import Project
from runstream.domain.config.user import User
from runstream.errors import BadRequestError, ForbiddenError, NotExistError, UnauthorizedError
from runstream.events.project import Repository
from runstream.events.run_config import Text
from runstream.gateway.context import GatewayContext
from runstream.gateway.requests import CommitRunBody, DirectRunBody
from runstream.gateway.runs.create import CreatedRun
from runstream.gateway.runs.idempotency import IdempotencyKey
from runstream.gateway.runs.prepare import RunSource, prepare_committed
from runstream.gateway.runs.repository_paths import require_allowed_repositories
from runstream.gateway.sender import Sender
from runstream.git.committed import CommittedConfig
from runstream.git.mirrors import GitSource, is_full_ref
from runstream.git.server import RepositoryName
from runstream.ids import is_uuid
from runstream.runconfig.refs import RefContext, git_host_and_port, ref_context, run_group
from runstream.runconfig.variables import read_inputs
from runstream.sealing import Keyring, to_seal

DEFAULT_PULL_REQUEST_REFS = (r"refs/pull/(\d+)/head", r"refs/merge-requests/(\d+)/head")
_MAX_EXPRESSIONS = 20


async def create_project_runs(
    context: GatewayContext, sender: Sender, project: Project, body: CommitRunBody, key: IdempotencyKey | None
) -> list[CreatedRun]:
    """Create the runs of a commit of a project's repository. Raises RunstreamError."""
    if not (body.branch or body.tag or body.ref) and project.settings.default_branch:
        body = replace(body, branch=project.settings.default_branch)
    wanted = _ref_context(body)
    if wanted.ref_type not in ("branch", "tag"):
        raise BadRequestError(
            f"{wanted.ref[:200]!r} is neither a branch nor a tag",
            code="invalidRef",
            hint="a run that is made by hand is of refs/heads/… or refs/tags/…",
        )
    source = _git_source(context.keyring, project)
    fetched = await context.mirrors.fetch(project.id, source, wanted.ref, body.commit_sha)
    state = context.config.state  # the project may have changed meanwhile
    if (project := state.projects.get(project.id, project)).id not in state.projects:
        raise NotExistError("the project was deleted", code="projectDoesNotExist")
    about = RefContext(
        ref_type=wanted.ref_type,
        ref=fetched.ref,
        branch=wanted.branch,
        tag=wanted.tag,
        commit_sha=fetched.commit,
        repository_url=source.url,
        ssh_host_key=source.known_hosts,
        skip_ssh_host_key_check=not source.check_host,
    )
    message = f"Tag {wanted.tag}" if wanted.tag else fetched.message
    run = RunSource(
        context=about,
        group=run_group(f"/project/{project.id}", about),
        message=message,
        annotations=_annotations(about, message, "project", project.id),
        inputs=partial(run_inputs, state, project, context.keyring),
        static=_credentials(source),
        cache_group=body.cache_group,
    )
    return await _create(context, sender, fetched.config, run, key)


async def create_direct_runs(
    context: GatewayContext, sender: Sender, body: DirectRunBody, key: IdempotencyKey | None
) -> list[CreatedRun]:
    """Create the runs of a working tree that the sender has pushed. Raises RunstreamError."""
    state = context.config.state
    require(state, sender.actor, Action.DIRECT_RUN, state.users.get(sender.actor.user_id))
    user = state.users[sender.actor.user_id]
    name = _repository_name(body, user)
    wanted = _ref_context(body, body.pull_request_ref_regexes or DEFAULT_PULL_REQUEST_REFS)
    for what, text in (("commit SHA", body.commit_sha), ("message", body.message)):
        if not text:
            raise BadRequestError(f"empty {what}", code="invalidCommit" if what == "commit SHA" else "invalidMessage")
    config = await context.repositories.config(name, body.commit_sha)
    about = RefContext(
        ref_type=wanted.ref_type,
        ref=wanted.ref,
        branch=wanted.branch,
        tag=wanted.tag,
        pull_request_id=wanted.pull_request_id,
        commit_sha=body.commit_sha,
        repository_url=f"{context.settings.public_url}/repos/{name}.git",
    )
    run = RunSource(
        context=about,
        group=run_group(f"/user/{user.id}", about),
        message=body.message,
        annotations=_annotations(about, body.message, "user", user.id),
        inputs=partial(read_inputs, body.variables or {}, (), ()),
        cache_group=f"{user.id}-{body.repo_uuid}",
        repository=str(name),
    )
    return await _create(context, sender, config, run, key)


async def _create(
    context: GatewayContext,
    sender: Sender,
    config: CommittedConfig | None,
    source: RunSource,
    key: IdempotencyKey | None,
) -> list[CreatedRun]:
    if config is None:
        raise NotExistError(
            f"commit {source.context.commit_sha} has no configuration",
            code="configDoesNotExist",
            hint="commit one, such as .runstream/config.yml: `runstream init` makes it",
        )
    git_host_and_port(source.context.repository_url)
    prepared = await prepare_committed(config, source, context.configs, await context.offers())
    require_allowed_repositories(context.allowed_sources, sender, (one.config for one in prepared.runs))
    return await context.creation.create_all(prepared.runs, key, author=sender.author)


def _ref_context(body: CommitRunBody | DirectRunBody, pull_requests: tuple[str, ...] | list[str] = ()) -> RefContext:
    if (named := sum(map(bool, (body.branch, body.tag, body.ref)))) != 1:
        missing = "or give the project a default branch" if isinstance(body, CommitRunBody) else "such as branch main"
        raise BadRequestError(
            "give exactly one of branch, tag and ref",
            code="invalidRef",
            hint="leave out the others" if named else missing,
        )
    found = ref_context(branch=body.branch, tag=body.tag, ref=body.ref, commit_sha=body.commit_sha)
    if not is_full_ref(found.ref):
        raise BadRequestError(
            f"{found.ref[:200]!r} is not a ref of git", code="invalidRef", hint="such as refs/heads/main, branch main"
        )
    if not pull_requests or found.branch or found.tag:
        return found
    number = _pull_request_id(found.ref, pull_requests)
    return RefContext(ref_type="pull_request", ref=found.ref, pull_request_id=number, commit_sha=body.commit_sha)


def _pull_request_id(ref: str, expressions: tuple[str, ...] | list[str]) -> str:
    """Return the first submatch of the first expression that matches. Raises BadRequestError."""
    if len(expressions) > _MAX_EXPRESSIONS:
        raise BadRequestError(
            f"more than {_MAX_EXPRESSIONS} expressions for pull requests", code="invalidPullRequestExpression"
        )
    import re2  # type: ignore[import-untyped]  # not at the top: few requests have expressions

    options = re2.Options()
    options.log_errors = False
    for expression in expressions:
        try:
            found = re2.compile(expression, options).search(ref)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace")
            raise BadRequestError(
                f"{expression[:200]!r} is not an expression for pull requests: {reason}",
                code="invalidPullRequestExpression",
                hint=r"RE2 syntax, such as refs/pull/(\d+)/head",
            ) from error
        if found is not None and found.groups() and found[1]:
            return str(found[1])
    raise BadRequestError(
        f"{ref[:200]!r} is neither a branch, nor a tag, nor a pull request",
        code="invalidRef",
        hint="the refs of pull requests match pull_request_ref_regexes",
    )


def _git_source(keyring: Keyring, project: Project) -> GitSource:
    """Return where a project's repository is, with its credentials opened. Raises RunstreamError."""
    repository = project.repository
    if repository.kind == "remotesource":
        raise ForbiddenError(
            "the repository of this project is at a remote source, which this service does not reach yet",
            code="linkedAccountDoesNotExist",
            hint="give the project the URL of its repository",
        )
    if repository.kind == "manual" or not repository.url:
        raise BadRequestError(
            "the project has no repository", code="invalidRepoPath", hint="give the project the URL of its repository"
        )
    return GitSource(
        repository.url,
        repository.username,
        _opened(keyring, project, repository, "password"),
        _opened(keyring, project, repository, "ssh_private_key"),
        repository.known_hosts,
        not repository.skip_ssh_host_key_check,
    )


def _opened(
    keyring: Keyring, project: Project, repository: Repository, name: Literal["password", "ssh_private_key"]
) -> str:
    return open_text(keyring, getattr(repository, name), "project", project.id, name)


def _credentials(source: GitSource) -> dict[str, Text]:
    """Return the variables with which tasks clone, marked to be sealed."""
    named = {"GIT_USERNAME": source.username, "GIT_PASSWORD": source.password, "SSHPRIVKEY": source.private_key}
    return {
        f"{prefix}{name}": to_seal(text) for prefix in ("AGOLA_", "RUNSTREAM_") for name, text in named.items() if text
    }


def _repository_name(body: DirectRunBody, user: User) -> RepositoryName:
    """Return the repository that a direct run of a user names. Raises BadRequestError, UnauthorizedError."""
    owner, separator, rest = body.repo_path.partition("/")
    if separator and "/" not in rest and owner != user.id:
        raise UnauthorizedError(
            f"the repository {body.repo_path[:100]!r} is not yours",
            code="loginRequired",
            hint="push to <your user id>/<uuid>",
        )
    try:
        name = RepositoryName.parse(body.repo_path)
    except NotExistError as error:
        raise BadRequestError(error.message, code="invalidRepoPath", hint=error.hint) from error
    if not is_uuid(body.repo_uuid):
        raise BadRequestError(
            f"repo_uuid {body.repo_uuid[:80]!r} is not a UUID", code="invalidRepoPath", hint="it names the clone"
        )
    return name


def _annotations(about: RefContext, message: str, run_type: Literal["project", "user"], owner: str) -> dict[str, str]:
    """Return the annotations of a run, as the model's clients know them."""
    found = {
        "run_type": run_type,
        "ref_type": about.ref_type,
        "run_creation_trigger": "manual",
        "webhook_event": "",
        "webhook_sender": "",
        "commit_sha": about.commit_sha,
        "ref": about.ref,
        "message": message,
        "commit_link": "",
        "compare_link": "",
        "projectid" if run_type == "project" else "userid": owner,
    }
    if about.branch:
        found |= {"branch": about.branch, "branch_link": ""}
    if about.tag:
        found |= {"tag": about.tag, "tag_link": ""}
    if about.pull_request_id:
        found |= {"pull_request_id": about.pull_request_id, "pull_request_link": ""}
    return found
