"""What the commands of users, organizations, projects, secrets and variables print: one service for all of them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from runstream.client import AuditEntry, Client
from runstream.client.pages import items
from runstream.client.session import Session
from tests.cli.config_service import config_service
from tests.cli.conftest import Command, Outcome
from tests.cli.terminal import on_terminal
from tests.gateway.world import TOKEN

As = Callable[[str], Command]
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with config_service() as at:
        yield at


@pytest.fixture
def admin(command: Command, url: str) -> Command:
    """Run a command with the administrator's token; it has to succeed."""
    return lambda *words: succeeded(command("--url", url, "--token", TOKEN, *words))


@pytest.fixture
def refused(command: Command, url: str) -> Command:
    """Run a command with the administrator's token; it has to fail."""

    def run(*words: str) -> Outcome:
        done = command("--url", url, "--token", TOKEN, *words)
        assert (done.code, done.out) == (1, ""), done
        return done

    return run


@pytest.fixture
def user(command: Command, admin: Command, url: str) -> As:
    """Create a user with a token; return a function that runs a command as this user, which has to succeed."""

    def made(name: str) -> Command:
        admin("user", "create", "-n", name)
        token = admin("user", "token", "create", "-n", name, "-t", "test").out.strip()
        return lambda *words: succeeded(command("--url", url, "--token", token, *words))

    return made


def succeeded(done: Outcome) -> Outcome:
    assert done.code == 0, done.err
    return done


def rows(done: Outcome) -> list[list[str]]:
    """Return the cells of a table, without its heading, and with ID for ids."""
    return [re.split(r"\s{2,}", ID.sub("ID", line)) for line in done.out.splitlines()[1:]]


