"""The rows of the config service, made of its fold: equal folds give equal rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from runstream.config_folding import PARTITION, SERVICE, ConfigFold, ParkedConfig
from runstream.domain.config.fitting import Kind
from runstream.domain.config.state import Aggregate
from runstream.tables import ConfigRow, ParkedRow

Key: TypeAlias = tuple[object, ...]
PROJECTION = SERVICE
"""The name of the projection in `checkpoints` and `parked`."""
_MAX_SHOWN = 4000
"""Characters of a reason, or a subject, of a parked commit."""
_encode = msgspec.json.Encoder(order="sorted").encode


def config_row(fold: ConfigFold, kind: Kind, thing: Aggregate) -> ConfigRow:
    """Return the row of a thing."""
    head = fold.heads[f"{kind}/{thing.id}"]
    parent, name = next((parent, name) for space, parent, name in thing.claims() if space == kind)
    return ConfigRow(
        kind, thing.id, head.version, head.sequence, _storable(name), _storable(parent), _encode(thing).decode()
    )


def _storable(text: str) -> str:
    """Return a text without NUL, which Postgres cannot hold and no request can give."""
    return text.replace("\0", "\ufffd")


def config_rows(fold: ConfigFold) -> dict[Key, ConfigRow]:
    """Return all rows, by kind and id."""
    return {(kind, thing.id): config_row(fold, kind, thing) for kind, thing in fold.state.everything()}


def changed_rows(fold: ConfigFold, aggregates: Iterable[str]) -> tuple[list[ConfigRow], list[Key]]:
    """Return the rows of changed aggregates (`project/<id>`), and the keys of those that are gone."""
    rows: list[ConfigRow] = []
    gone: list[Key] = []
    for aggregate in aggregates:
        kind, key = fold.kind_and_id(aggregate)
        thing = fold.state.find(kind, key)
        if thing is None:
            gone.append((kind, key))
        else:
            rows.append(config_row(fold, kind, thing))
    return rows, gone


def parked_rows(parked: Iterable[ParkedConfig]) -> list[ParkedRow]:
    """Return the rows of parked commits."""
    return [
        ParkedRow(
            PROJECTION,
            PARTITION,
            one.position.epoch,
            one.position.sequence,
            *(_storable(text[:_MAX_SHOWN]) for text in (one.subject, one.aggregate, one.reason)),
        )
        for one in parked
    ]
