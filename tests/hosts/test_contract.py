"""What every git host does for Runstream, over its fake: the calls of the port, faults, webhooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote_plus, urlsplit

import pytest
from joserfc.jwk import RSAKey

from runstream.backoff import Backoff
from runstream.errors import BadRequestError, RunstreamError
from runstream.hosts.client import HostClock, HostLimits
from runstream.hosts.errors import HostError
from runstream.hosts.gitea import GiteaHost
from runstream.hosts.github import GitHubApp, GitHubHost
from runstream.hosts.gitlab import GitLabHost
from runstream.hosts.port import CommitStatus, GitHost, HostSettings, RefKind, StatusState
from runstream.hosts.webhooks import (
    HOST_REFS,
    PullRequestPushed,
    ReceivedWebhook,
    RefDeleted,
    RefPushed,
)
from tests.hosts.fake import FakeAnswer, FakeHost, FakeRepo, FakeRequest, answers, half, pkce, serving
from tests.hosts.gitea import FakeGitea
from tests.hosts.github import FakeGitHub
from tests.hosts.gitlab import FakeGitLab
from tests.hosts.reading import read_webhook
from tests.objects.certificates import issued

TOKEN = "token-of-ada-0123456789"
HOSTS: dict[str, tuple[type[FakeHost], Callable[[HostSettings, HostLimits, HostClock], GitHost]]] = {
    "gitea": (FakeGitea, GiteaHost),
    "github": (FakeGitHub, GitHubHost),
    "gitlab": (FakeGitLab, GitLabHost),
}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBase64 runstream"
HOOK = "http://127.0.0.1:9/webhooks?projectid=1"


@dataclass
class Time:
    """The time of a client: waiting moves it."""

    at: float = 1_800_000_000.0
    waits: list[float] = field(default_factory=list)

    async def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += seconds

    def clock(self) -> HostClock:
        return HostClock(lambda: self.at, self.pause)


@dataclass
class Place:
    fake: FakeHost
    repo: FakeRepo
    commit: str
    time: Time = field(default_factory=Time)

    @asynccontextmanager
    async def host(
        self, settings: HostSettings | None = None, limits: HostLimits | None = None
    ) -> AsyncIterator[GitHost]:
        limits = limits or HostLimits(retries=Backoff(0.5, attempts=3))
        host: GitHost = HOSTS[self.fake.type][1](settings or self.fake.settings, limits, self.time.clock())
        try:
            yield host
        finally:
            await host.close()

    def last(self) -> ReceivedWebhook:
        sent = self.fake.delivered[-1]
        return read_webhook(self.fake.type, "hook secret", sent.headers, sent.body, now=self.time.at)


@pytest.fixture(scope="module", params=list(HOSTS))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHost]:
    folder: Path = tmp_path_factory.mktemp("host")
    with serving(HOSTS[request.param][0](folder)) as fake:
        fake.add_user("ada", TOKEN)
        fake.add_user("bob", "token-of-bob-0123456789")
        yield fake
    assert fake.violations == []


@pytest.fixture(scope="module")
def filled(served: FakeHost) -> tuple[FakeRepo, str]:
    repo = served.add_repo("ada/web", {"ada"})
    return repo, served.push(repo, "refs/heads/main", {".runstream/config.yml": "runs: []\n", "a b/ü.txt": "ü"})


@pytest.fixture
def place(served: FakeHost, filled: tuple[FakeRepo, str]) -> Place:
    repo, commit = filled
    served.faults.clear()
    served.requests.clear()
    served.delivered.clear()
    repo.keys.clear()
    repo.hooks.clear()
    return Place(served, repo, commit)


async def test_a_repository_is_found_by_path_and_id_and_followed_when_it_moves(place: Place) -> None:
    moving = place.fake.add_repo("ada/old", {"ada"})
    async with place.host() as host:
        found = await host.repository(TOKEN, "ada/old")
        assert (found.id, found.path, found.default_branch) == (str(moving.id), "ada/old", "main")
        assert found.administered
        place.fake.move(moving, "ada/new")
        assert (await host.repository_by_id(TOKEN, found.id)).path == "ada/new"
        assert (await host.repository(TOKEN, "ada/old")).path == "ada/new"
        with pytest.raises(HostError, match="404") as missing:
            await host.repository(TOKEN, "ada/never")
    assert missing.value.code == "hostObjectDoesNotExist"
    place.fake.repos.pop(moving.id)


async def test_the_repositories_that_a_user_administers_come_from_all_pages(place: Place) -> None:
    more = [place.fake.add_repo(f"ada/r{at}", {"ada"} if at % 2 else {"bob"}) for at in range(60)]
    async with place.host() as host:
        found = await host.administered_repositories(TOKEN)
    assert {one.path for one in found} == {"ada/web", *(f"ada/r{at}" for at in range(1, 60, 2))}
    for repo in more:
        place.fake.repos.pop(repo.id)


async def test_a_file_is_read_at_a_commit(place: Place) -> None:
    async with place.host() as host:
        assert await host.file(TOKEN, "ada/web", place.commit, ".runstream/config.yml", limit=100) == b"runs: []\n"
        assert await host.file(TOKEN, "ada/web", place.commit, "a b/ü.txt", limit=100) == "ü".encode()
        assert await host.file(TOKEN, "ada/web", place.commit, "none.yml", limit=100) is None
        with pytest.raises(HostError) as large:
            await host.file(TOKEN, "ada/web", place.commit, ".runstream/config.yml", limit=5)
        with pytest.raises(BadRequestError):
            await host.file(TOKEN, "ada/web", place.commit, "../../user", limit=5)
    assert large.value.code == "hostAnswerTooLarge"


async def test_refs_lead_to_commits(place: Place) -> None:
    branch = place.fake.push(place.repo, "refs/heads/feature/x", {"x": "1"})
    tagged = place.fake.push(place.repo, "refs/tags/v1.0", {"x": "2"})
    pull = place.fake.open_pull(place.repo, "feature/x", "A change")
    async with place.host() as host:
        for ref, commit in (
            (host.refs.branch("main"), place.commit),
            (host.refs.branch("feature/x"), branch),
            (host.refs.tag("v1.0"), tagged),
            (host.refs.pull_request(pull.number), branch),
        ):
            assert await host.resolve(TOKEN, "ada/web", ref) == commit
            assert host.refs.parse(ref.ref) == ref
            assert host.ref_link(await host.repository(TOKEN, "ada/web"), ref).startswith(place.fake.url)
        with pytest.raises(HostError) as missing:
            await host.resolve(TOKEN, "ada/web", host.refs.branch("none"))
        with pytest.raises(HostError):
            await host.resolve(TOKEN, "ada/web", host.refs.pull_request(1000))
        for wrong in ("main", "refs/heads/", "refs/notes/x", f"{place.fake.pull_refs}x/head"):
            with pytest.raises(BadRequestError):
                host.refs.parse(wrong)
    assert missing.value.code == "hostObjectDoesNotExist"


async def test_a_short_commit_is_expanded(place: Place) -> None:
    async with place.host() as host:
        found = await host.commit(TOKEN, "ada/web", place.commit[:10])
        repository = await host.repository(TOKEN, "ada/web")
        assert (found.sha, found.message.strip()) == (place.commit, "a change")
        assert host.commit_link(repository, place.commit) == found.page_url


async def test_a_deploy_key_is_added_replaced_and_deleted(place: Place) -> None:
    async with place.host() as host:
        await host.put_deploy_key(TOKEN, "ada/web", "deploy", KEY)
        await host.put_deploy_key(TOKEN, "ada/web", "deploy", KEY)
        (first,) = place.repo.keys
        other = KEY.replace("Base64", "Other")
        await host.put_deploy_key(TOKEN, "ada/web", "deploy", other)
        (second,) = place.repo.keys
        assert first["key"] == KEY
        assert second["key"] == other
        await host.delete_deploy_key(TOKEN, "ada/web", "deploy")
        await host.delete_deploy_key(TOKEN, "ada/web", "deploy")
        assert place.repo.keys == []


async def test_only_an_administrator_adds_a_deploy_key(place: Place) -> None:
    async with place.host() as host:
        with pytest.raises(HostError) as refused:
            await host.put_deploy_key("token-of-bob-0123456789", "ada/web", "deploy", KEY)
    assert refused.value.code == "hostForbidden"


async def test_a_webhook_is_added_updated_and_deleted(place: Place) -> None:
    async with place.host() as host:
        await host.put_webhook(TOKEN, "ada/web", HOOK, "old secret")
        await host.put_webhook(TOKEN, "ada/web", f"{HOOK}0", "another project's")
        place.repo.hooks.append({**place.repo.hooks[0], "id": place.fake.next_id()})
        await host.put_webhook(TOKEN, "ada/web", HOOK, "hook secret")
        assert len(place.repo.hooks) == 2
        place.fake.push(place.repo, "refs/heads/signed", {"signed": "1"})
        assert sorted(one.url for one in place.fake.delivered) == [HOOK, f"{HOOK}0"]
        sent = next(one for one in place.fake.delivered if one.url == HOOK)
        read_webhook(place.fake.type, "hook secret", sent.headers, sent.body, now=place.time.at)
        await host.delete_webhook(TOKEN, "ada/web", HOOK)
        await host.delete_webhook(TOKEN, "ada/web", HOOK)
        assert len(place.repo.hooks) == 1


async def test_statuses_of_a_commit(place: Place) -> None:
    async with place.host() as host:
        for state in StatusState:
            status = CommitStatus("ci/web/test", state, f"The run is {state}", "http://127.0.0.1:8000/run")
            await host.put_status(TOKEN, "ada/web", place.commit, status)
    told = place.repo.statuses[-len(StatusState) :]
    assert [one["description"] for one in told] == [f"The run is {state}" for state in StatusState]
    assert {one["target_url"] for one in told} == {"http://127.0.0.1:8000/run"}


async def test_the_user_of_a_token(place: Place) -> None:
    async with place.host() as host:
        found = await host.user(TOKEN)
        with pytest.raises(HostError) as refused:
            await host.user("a token that was revoked")
    assert (found.id, found.name) == (str(place.fake.users["ada"].id), "ada")
    assert refused.value.code == "hostCredentialsRefused"
    assert "a token that was revoked" not in str(refused.value)


async def test_a_password_makes_a_token_where_the_host_takes_one(place: Place) -> None:
    async with place.host() as host:
        if place.fake.type != "gitea":
            with pytest.raises(BadRequestError):
                await host.login("ada", "password of ada", "runstream-1")
            with pytest.raises(BadRequestError):
                await host.delete_login("ada", "password of ada", "runstream-1")
            return
        login = await host.login("ada", "password of ada", "runstream-1")
        assert (await host.user(login.token)) == login.user
        with pytest.raises(HostError) as refused:
            await host.login("ada", "wrong", "runstream-2")
        with pytest.raises(HostError):
            await host.delete_login("ada", "wrong", "runstream-1")
        for _ in range(2):
            await host.delete_login("ada", "password of ada", "runstream-1")
        with pytest.raises(HostError) as deleted:
            await host.user(login.token)
    assert deleted.value.code == "hostCredentialsRefused"
    assert refused.value.code == "hostCredentialsRefused"


async def test_oauth2_gives_tokens_for_a_code_once_and_refreshes_them(place: Place) -> None:
    verifier, back = "v" * 43, "http://127.0.0.1:8000/oauth2/callback"
    async with place.host() as host:
        url = urlsplit(host.authorization_url("state", back, pkce(verifier)))
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        assert (query["state"], query["redirect_uri"], query["client_id"]) == ("state", back, "client")
        assert query["code_challenge_method"] == "S256"
        code = place.fake.authorize("ada", query["code_challenge"])
        tokens = await host.exchange_code(code, back, verifier)
        assert (await host.user(tokens.access_token)).name == "ada"
        assert tokens.expires_at is not None
        assert tokens.expires_at.timestamp() == place.time.at + 7200
        new = await host.refresh(tokens.refresh_token)
        assert new.access_token != tokens.access_token
        for again in (
            host.exchange_code(code, back, verifier),
            host.exchange_code(place.fake.authorize("ada", pkce("another")), back, verifier),
            host.refresh(tokens.refresh_token),
        ):
            with pytest.raises(HostError) as refused:
                await again
            assert refused.value.code == "hostCredentialsRefused"
    assert tokens.access_token not in repr(tokens)


async def test_an_unchanged_answer_is_not_sent_again(place: Place) -> None:
    async with place.host() as host:
        first = await host.repository(TOKEN, "ada/web")
        assert await host.repository(TOKEN, "ada/web") == first
    before, after = place.fake.requests
    assert "if-none-match" not in before.headers
    assert "if-none-match" in after.headers


async def test_a_passing_failure_is_retried(place: Place) -> None:
    for fault in (answers(500), answers(502), half):
        place.fake.faults[:] = [fault, fault]
        async with place.host() as host:
            assert (await host.user(TOKEN)).name == "ada"
    assert place.time.waits == [0.5] * 6


async def test_a_lasting_failure_is_an_error(place: Place) -> None:
    for fault, code in ((answers(500), "hostFailed"), (half, "hostUnreachable")):
        place.fake.faults[:] = [fault] * 3
        async with place.host() as host:
            with pytest.raises(HostError) as failed:
                await host.user(TOKEN)
        assert failed.value.code == code
        assert failed.value.passing


async def test_what_may_have_been_done_is_not_sent_twice(place: Place) -> None:
    place.fake.faults[:] = [answers(502)]
    async with place.host() as host:
        with pytest.raises(HostError):
            await host.put_status(TOKEN, "ada/web", place.commit, CommitStatus("c", StatusState.ERROR, "d", HOOK))
    assert len(place.fake.requests) == 1


async def test_a_short_limit_is_sat_out_and_a_long_one_told(place: Place) -> None:
    place.fake.faults[:] = [answers(429, Retry_After="7")]
    async with place.host() as host:
        assert (await host.user(TOKEN)).name == "ada"
        assert place.time.waits == [7.0]
        place.fake.faults[:] = [answers(429, Retry_After="3600")]
        for _ in range(3):
            with pytest.raises(HostError) as limited:
                await host.user(TOKEN)
            assert (limited.value.code, limited.value.retry_after) == ("hostLimited", 3600.0)
        assert len(place.fake.requests) == 3  # none while the limit lasts
        place.time.at += 3600
        assert (await host.user(TOKEN)).name == "ada"


@pytest.mark.parametrize("name", ["X-RateLimit", "RateLimit"])
async def test_the_last_request_before_a_limit_is_noticed(place: Place, name: str) -> None:
    def last(request: FakeRequest) -> FakeAnswer:
        answer = place.fake.answer(request)
        limits = {f"{name}-Remaining": "0", f"{name}-Reset": str(int(place.time.at) + 900)}
        return replace(answer, headers={**answer.headers, **limits})

    place.fake.faults[:] = [last]
    async with place.host() as host:
        assert (await host.user(TOKEN)).name == "ada"
        with pytest.raises(HostError) as limited:
            await host.user(TOKEN)
        assert limited.value.retry_after == 900.0
        assert (await host.user("token-of-bob-0123456789")).name == "bob"
    assert len(place.fake.requests) == 2


async def test_a_refusal_with_403_at_the_limit_is_no_missing_right(place: Place) -> None:
    place.fake.faults[:] = [answers(403, X_RateLimit_Remaining="0", X_RateLimit_Reset=str(int(place.time.at) + 60))]
    async with place.host() as host:
        with pytest.raises(HostError) as limited:
            await host.user(TOKEN)
    assert limited.value.code == "hostLimited"


async def test_no_token_goes_to_another_server(place: Place) -> None:
    with serving(HOSTS[place.fake.type][0](place.fake.folder)) as other:
        for status in (301, 302, 307):
            place.fake.faults[:] = [answers(status, Location=f"{other.url}/user")]
            async with place.host() as host:
                with pytest.raises(HostError) as redirected:
                    await host.user(TOKEN)
            assert redirected.value.code == "hostRedirected"
        assert other.requests == []


async def test_a_host_that_does_not_answer_is_given_up(place: Place) -> None:
    def slow(request: FakeRequest) -> FakeAnswer:
        place.fake.released.wait()
        return place.fake.answer(request)

    place.fake.faults[:] = [slow]
    async with place.host(limits=HostLimits(seconds=0.2, retries=Backoff(0.5, attempts=1))) as host:
        with pytest.raises(HostError) as late:
            await host.user(TOKEN)
    place.fake.released.set()
    assert late.value.code == "hostTimeout"


async def test_a_host_that_is_down_is_unreachable_until_it_is_up(place: Place) -> None:
    async with place.host() as host:
        place.fake.stop()
        try:
            with pytest.raises(HostError) as down:
                await host.user(TOKEN)
        finally:
            place.fake.start()
        assert (down.value.code, down.value.sent) == ("hostUnreachable", False)
        assert (await host.user(TOKEN)).name == "ada"


async def test_certificates_are_checked_unless_the_source_says_otherwise(tmp_path: Path) -> None:
    fake = FakeGitea(tmp_path)
    fake.add_user("ada", TOKEN)
    fake.tls, authority = issued(tmp_path)
    with serving(fake):
        own = replace(fake.settings, ca_certificates=authority.read_text())
        for settings in (own, replace(fake.settings, verify_tls=False)):
            host = GiteaHost(settings)
            assert (await host.user(TOKEN)).name == "ada"
            await host.close()
        host = GiteaHost(fake.settings)
        with pytest.raises(HostError) as invalid:
            await host.user(TOKEN)
        await host.close()
        assert invalid.value.code == "hostCertificateInvalid"
        assert len(fake.requests) == 2
        with pytest.raises(BadRequestError) as unread:
            GiteaHost(replace(fake.settings, ca_certificates="no certificate"))
        assert unread.value.code == "invalidCertificate"


async def test_an_answer_of_another_program_is_an_error(place: Place) -> None:
    for body in (b"<html>", b"[" * 100_000, {"id": "no number"}):
        place.fake.faults[:] = [lambda request, body=body: FakeAnswer(200, body)]  # type: ignore[misc]
        async with place.host() as host:
            with pytest.raises(HostError) as invalid:
                await host.user(TOKEN)
        assert invalid.value.code == "hostAnswerInvalid"


async def test_a_message_of_a_host_shows_no_token(place: Place) -> None:
    place.fake.faults[:] = [lambda request: FakeAnswer(422, {"message": f"bad \x1b[31m token {TOKEN}"})]
    async with place.host() as host:
        with pytest.raises(HostError) as refused:
            await host.user(TOKEN)
    assert refused.value.message.endswith("bad  [31m token ***")


@pytest.mark.parametrize("status", [200, 422])
async def test_a_message_of_a_host_shows_nothing_secret_that_was_sent(place: Place, status: int) -> None:
    def echo(request: FakeRequest) -> FakeAnswer:
        if request.method == "GET":
            return FakeAnswer(200, [])
        told = "x" * 90 + unquote_plus(request.body.decode())
        return FakeAnswer(status, {"message": told, "error_description": told})

    sent = ("the-code", "the-verifier", "client-secret", "the-webhook-secret")
    place.fake.faults[:] = [echo] * 2
    async with place.host() as host:
        with pytest.raises(HostError) as refused:
            await host.exchange_code("the-code", "https://runstream.example/callback", "the-verifier")
        said = [refused.value.message]
        if status == 422:
            place.fake.faults[:] = [echo] * 2
            with pytest.raises(HostError) as refused:
                await host.put_webhook(TOKEN, place.repo.path, "https://a.example", "the-webhook-secret")
            said.append(refused.value.message)
    place.fake.faults.clear()
    assert not [secret for secret in sent for message in said if secret in message]
    assert all("***" in message for message in said)


# Webhooks.


def _hooked(place: Place) -> None:
    secret = "hook secret"
    config = {"url": HOOK, "content_type": "json", "secret": secret}
    events = ["push", "delete", "pull_request"]
    place.repo.hooks.append({"id": 1, "config": config, "events": events, "active": True})
    if place.fake.type == "gitlab":
        switches = dict.fromkeys(("push_events", "tag_push_events", "merge_requests_events"), True)
        place.repo.hooks[:] = [{"id": 1, "url": HOOK, "token": secret, **switches}]


async def test_a_push_of_a_branch_and_of_a_tag(place: Place) -> None:
    _hooked(place)
    commit = place.fake.push(place.repo, "refs/heads/topic/y", {"y": "1"}, "A new y")
    names, got = HOST_REFS[place.fake.type], place.last()
    assert got.change == RefPushed(names.branch("topic/y"), commit, got.change.message)  # type: ignore[union-attr]
    assert got.change.message.strip() == "A new y"
    assert (got.repository_id, got.sender) == (str(place.repo.id), "ada")
    assert got.delivery
    tagged = place.fake.push(place.repo, "refs/tags/v2.0", {"y": "2"})
    assert place.last().change == RefPushed(names.tag("v2.0"), tagged, "Tag v2.0")


async def test_a_deleted_branch(place: Place) -> None:
    place.fake.push(place.repo, "refs/heads/gone", {"gone": "1"})
    _hooked(place)
    place.fake.delete_ref(place.repo, "refs/heads/gone")
    assert place.last().change == RefDeleted(HOST_REFS[place.fake.type].branch("gone"))


async def test_a_pull_request_of_the_repository_and_of_a_fork(place: Place) -> None:
    fork = place.fake.add_repo("bob/web", {"bob"})
    commit = place.fake.push(fork, "refs/heads/theirs", {"theirs": "1"})
    _hooked(place)
    pull = place.fake.open_pull(place.repo, "theirs", "From a fork", fork)
    change = place.last().change
    assert isinstance(change, PullRequestPushed)
    assert (change.commit, change.title, change.same_repository) == (commit, "From a fork", False)
    assert change.id == str(pull.id if place.fake.type == "gitea" else pull.number)
    assert change.ref == HOST_REFS[place.fake.type].pull_request(pull.number)
    assert change.ref.kind is RefKind.PULL_REQUEST
    own = place.fake.push(place.repo, "refs/heads/ours", {"ours": "1"})
    place.fake.open_pull(place.repo, "ours", "Our own")
    ours = place.last().change
    assert isinstance(ours, PullRequestPushed)
    assert (ours.commit, ours.same_repository) == (own, True)
    pull.state = "closed"
    place.fake.send_pull(place.repo, pull, "closed")
    assert place.last().change is None
    assert "closed" in place.last().ignored
    place.fake.repos.pop(fork.id)


async def test_a_webhook_without_or_with_a_wrong_signature_is_refused(place: Place) -> None:
    _hooked(place)
    place.fake.push(place.repo, "refs/heads/signatures", {"s": "1"})
    sent = place.fake.delivered[-1]

    def code(headers: dict[str, str], body: bytes, secret: str) -> str:
        with pytest.raises(BadRequestError) as refused:
            read_webhook(place.fake.type, secret, headers, body, now=place.time.at)
        return refused.value.code

    right = "hook secret"
    marks = ("Signature", "Token")
    unsigned = {name: value for name, value in sent.headers.items() if not any(mark in name for mark in marks)}
    assert code(unsigned, sent.body, right) == "webhookNotSigned"
    emptied = {**unsigned, **dict.fromkeys(sent.headers.keys() - unsigned.keys(), "")}
    assert code(emptied, sent.body, right) == "webhookNotSigned"
    assert code(dict(sent.headers), sent.body, "another") == "invalidWebhookSignature"
    assert code(dict(sent.headers), sent.body, "") == "invalidWebhookSignature"
    forged = {**sent.headers, **dict.fromkeys(sent.headers.keys() - unsigned.keys(), "ü")}
    assert code(forged, sent.body, right) == "invalidWebhookSignature"
    if place.fake.type != "gitlab":  # its token is of no body
        assert code(dict(sent.headers), sent.body + b" ", right) == "invalidWebhookSignature"


async def test_gitlab_signs_by_standard_webhooks_for_a_few_minutes(tmp_path: Path) -> None:
    with serving(FakeGitLab(tmp_path)) as fake:
        assert isinstance(fake, FakeGitLab)
        fake.add_user("ada", TOKEN)
        repo, time = fake.add_repo("ada/web", {"ada"}), Time()
        fake.signs_at = int(time.at)
        repo.hooks.append({"id": 1, "url": HOOK, "token": "hook secret", "push_events": True})
        fake.push(repo, "refs/heads/main", {"x": "1"})
        (sent,) = fake.delivered
        got = read_webhook("gitlab", "hook secret", sent.headers, sent.body, now=time.at + 299)
        assert isinstance(got.change, RefPushed)
        assert got.delivery == sent.headers["webhook-id"]
        for headers, body, now in (
            (sent.headers, sent.body, time.at + 301),
            (sent.headers, sent.body, time.at - 301),
            (sent.headers, sent.body + b" ", time.at),
            ({**sent.headers, "webhook-id": "another"}, sent.body, time.at),
            ({**sent.headers, "webhook-signature": "v1,AAAA"}, sent.body, time.at),
        ):
            with pytest.raises(BadRequestError) as refused:
                read_webhook("gitlab", "hook secret", headers, body, now=now)
            assert refused.value.code == "invalidWebhookSignature"


async def test_a_github_app_has_a_token_of_its_own_with_the_least_rights(tmp_path: Path) -> None:
    key, time = RSAKey.generate_key(2048), Time()
    with serving(FakeGitHub(tmp_path)) as fake:
        assert isinstance(fake, FakeGitHub)
        fake.add_user("ada", TOKEN)
        fake.add_repo("ada/web", {"ada"})
        fake.app_key = key
        limits = HostLimits(retries=Backoff(0.5, attempts=1))
        app = GitHubApp("app-1", key.as_pem(private=True).decode())
        host = GitHubHost(fake.settings, limits, time.clock(), app)
        token = await host.app_token("ada/web")
        assert (await host.repository(token, "ada/web")).path == "ada/web"
        assert await host.app_token("ada/web") == token
        (asked,) = fake.app_requests
        assert asked["repositories"] == ["web"]
        assert asked["permissions"]["contents"] == "read"
        time.at += 86_400 * 3650
        assert await host.app_token("ada/web") != token
        await host.close()
        stranger = GitHubApp("app-1", RSAKey.generate_key(2048).as_pem(private=True).decode())
        for wrong, code in ((stranger, "hostCredentialsRefused"), (GitHubApp("app-1", "no key"), "invalidAppKey")):
            host = GitHubHost(fake.settings, limits, Time().clock(), wrong)
            with pytest.raises(RunstreamError) as refused:
                await host.app_token("ada/web")
            assert refused.value.code == code
            await host.close()
