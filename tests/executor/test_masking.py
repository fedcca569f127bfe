"""Secrets are replaced in what steps write, in every usual spelling, however the output is cut into chunks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import shutil
import subprocess
import threading
from collections.abc import Callable
from html import escape
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.executor.masking import LONGEST, Masker, Masking, spellings
from runstream.executor.step_log import StepLog

LETTERS = st.text("ab1\n =", max_size=60)
SECRETS = st.lists(st.text("ab1\n =", min_size=1, max_size=9), max_size=4)
TOKEN = "pa\"ss'wo$rd+/=x<&>~ü"


def whole(text: bytes, masking: Masking) -> bytes:
    masker = Masker(masking)
    return masker.feed(text) + masker.end()


@given(LETTERS, SECRETS, st.lists(st.integers(0, 60), max_size=6))
def test_any_chunks_are_masked_as_the_whole(text: str, secrets: list[str], cuts: list[int]) -> None:
    data, masking = text.encode(), Masking.of(secrets)
    masker = Masker(masking)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [masker.feed(data[begin:end]) for begin, end in pairwise(places)]
    assert b"".join(pieces) + masker.end() == whole(data, masking)


@given(LETTERS, SECRETS)
def test_no_spelling_is_left_and_nothing_else_is_touched(text: str, secrets: list[str]) -> None:
    covered = [False] * len(text)
    for secret in secrets:
        for spelling, word in spellings(secret).items():
            form = spelling.decode()
            for at in range(len(text)):
                if text.startswith(form, at) and not (word and inside_a_word(text, at, at + len(form))):
                    covered[at : at + len(form)] = [True] * len(form)
    expected = ""
    for at, hidden in enumerate(covered):
        expected += text[at] if not hidden else "" if at and covered[at - 1] else "***"
    assert whole(text.encode(), Masking.of(secrets)).decode() == expected


def inside_a_word(text: str, begin: int, end: int) -> bool:
    return text[max(begin - 1, 0) : begin].isalnum() or text[end : end + 1].isalnum()


@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(spell, id=name)
        for name, spell in {
            "as it is": str,
            "json": json.dumps,
            "json in unicode": lambda text: json.dumps(text, ensure_ascii=False),
            "json in json": lambda text: json.dumps(json.dumps(text)),
            "xml": lambda text: escape(text, quote=False),
            "html": escape,
            "html of PHP": lambda text: escape(text).replace("&#x27;", "&#039;"),
            "xml in ascii": lambda text: escape(text, quote=False).encode("ascii", "xmlcharrefreplace").decode(),
            "xml with >": lambda text: escape(text).replace("&gt;", ">"),
            "every byte in a url": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
            "url": lambda text: quote(text, safe=""),
            "url path": quote,
            "form": quote_plus,
            "lower case url": lambda text: quote(text, safe="").replace("%C3%BC", "%c3%bc").lower(),
            "python": repr,
            "python bytes": lambda text: repr(text.encode()),
            "hex": lambda text: text.encode().hex(),
            "upper case hex": lambda text: text.encode().hex().upper(),
            "hex of od": lambda text: text.encode().hex(" "),
        }.items()
    ],
)
def test_each_spelling_is_masked(spell: Callable[[str], str]) -> None:
    shown = Masking.of([TOKEN]).masked(f"<{spell(TOKEN)}>")
    assert shown.strip("<>\"'b\\") == "***"


@given(st.binary(max_size=7), st.text(min_size=4, max_size=40), st.binary(max_size=7), st.booleans())
def test_base64_is_masked_at_every_offset(before: bytes, secret: str, after: bytes, url_safe: bool) -> None:
    if len(secret.strip().encode()) < 4:
        return
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    shown = Masking.of([secret]).masked(encode(before + secret.strip().encode() + after).decode())
    left, found, right = shown.partition("***")
    assert found
    assert len(left) <= len(before) * 4 // 3 + 2
    assert len(right) <= -(-len(after) // 3) * 4 + 4


@pytest.mark.parametrize("shell", ["bash", "dash", "busybox sh"])
@pytest.mark.parametrize("secret", [TOKEN, "it''s a 'secret'", "back\\slash and space", "two lines\nof it's own"])
def test_what_shells_print_of_a_secret_is_masked(shell: str, secret: str) -> None:
    words = shell.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{shell} is not installed")
    script = 'set -x; : curl -H "$TOKEN"; printf %s "$TOKEN" | base64; printf %s "$TOKEN" | od -An -tx1; export -p'
    done = subprocess.run(
        [*words, "-c", script], env={"TOKEN": secret, "PATH": "/usr/bin:/bin"}, cwd="/", capture_output=True, check=True
    )
    shown = Masking.of([secret]).masked((done.stdout + done.stderr).decode())
    parts = {"pa", "wo$rd", "wo\\$rd", "secret", "slash", "space", "lines", "own", " 73 73 "}
    assert {part for part in parts if part in shown} == set()


@pytest.mark.parametrize("wrap", [16, 64, 76])
def test_wrapped_base64_and_hex_are_masked(wrap: int) -> None:
    key = "-----BEGIN KEY-----\n" + "\n".join("%x" % (3**n) for n in range(150, 170)) + "\n-----END KEY-----\n"
    for encoded in (base64.b64encode(key.encode()).decode(), base64.b64encode(key[:300].encode()).decode()):
        if len(encoded) > 600 and wrap == 16:
            continue
        lines = [encoded[at : at + wrap] for at in range(0, len(encoded), wrap)]
        shown = Masking.of([key if len(encoded) > 600 else key[:300]]).masked("\n".join(lines))
        assert all(len(line.replace("***", "")) <= 3 for line in shown.splitlines())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("width", [64, 76])
def test_a_secret_in_wrapped_base64_is_masked_to_the_ends_of_its_lines(width: int, end: str) -> None:
    token = "ghp_" + hashlib.sha256(b"token").hexdigest()[:35]
    masking = Masking.of([token])
    for begin in range(2 * width):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            letters = encode(b"." * begin + token.encode() + b"..").decode()
            shown = masking.masked(end.join(letters[at : at + width] for at in range(0, len(letters), width)))
            left, _, rest = shown.replace(end, "").partition("***")
            between, _, right = f"***{rest}".rpartition("***")
            assert len(left) - math.ceil(begin * 4 / 3) <= 1, shown  # a single letter at the end of a line may stay
            assert between.replace("***", "") == "", shown
            assert len(letters) - len(right) >= (begin + len(token)) * 4 // 3, shown


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_secret_in_wrapped_hex_is_masked_to_the_ends_of_its_lines(end: str) -> None:
    token = "ghp_" + hashlib.sha256(b"token").hexdigest()[:35]
    masking = Masking.of([token])
    for begin in range(60):
        letters = ("." * begin + token + "..").encode().hex()
        shown = masking.masked(end.join(letters[at : at + 60] for at in range(0, len(letters), 60)))  # as xxd -p
        assert shown.replace(end, "").replace("***", "") == ("." * begin + "..").encode().hex()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_no_line_of_a_key_is_left(end: str) -> None:
    key = "-----BEGIN KEY-----\nabcdefgh\nmn\n-----END KEY-----\n"
    shown = Masking.of([key]).masked(f"<{end}{key.replace(chr(10), end)}>{end}")
    assert shown.replace("***", "").split() == ["<", ">"]


def test_values_in_a_json_secret_are_masked() -> None:
    secret = {"type": "sa", "key": "abcd1234", "more": [{"pin": 12345, "on": True}], "inner": '{"deep": "s3cr3t-x"}'}
    masking = Masking.of([json.dumps(secret, indent=2)])
    assert masking.masked("abcd1234, s3cr3t-x, pin 12345 of 9123456, True") == "***, ***, pin *** of 9123456, True"


def test_the_password_of_a_url_is_masked() -> None:
    masking = Masking.of(["https://user:s3cret%2Fpw@example.com/x.git"])
    basic = base64.b64encode(b"user:s3cret/pw").decode()
    assert masking.masked(f"password s3cret/pw or s3cret%2Fpw, {basic}") == "password *** or ***, dXNlcjp***"


def test_a_common_word_is_masked_where_it_stands_alone() -> None:
    masking = Masking.of(["prod"])
    assert masking.masked("deploying to prod; make production") == "deploying to ***; make production"
    assert masking.masked("prod") == "***"
    assert masking.masked("reprod prod2 prod-eu") == "reprod prod2 ***-eu"


def test_a_short_secret_is_not_masked() -> None:
    assert Masking.of(["abc"]).masked("abc") == "abc"


def test_only_what_may_be_a_beginning_is_held_back() -> None:
    masker = Masker(Masking.of(["sword-fish"]))
    assert masker.feed(b"a sword") == b"a "
    assert masker.feed(b" and a sword-fis") == b"sword and a "
    assert masker.feed(b"h!") == b"***!"
    assert masker.end() == b""


def test_what_is_held_back_is_bounded() -> None:
    secret = "x1" * 4000
    masker = Masker(Masking.of([secret]))
    shown = [masker.feed(b"x1" * 50) for _ in range(80)]
    assert b"".join(shown) + masker.end() == b"***"
    assert len(masker.held) <= LONGEST


async def test_much_output_is_masked_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, loop, fed, threads = Masker.feed, asyncio.get_running_loop(), asyncio.Event(), set()

    def noting(self: Masker, chunk: bytes) -> bytes:
        threads.add(threading.current_thread())
        loop.call_soon_threadsafe(fed.set)
        return feed(self, chunk)

    monkeypatch.setattr(Masker, "feed", noting)
    log = StepLog(tmp_path / "log", None, Masking.of(["s3cret-value"]))
    log.write(b"x" * (64 << 10) + b" s3cret-value")
    await fed.wait()
    log.close()
    assert threading.main_thread() not in threads
    assert (tmp_path / "log").read_bytes() == b"x" * (64 << 10) + b" ***"
