"""Templates of cache keys: what they mean, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.runconfig.templates import MAX_KEY_BYTES, parse_template, render


class Source:
    """Fixed answers."""

    now = datetime(2026, 3, 7, 12, 30, tzinfo=UTC)
    system = "linux"
    arch = "amd64"

    def env(self, name: str) -> str:
        return {"STAGE": "test", "NAME": "go.sum"}.get(name, "")

    async def file(self, path: str) -> bytes:
        if path != "go.sum":
            raise ValueError(f"file {path!r}: No such file or directory")
        return b"content"


MD5 = hashlib.md5(b"content", usedforsecurity=False).hexdigest()
SHA256 = hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{ {} }", "{ {} }"),
        ("a}}b", "a}}b"),
        ("{{os}}-{{ arch }}", "linux-amd64"),
        ('cache-{{ md5sum "go.sum" }}', f"cache-{MD5}"),
        ("{{ sha256sum `go.sum` }}", SHA256),
        ('{{ "go.sum" | sha256sum }}', SHA256),
        ('{{ env "NAME" | md5sum }}', MD5),
        ('{{ md5sum (env "NAME") }}', MD5),
        ('{{ md5sum (("NAME" | env)) }}', MD5),
        ("{{ env os }}", ""),
        ('{{ env "STAGE" }}{{ env "MISSING" }}', "test"),
        ("{{ year }}-{{ month }}-{{ day }}", "2026-03-07"),
        ("{{ unixtime }}", "1772886600000000000"),
        ("a {{- os -}} b", "alinuxb"),
        ("a {{/* }} */}} b", "a  b"),
        ("a {{- /* x */ -}} b", "ab"),
        ('{{ env "}}" }}x', "x"),
        (r'{{ env "\u0053TAGE" }}', "test"),
        ("{{\nos\n}}", "linux"),
    ],
)
def test_what_a_template_means(template: str, key: str) -> None:
    assert asyncio.run(render(parse_template(template), Source())) == key


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ os", "'{{ os' has no end"),
        ('{{ env "a }}', "unexpected '\"a'"),
        ("{{ }}", "a function is missing"),
        ("{{ checksum `x` }}", "function 'checksum' does not exist; known: arch, day, env"),
        ("{{ if os }}x{{ end }}", "function 'if' does not exist"),
        ("{{ .Environment.X }}", "unexpected '.Environment.X'"),
        ("{{ env }}", "env takes one argument, not 0"),
        ('{{ os "x" }}', "os takes no argument, not 1"),
        ('{{ "text" }}', "it has no function"),
        ("{{ env STAGE }}", "'STAGE' is not a text: write it in quotes"),
        ('{{ env ("STAGE" }}', "is missing"),
        ('{{ env "STAGE") }}', "unexpected '\\)'"),
        ('{{ os | "x" }}', "unexpected 'x'"),
        ("{{ os | (os) }}", "cannot be piped into parentheses"),
        ('{{ env "\\q" }}', "an escape that is not known"),
        ("{{ md5sum " + "(" * 30 + '"x"' + ")" * 30 + " }}", "more than 20 parentheses"),
        ("x" * 70_000, "longer than 65536 bytes"),
    ],
)
def test_a_template_that_is_none_is_refused_with_the_reason(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_template(template)


def test_a_key_that_cannot_be_rendered_says_why() -> None:
    with pytest.raises(ValueError, match="file 'nothere': No such file"):
        asyncio.run(render(parse_template('{{ md5sum "nothere" }}'), Source()))
    with pytest.raises(ValueError, match=f"longer than {MAX_KEY_BYTES} bytes"):
        asyncio.run(render(parse_template('{{ env "NAME" }}') * 200_000, Source()))


@given(st.text(alphabet='{}-()|`"/* \n\\aosenv', max_size=60))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = parse_template(text)
    except ValueError:
        return
    assert "{{" not in "".join(part for part in template if isinstance(part, str))
    assert isinstance(asyncio.run(render(template, Source())) if "sum" not in text else "", str)