def written(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_users_and_their_tokens(admin: Command, refused: Command) -> None:
    made = admin("user", "create", "--username", "ursula")
    assert ID.sub("ID", made.out) == "user ursula is created\nid  ID\n"
    token = admin("user", "token", "create", "-n", "ursula", "-t", "laptop", "--scope", "read", "--expires", "90d")
    assert token.out.startswith("rst_")
    assert token.err == ""
    [[name, scope, expires, *_]] = rows(admin("user", "token", "list", "-n", "ursula"))
    assert (name, scope) == ("laptop", "read")
    assert expires != "never"
    assert ["ursula", "ID", "user", "laptop"] in rows(admin("user", "list"))
    assert json.loads(admin("user", "get", "-n", "ursula", "-o", "json").out)["username"] == "ursula"
    wrong = refused("user", "token", "delete", "-n", "ursula", "-t", "laptob")
    assert "did you mean 'laptop'?" in wrong.err
    admin("user", "token", "delete", "-n", "ursula", "-t", "laptop")
    assert admin("user", "token", "list", "-n", "ursula").out == "user ursula has no tokens\n"
    admin("user", "update", "-n", "ursula", "--new-name", "ulla", "--admin")
    assert ["ulla", "ID", "administrator"] in rows(admin("user", "list"))
    assert "did you mean 'ulla'?" in refused("user", "delete", "-n", "ula", "--yes").err
    assert "--yes" in refused("user", "delete", "-n", "ulla").err
    admin("user", "delete", "-n", "ulla", "--yes")
    assert "ulla" not in admin("user", "list").out


def test_a_login_link_is_printed_for_a_browser(admin: Command, refused: Command, url: str) -> None:
    admin("user", "create", "-n", "linda")
    made = admin("user", "login-link", "-n", "linda")
    by_place, own = admin("user", "login-link", "linda"), admin("user", "login-link")
    assert all(one.out.startswith(f"{url}/ui/login#") for one in (made, by_place, own))
    assert "did you mean 'linda'?" in refused("user", "login-link", "lina").err


def test_a_link_to_the_page_is_that_of_the_sender_and_leads_to_a_run(
    admin: Command, refused: Command, url: str
) -> None:
    assert admin("page").out.startswith(f"{url}/ui/login#")
    assert json.loads(admin("page", "-o", "json").out)["url"].startswith(f"{url}/ui/login#")
    assert "0b9f7f6e" in refused("page", "0b9f7f6e").err


def test_organizations_members_and_their_roles(admin: Command, refused: Command, user: As) -> None:
    olga = user("olga")
    user("otto")
    olga("org", "create", "--name", "orbit", "--visibility", "private")
    assert ["orbit", "ID", "private"] in rows(admin("org", "list"))
    assert rows(olga("org", "get", "-n", "orbit")) == [["orbit", "ID", "private"]]
    olga("org", "member", "add", "-n", "orbit", "--username", "otto")
    assert rows(olga("org", "member", "list", "-n", "orbit")) == [["olga", "ID", "owner"], ["otto", "ID", "member"]]
    assert "did you mean 'orbit'?" in refused("org", "member", "list", "-n", "orbti").err
    olga("org", "member", "add", "-n", "orbit", "--username", "otto", "-r", "owner")
    olga("org", "member", "remove", "-n", "orbit", "--username", "otto")
    assert rows(olga("org", "member", "list", "-n", "orbit")) == [["olga", "ID", "owner"]]
    olga("org", "update", "-n", "orbit", "--visibility", "public")
    assert rows(olga("org", "get", "-n", "orbit")) == [["orbit", "ID", "public"]]
    olga("org", "delete", "-n", "orbit", "--yes")
    assert " org list` lists what there is" in refused("org", "get", "-n", "orbit").err


def test_projects_secrets_and_variables(user: As, refused: Command, tmp_path: Path) -> None:
    pia = user("pia")
    pia("org", "create", "-n", "paper")
    pia("projectgroup", "create", "-n", "web", "--parent", "org/paper")
    pia(
        *("project", "create", "-n", "site", "--parent", "org/paper/web", "--visibility", "private"),
        *("--repo-url", "https://git.example.com/paper/site.git"),
    )
    assert rows(pia("projectgroup", "list", "--parent", "org/paper")) == [["org/paper/web", "ID", "public"]]
    assert rows(pia("project", "list", "--parent", "org/paper/web")) == [
        ["org/paper/web/site", "ID", "private", "https://git.example.com/paper/site.git"]
    ]
    site = ("--project", "org/paper/web/site")
    deploy = written(tmp_path / "deploy.yml", "password: correct horse\n")
    made = pia("project", "secret", "create", *site, "-n", "deploy", "-f", deploy)
    assert "correct horse" not in made.out + made.err
    assert rows(pia("project", "secret", "list", *site)) == [["deploy", "ID", "org/paper/web/site"]]
    values = written(
        tmp_path / "values.yml",
        "- {secret_name: deploy, secret_var: password, when: {branch: main}}\n"
        "- {secret_name: other, secret_var: key, when: {tag: {include: '/^v/', exclude: v0}}}\n",
    )
    made = pia("project", "variable", "create", *site, "-n", "PASSWORD", "-f", values)
    assert "there is no secret other yet" in made.err
    assert rows(pia("project", "variable", "list", *site)) == [
        ["PASSWORD", "deploy.password", "branch main", "org/paper/web/site", "org/paper/web/site"],
        ["PASSWORD", "other.key", "tag /^v/, not v0", "missing", "org/paper/web/site"],
    ]
    pia("project", "update", "--ref", "org/paper/web/site", "-n", "www", "--parent", "org/paper")
    assert rows(pia("project", "get", "--ref", "org/paper/www"))[0][:2] == ["org/paper/www", "ID"]
    assert "did you mean 'org/paper/www'?" in refused("project", "get", "--ref", "org/paper/wwv").err
    wrong = refused("project", "secret", "delete", "--project", "org/paper/www", "-n", "deplyo")
    assert "did you mean 'deploy'?" in wrong.err
    pia("project", "secret", "delete", "--project", "org/paper/www", "-n", "deploy")
    pia("project", "variable", "delete", "--project", "org/paper/www", "-n", "PASSWORD")
    pia("project", "delete", "--ref", "org/paper/www", "--yes")
    assert pia("project", "list", "--parent", "org/paper").out == "there are no projects in org/paper\n"


def test_secrets_of_a_group_are_inherited(user: As, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gina = user("gina")
    gina("projectgroup", "create", "-n", "apps", "--parent", "user/gina")
    gina("project", "create", "-n", "one", "--parent", "user/gina/apps", "--repo-url", "https://git.example.com/o.git")
    stdin = io.TextIOWrapper(io.BytesIO(b"key: value\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    gina("projectgroup", "secret", "create", "--projectgroup", "user/gina", "-n", "shared", "-f", "-")
    listed = gina("project", "secret", "list", "--project", "user/gina/apps/one", "--tree")
    assert rows(listed) == [["shared", "ID", "user/gina"]]
    assert gina("project", "secret", "list", "--project", "user/gina/apps/one").out.endswith(" has no secrets\n")
    data = written(tmp_path / "data.yml", "key: other\n")
    gina(
        "projectgroup",
        "secret",
        "update",
        "--projectgroup",
        "user/gina",
        "-n",
        "shared",
        "--new-name",
        "all",
        "-f",
        data,
    )
    assert rows(gina("projectgroup", "secret", "list", "--projectgroup", "user/gina")) == [["all", "ID", "user/gina"]]
    values = written(tmp_path / "values.yml", "- {secret_name: all, secret_var: key}\n")
    group = ("--projectgroup", "user/gina")
    gina("projectgroup", "variable", "create", *group, "-n", "KEY", "-f", values)
    assert rows(gina("projectgroup", "variable", "list", *group)) == [
        ["KEY", "all.key", "always", "user/gina", "user/gina"]
    ]
    gina("projectgroup", "variable", "update", *group, "-n", "KEY", "--new-name", "KEY2", "-f", values)
    gina("projectgroup", "variable", "delete", *group, "-n", "KEY2")
    gina("projectgroup", "secret", "delete", *group, "-n", "all")
    gina("projectgroup", "update", "--ref", "user/gina/apps", "--visibility", "private")
    assert rows(gina("project", "list", "--parent", "user/gina/apps"))[0][2] == "private, as its group"
    gina("projectgroup", "delete", "--ref", "user/gina/apps", "--yes")
    assert gina("projectgroup", "list", "--parent", "user/gina").out == "there are no project groups in user/gina\n"


def test_remote_sources(admin: Command, refused: Command) -> None:
    admin(
        *("remotesource", "create", "-n", "forge", "--type", "gitea", "--auth-type", "password"),
        *("--api-url", "https://git.example.com", "--no-registration-enabled"),
    )
    admin(
        "remotesource",
        "create",
        "-n",
        "hub",
        "--type",
        "github",
        "--auth-type",
        "oauth2",
        "--clientid",
        "c",
        "--secret",
        "s",
    )
    assert rows(admin("remotesource", "list")) == [
        ["forge", "ID", "password", "disabled", "enabled"],
        ["hub", "ID", "oauth2", "enabled", "enabled"],
    ]
    assert (
        "needs the URL of its API"
        in refused(*("remotesource", "create", "-n", "lab", "--type", "gitlab", "--auth-type", "password")).err
    )
    admin("remotesource", "update", "--ref", "forge", "--new-name", "smithy", "--registration-enabled")
    assert rows(admin("remotesource", "get", "--ref", "smithy")) == [["smithy", "ID", "password", "enabled", "enabled"]]
    assert "did you mean 'smithy'?" in refused("remotesource", "delete", "--ref", "smity", "--yes").err
    admin("remotesource", "delete", "--ref", "smithy", "--yes")
    admin("remotesource", "delete", "--ref", "hub", "--yes")
    assert admin("remotesource", "list").out == "there are no remote sources\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("- {secret_name: s}\n", "secret_var is missing"),
        ("- {secret_name: s, secret_var: v, when: {branch: '/(/'}}\n", "not a regular expression"),
        ("- {secret_name: s, secret_var: v, wen: {}}\n", "did you mean 'when'"),
        ("secret_name: s\n", "expected a list"),
        ("[]\n", "at least one value"),
        ("- {a: [\n", ":"),
    ],
)
def test_every_mistake_in_a_file_of_values_is_named(
    refused: Command, tmp_path: Path, content: str, expected: str
) -> None:
    file = written(tmp_path / "values.yml", content)
    wrong = refused("project", "variable", "create", "--project", "org/x/y", "-n", "V", "-f", file)
    assert expected in wrong.err
    assert "values.yml" in wrong.err


def test_a_list_longer_than_a_page_is_read_to_its_end(admin: Command, url: str) -> None:
    names = [f"many-{number:02d}" for number in range(35)]

    async def create() -> None:
        async with Client(url, token=TOKEN) as client:
            for name in names:
                await client.users.create(name)

    asyncio.run(create())
    users = [each["username"] for each in json.loads(admin("user", "list", "-o", "json").out)]
    assert [name for name in users if name.startswith("many-")] == names


def test_nothing_to_change_and_half_a_repository_are_refused(refused: Command) -> None:
    for words in (
        ("user", "update", "-n", "x"),
        ("project", "update", "--ref", "org/x/y"),
        ("projectgroup", "update", "--ref", "org/x/y"),
        ("remotesource", "update", "--ref", "x"),
    ):
        assert "nothing to change" in refused(*words).err
    create = ("project", "create", "-n", "p", "--parent", "user/x")
    for more in (
        (),
        ("--repo-path", "a/b"),
        ("--remote-source", "s", "--repo-url", "https://x"),
        ("--repo-username", "u"),
    ):
        assert "hint" in refused(*create, *more).err or "pass --" in refused(*create, *more).err


def test_members_are_invited_where_the_service_says_so(command: Command) -> None:
    with config_service(member_adding="invitation") as at:
        own: dict[str, Command] = {}
        for name in ("iris", "ivan"):
            succeeded(command("--url", at, "--token", TOKEN, "user", "create", "-n", name))
            create = ("user", "token", "create", "-n", name, "-t", "test")
            token = succeeded(command("--url", at, "--token", TOKEN, *create)).out.strip()
            own[name] = partial(command, "--url", at, "--token", token)
        succeeded(own["iris"]("org", "create", "-n", "inner"))
        assert own["iris"]("org", "member", "add", "-n", "inner", "--username", "ivan").code == 1
        for answer in ("reject", "accept"):
            succeeded(own["iris"]("org", "invitation", "create", "-n", "inner", "--username", "ivan"))
            assert rows(own["iris"]("org", "invitation", "list", "--orgname", "inner")) == [["ID", "inner"]]
            assert rows(own["ivan"]("org", "invitation", "list")) == [["inner", "ID"]]
            assert "did you mean 'inner'?" in own["ivan"]("org", "invitation", answer, "-n", "iner").err
            succeeded(own["ivan"]("org", "invitation", answer, "-n", "inner"))
        assert rows(own["ivan"]("org", "member", "list", "-n", "inner"))[1] == ["ivan", "ID", "member"]


async def test_a_terminal_shows_ids_whole_and_asks_before_it_deletes(url: str) -> None:
    async with Client(url, token=TOKEN) as client:
        await client.users.create("terry")
        await client.users.create_token("terry", "long name " * 9)
    environment = os.environ | {"TERM": "xterm", "RUNSTREAM_URL": url, "RUNSTREAM_TOKEN": TOKEN}
    async with on_terminal(environment, "user", "list") as terminal:
        assert await terminal.ended() == 0
        assert max(map(len, terminal.text.splitlines())) <= 80
        assert re.search(rf"terry +{ID.pattern} +user", terminal.text)
    async with on_terminal(environment, "user", "token", "list", "-n", "terry") as terminal:
        assert await terminal.ended() == 0
        assert max(map(len, terminal.text.splitlines())) <= 80
    async with on_terminal(environment, "user", "token", "create", "-n", "terry", "-t", "more") as terminal:
        await terminal.shows("keep it now: it is not shown again")
        assert await terminal.ended() == 0
    async with on_terminal(environment, "user", "delete", "-n", "terry") as terminal:
        await terminal.shows("delete user terry with its projects, secrets and tokens? This cannot be undone. [y/N] ")
        terminal.type("n\n")
        assert await terminal.ended() == 1
    async with Client(url, token=TOKEN) as client:
        assert (await client.users.get("terry")).username == "terry"


def test_the_audit_shows_who_changed_what_to_its_owners(
    admin: Command, user: As, refused: Command, command: Command, url: str, tmp_path: Path
) -> None:
    anna, bert = user("anna"), user("bert")
    anna("org", "create", "-n", "atelier", "--visibility", "private")
    anna("org", "member", "add", "-n", "atelier", "--username", "bert")
    anna("project", "create", "-n", "art", "--parent", "org/atelier", "--repo-url", "https://git.example.com/art.git")
    data = written(tmp_path / "data.yml", "key: audited value\n")
    anna("project", "secret", "create", "--project", "org/atelier/art", "-n", "paint", "-f", data)
    admin("project", "secret", "delete", "--project", "org/atelier/art", "-n", "paint")
    anna("project", "update", "--ref", "org/atelier/art", "-n", "arts", "--visibility", "private")
    bert("projectgroup", "create", "-n", "own", "--parent", "user/bert")

    shown = [row[1:] for row in rows(anna("audit", "--project", "org/atelier/arts"))]
    assert shown == [
        ["anna", "project created (name art, visibility public)", "org/atelier/arts", "ID"],
        ["anna", "secret created (name paint)", "secret paint of org/atelier/arts", "ID"],
        ["admin", "secret deleted", "secret paint of org/atelier/arts", "ID"],
        [
            "anna",
            "project moved (name arts); project visibility changed (visibility private)",
            "org/atelier/arts",
            "ID",
        ],
    ]
    assert "organization member set (user bert, role member)" in anna("audit").out
    everything = anna("audit", "-o", "json").out
    assert "audited value" not in everything
    assert {entry["path"].split("/")[1] for entry in json.loads(everything)} == {"anna", "atelier"}
    assert {row[3] for row in rows(bert("audit"))} == {"user/bert", "user/bert/own"}
    assert {row[1] for row in rows(admin("audit", "--user", "bert", "--since", "1h"))} == {"bert"}
    assert admin("audit", "--since", "2100-01-01").out == "no changes\n"
    admin("user", "create", "-n", "carl")
    assert admin("audit", "--user", "carl").out == "no changes\n"
    admin("user", "delete", "-n", "carl", "--yes")
    assert admin("audit", "--user", "carl").out == "no changes\n"
    nobody = refused("audit", "--user", "bertt").err
    assert "user 'bertt' does not exist" in nobody
    assert "bert" in nobody.partition("hint:")[2]
    assert "neither a duration nor a time" in refused("audit", "--since", "yesterday").err
    token = admin("user", "token", "create", "-n", "bert", "-t", "more").out.strip()
    hidden = command("--url", url, "--token", token, "audit", "--project", "org/atelier/arts")
    assert "you may not read who changed something" in hidden.err
    gone = command("--url", url, "--token", token, "audit", "--user", "carl")
    assert "user 'carl' does not exist" in gone.err


async def test_the_audit_goes_on_over_pages(url: str) -> None:
    async with Client(url, token=TOKEN) as client:
        first = await client.users.create("ringo")
        for admin in (True, False, True, False):
            await client.users.update(first.id, admin=admin)
        whole = [entry async for entry in client.audit.read()]
    session = Session(url, TOKEN, detailed_errors=False, transport=None)
    paged = [entry async for entry in items(session, "/audit", list[AuditEntry], {"limit": "2"})]
    await session.close()
    assert paged == whole
    assert sum(entry.id == first.id for entry in whole) == 5
