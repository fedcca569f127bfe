"""How the page is served: its headers, its caching, its compression, without a login, in maintenance."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from runstream.gateway.middleware import MaintenanceGate
from runstream.gateway.web_page import PageFiles, command_for
from tests.gateway.world import World

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """Sends requests without credentials."""
    async with World.make().http() as http:
        http.headers.pop("Authorization")
        yield http


async def assets(http: httpx2.AsyncClient) -> list[str]:
    return re.findall(r'(?:href|src)="(/ui/assets/[^"]+)"', (await http.get("http://gateway/ui/")).text)


async def test_everything_below_ui_has_the_headers_of_safety(http: httpx2.AsyncClient) -> None:
    paths = ["/", "/ui", "/ui/", "/ui/runs/1b4e28ba-2fa1-11d2-883f-0016d3cca427", "/ui/login", *await assets(http)]
    assert len(paths) == 8
    for path in paths:
        headers = (await http.get(f"http://gateway{path}")).headers
        assert headers["content-security-policy"] == POLICY, path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"


async def test_the_root_leads_to_the_page(http: httpx2.AsyncClient) -> None:
    for path in ("/", "/ui"):
        answer = await http.get(f"http://gateway{path}")
        assert answer.is_redirect
        assert answer.headers["location"] == "/ui/"


async def test_every_path_has_the_same_document_and_names_the_command(http: httpx2.AsyncClient) -> None:
    answer = await http.get("http://gateway/ui/groups/%2Fproject%2Fweb%2Fa'b%3Cscript%3E")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<noscript>" in answer.text
    assert "run list --group &#x27;/project/web/a&#x27;&quot;&#x27;&quot;&#x27;b&lt;script&gt;&#x27;" in answer.text
    assert answer.headers["cache-control"] == "no-cache"
    again = await http.get(
        "http://gateway/ui/", headers={"If-None-Match": (await http.get("http://gateway/ui/")).headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


async def test_assets_are_cached_for_ever_and_compressed(http: httpx2.AsyncClient) -> None:
    for path in await assets(http):
        answer = await http.get(f"http://gateway{path}", headers={"Accept-Encoding": "gzip"})
        plain = await http.get(f"http://gateway{path}", headers={"Accept-Encoding": "identity"})
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert answer.content == plain.content
        known = await http.get(f"http://gateway{path}", headers={"If-None-Match": f"W/{plain.headers['etag']}"})
        assert known.status_code == 304
        head = await http.head(f"http://gateway{path}")
        assert (head.status_code, head.content) == (200, b"")
    kinds = {path.rpartition(".")[2] for path in await assets(http)}
    assert kinds == {"css", "js", "svg"}


@pytest.mark.parametrize("path", ["/ui/assets/none.js", "/ui/assets/..%2findex.html", "/ui/assets/"])
async def test_a_file_that_is_not_there_is_not_found(http: httpx2.AsyncClient, path: str) -> None:
    answer = await http.get(f"http://gateway{path}")
    assert (answer.status_code, answer.json()[0]["code"]) == (404, "assetDoesNotExist")
    assert answer.headers["content-security-policy"] == POLICY


async def test_the_page_takes_no_other_methods(http: httpx2.AsyncClient) -> None:
    answer = await http.post("http://gateway/ui/", content=b"x")
    assert (answer.status_code, answer.json()[0]["code"]) == (405, "methodNotAllowed")
    assert answer.headers["allow"] == "GET, HEAD"


async def test_the_page_is_there_with_credentials_that_are_not_valid_and_in_maintenance() -> None:
    app = World.make().app_behind(MaintenanceGate(lambda: ""))
    wrong = {"Authorization": "token wrong", "Cookie": "__Host-session=x; secondarysession=y"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), headers=wrong) as http:
        for path in ("/ui/", *await assets(http)):
            assert (await http.get(f"http://gateway{path}")).status_code == 200
        assert (await http.get("http://gateway/")).status_code == 307
        assert (await http.get("http://gateway/api/v1alpha/version")).status_code == 503


async def test_a_page_that_was_built_again_is_served_and_the_files_of_the_old_one_too(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()

    def build(name: str) -> None:
        for old in (tmp_path / "assets").iterdir():
            old.unlink()
        (tmp_path / "assets" / name).write_text(f"// {name}")
        (tmp_path / "index.html").write_text(f"<script src={name}></script>")

    build("main-1.js")
    files = httpx2.AsyncClient(transport=httpx2.ASGITransport(PageFiles(tmp_path)), base_url="http://gateway/ui")
    assert "main-1.js" in (await files.get("/")).text
    build("main-2.js")
    assert "main-2.js" in (await files.get("/")).text
    for name in ("main-1.js", "main-2.js"):
        assert (await files.get(f"/assets/{name}")).text == f"// {name}"


def test_every_page_has_a_command_that_shows_the_same() -> None:
    url = "http://gateway/"
    begin = f"runstream --url {url} --token TOKEN "
    for path, command in {
        "/": "run list",
        "/runs/1b4e": "run get 1b4e",
        "/runs/1b4e/diff": "run diff 1b4e",
        "/runs/1b4e/restart": "run restart 1b4e --dry-run",
        "/runs/1b4e/events": "events tail --run 1b4e",
        "/runs/1b4e/log/unit%20tests/2": "log get 1b4e 'unit tests' --step 2",
        "/events": "events tail",
        "/executors": "executor list",
        "/ops/maintenance": "status",
        "/p/org/acme/web%20site": "project get --ref 'org/acme/web site'",
        "/g/org/acme": "project list --parent org/acme",
        "/user": "user list",
    }.items():
        assert command_for(path, url) == begin + command


def test_the_files_are_small_enough() -> None:
    """The budget of the page: it opens at once also on a slow line."""
    found = {path: len(gzip.compress(path.read_bytes(), 9)) for path in PAGE.rglob("*.*")}
    assert sum(size for path, size in found.items() if path.suffix == ".js") < 60_000
    assert sum(size for path, size in found.items() if path.suffix == ".css") < 10_000


PAGE = Path(__file__).parents[2] / "producers" / "runstream" / "gateway" / "page"
