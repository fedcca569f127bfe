"""Secrets are sealed and opened; every fault of a key or a secret is reported."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from runstream.errors import BadRequestError, InternalError
from runstream.events.run_config import Sealed
from runstream.sealing import Keyring, key_id, make_key_file

HERE = "task.environment.TOKEN of a task"
OLD, NEW = bytes(32), bytes([7]) * 32


def test_what_is_sealed_is_opened_and_never_the_same_twice() -> None:
    ring = Keyring.of([OLD])
    one, other = ring.seal("swordfish", HERE), ring.seal("swordfish", HERE)
    assert one != other
    assert "swordfish" not in repr((one, ring))
    assert ring.open(one, HERE) == ring.open(other, HERE) == "swordfish"
    assert ring.open("in plain", HERE) == "in plain"


def test_the_first_key_seals_and_all_open() -> None:
    rotated = Keyring.of([NEW, OLD])
    assert rotated.open(Keyring.of([OLD]).seal("old", HERE), HERE) == "old"
    assert rotated.seal("new", HERE).key == key_id(NEW) == rotated.ids[0]


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InternalError, match=key_id(OLD)) as raised:
        Keyring.of([NEW]).open(Keyring.of([OLD]).seal("x", HERE), HERE)
    assert raised.value.code == "secretsKeyMissing"
    with pytest.raises(InternalError) as raised:
        Keyring().seal("x", HERE)
    assert raised.value.code == "noSecretsKey"


@pytest.mark.parametrize("change", ["cut", "flipped", "foreign"])
def test_a_secret_that_was_changed_is_refused(change: str) -> None:
    ring = Keyring.of([OLD])
    sealed = ring.seal("swordfish", HERE)
    content = base64.b64decode(sealed.value.removeprefix("2."))
    changed = {"cut": content[:5], "flipped": content[:-1] + bytes([content[-1] ^ 1]), "foreign": b"\xff"}[change]
    with pytest.raises(InternalError) as raised:
        ring.open(replace(sealed, value="2." + base64.b64encode(changed).decode()), HERE)
    assert raised.value.code == "secretDamaged"


def test_what_is_sealed_opens_only_for_what_it_is_bound_to() -> None:
    ring = Keyring.of([OLD])
    sealed = ring.seal("swordfish", HERE)
    for changed, bound in ((sealed, "elsewhere"), (replace(sealed, value=sealed.value.removeprefix("2.")), HERE)):
        with pytest.raises(InternalError) as raised:
            ring.open(changed, bound)
        assert raised.value.code == "secretDamaged"


def test_what_the_first_format_sealed_is_opened_anywhere() -> None:
    nonce, key = bytes(12), key_id(OLD)
    sealed = Sealed(key, base64.b64encode(nonce + AESGCM(OLD).encrypt(nonce, b"swordfish", key.encode())).decode())
    assert Keyring.of([OLD]).open(sealed, HERE) == "swordfish"


def test_a_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    make_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    sealed = Keyring.read(path).seal("x", HERE)
    path.write_text(f"# the new one\n{base64.b64encode(NEW).decode()}\n\n{path.read_text()}")
    assert Keyring.read(path).ids[0] == key_id(NEW)
    assert Keyring.read(path).open(sealed, HERE) == "x"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "has no key"), ("not base64!", "not base64"), ("AAAA", "a key of 3 bytes"), (None, "cannot be read")],
)
def test_an_invalid_file_of_keys(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "secrets.key"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadRequestError, match=problem) as raised:
        Keyring.read(path)
    assert raised.value.code == "invalidSecretsKeyFile"
