"""Every command and option that the model's command line has is one of ours, except where a reason stands here."""

from __future__ import annotations

from itertools import chain, product

import pytest

from runstream.service.main import app

ON_THE_PAGE = "accounts at git hosts are linked and unlinked on the page, or by the API; no command does so yet"
NO_PROJECTS_OF_HOSTS = "it makes the deploy key and webhook of a project at its git host, and projects have no host yet"
VALUES = {
    "create": ("--name", "-n", "--file", "-f"),
    "update": ("--name", "-n", "--file", "-f", "--new-name"),
    "delete": ("--name", "-n"),
    "list": (),
}
OWNED_LOG = ("--project", "--username", "--runnumber", "--taskname", "--taskid", "--step", "--setup")
SOURCE = (
    *("--api-url", "--skip-verify", "--clientid", "--secret", "--ssh-host-key", "--skip-ssh-host-key-check", "-s"),
    *("--registration-enabled", "--login-enabled"),
)
MODEL: dict[str, tuple[str, ...]] = {
    "serve": ("--config", "--components"),
    "migrate": ("--config", "--service"),
    "migrateexport": ("--service", "--source-version", "--in", "--out"),
    "maintenance enable": ("--service",),
    "maintenance disable": ("--service",),
    "export": ("--service", "--out"),
    "import": ("--service", "--in"),
    "completion": (),
    "version": (),
    "directrun start": (
        *("--untracked", "--ignored", "--branch", "--tag", "--ref", "--pull-request-ref-regexes", "--var"),
        "--var-file",
    ),
    "run create": ("--project", "--branch", "--tag", "--ref", "--commit-sha", "--cache-group"),
    "run list": ("--project", "--username", "--phase", "-s", "--limit", "--start"),
    "log get": (*OWNED_LOG, "--follow", "--output"),
    "log delete": OWNED_LOG,
    "project create": (
        *("--name", "-n", "--parent", "--repo-path", "--remote-source", "--skip-ssh-host-key-check", "-s"),
        *("--visibility", "--pass-vars-to-forked-pr"),
    ),
    "project update": ("--ref", "--name", "-n", "--parent", "--visibility", "--pass-vars-to-forked-pr"),
    "project delete": ("--ref",),
    "project list": ("--parent",),
    "project reconfig": ("--name", "-n"),
    "projectgroup create": ("--name", "-n", "--parent", "--visibility"),
    "projectgroup update": ("--ref", "--name", "-n", "--parent", "--visibility"),
    "projectgroup delete": ("--ref",),
    **{
        f"{place} {kind} {verb}": (f"--{place}", *options)
        for place, kind, (verb, options) in product(("project", "projectgroup"), ("secret", "variable"), VALUES.items())
    },
    "org create": ("--name", "-n", "--visibility"),
    "org delete": ("--name", "-n"),
    "org member add": ("--orgname", "-n", "--username", "--role", "-r"),
    "org member remove": ("--orgname", "-n", "--username"),
    "org member list": ("--orgname", "-n"),
    "remotesource create": ("--name", "-n", "--type", "--auth-type", *SOURCE),
    "remotesource update": ("--ref", "--new-name", *SOURCE),
    "remotesource list": (),
    "user create": ("--username", "-n"),
    "user delete": ("--username", "-n"),
    "user list": (),
    "user linkedaccount create": ("--username", "-n", "--remote-source", "-r", "--remote-name", "--remote-password"),
    "user linkedaccount delete": ("--username", "-n", "--laid"),
    "user token create": ("--username", "-n", "--tokenname", "-t"),
    "user token delete": ("--username", "-n", "--tokenname", "-t"),
}
ABSENT = {
    "user linkedaccount create": ON_THE_PAGE,
    "user linkedaccount delete": ON_THE_PAGE,
    "project reconfig": NO_PROJECTS_OF_HOSTS,
    "migrateexport": "`import` itself reads the exports of every earlier version: no file has to be converted first",
}
"""Commands that are not there, with the reason."""


def options_of(words: str) -> set[str] | None:
    """Return the options of one of our commands; None if there is none of these words."""
    command = app
    for word in words.split():
        if word not in command:
            return None
        command = command[word]
    if command.default_command is None:
        return None
    return {*chain.from_iterable(one.names for one in command.assemble_argument_collection())}


@pytest.mark.parametrize("words", MODEL)
def test_a_command_of_the_model_has_its_options_here(words: str) -> None:
    ours = options_of(words)
    assert (ours is None) is (words in ABSENT), words
    assert ours is None or {*MODEL[words]} <= ours, {*MODEL[words]} - ours
