"""The base of all responses of the API."""

from __future__ import annotations

from msgspec import Meta, Struct


def one_of(*values: str) -> Meta:
    """Return the description of a text that has one of these values."""
    return Meta(extra_json_schema={"enum": sorted(values)})


class Answer(Struct, frozen=True, gc=False):
    """The base class of all responses of the API."""
