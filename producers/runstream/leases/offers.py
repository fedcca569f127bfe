"""What an executor writes into its lease."""

from __future__ import annotations

import orjson
import structlog
from msgspec.structs import asdict, fields

from runstream.domain.executor import Offer

_NAMES = frozenset(field.name for field in fields(Offer))
log = structlog.get_logger()


def encode_offer(offer: Offer) -> bytes:
    """The lease's value."""
    return orjson.dumps(asdict(offer))


def decode_offer(executor_id: str, value: bytes) -> Offer | None:
    """What a lease's value says; None when it cannot be read. Fields of a later version are left out."""
    try:
        data = {name: said for name, said in orjson.loads(value).items() if name in _NAMES}
        return Offer(**{**data, "archs": tuple(data["archs"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("An offer cannot be read", action="offer_unreadable", executor=executor_id, error=str(error))
        return None
