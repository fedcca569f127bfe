"""Secret values are replaced in what steps write, however it is cut into pieces."""

from __future__ import annotations

import base64
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from runstream.executor.masking import Masker, masked

LETTERS = st.text("ab\n", max_size=60)
SECRETS = st.lists(st.text("ab\n", min_size=1, max_size=9), max_size=4)


def whole(text: bytes, secrets: list[str]) -> bytes:
    masker = Masker(secrets)
    return masker.feed(text) + masker.end()


@given(LETTERS, SECRETS, st.lists(st.integers(0, 60), max_size=6))
def test_any_pieces_are_as_the_whole(text: str, secrets: list[str], cuts: list[int]) -> None:
    data = text.encode()
    masker = Masker(secrets)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [masker.feed(data[begin:end]) for begin, end in pairwise(places)]
    assert b"".join(pieces) + masker.end() == whole(data, secrets)


@given(LETTERS, SECRETS)
def test_nothing_is_left_and_nothing_else_is_touched(text: str, secrets: list[str]) -> None:
    shown = whole(text.encode(), secrets).decode()
    long = [secret for secret in secrets if len(secret.strip()) >= 4]
    assert not any(secret in shown for secret in long)
    covered = [False] * len(text)
    forms = {part.strip() for secret in secrets for part in (secret, *secret.split("\n"))}
    for form in forms:
        for at in range(len(text)):
            if len(form) >= 4 and text.startswith(form, at):
                covered[at : at + len(form)] = [True] * len(form)
    assert shown.replace("***", "") == "".join(c for c, hidden in zip(text, covered, strict=True) if not hidden)


def test_values_lines_and_base64_are_replaced_and_short_values_are_not() -> None:
    secret = "first line\nsecond line"
    encoded = base64.b64encode(secret.encode()).decode()
    assert masked(f"<{secret}> <second line\r\n> <{encoded}>", [secret]) == "<***> <***\r\n> <***>"
    assert masked("abc", ["abc"]) == "abc"


def test_what_may_be_a_beginning_is_held_back_and_no_more() -> None:
    masker = Masker(["swordfish"])
    assert masker.feed(b"a sword") == b"a "
    assert masker.feed(b" and a swordfis") == b"sword and a "
    assert masker.feed(b"h!") == b"***!"
    assert masker.end() == b""
