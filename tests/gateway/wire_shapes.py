"""The shapes of responses as clients of the model know them, as JSON schemas; further members are allowed."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_UUID = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
_VISIBILITY = {"enum": ["public", "private"]}


def shape(optional: dict[str, Any] | None = None, /, **required: Any) -> dict[str, Any]:
    """An object with these members."""
    return {"type": "object", "required": sorted(required), "properties": {**required, **(optional or {})}}


def many(item: dict[str, Any]) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": item}


USER = shape(id=_UUID, username=_TEXT)
ACCOUNT = shape(id=_UUID, remote_source_id=_UUID, remote_user_name=_TEXT, remote_user_avatar_url=_TEXT)
PRIVATE_USER = shape(id=_UUID, username=_TEXT, tokens=many(_TEXT), linked_accounts=many(ACCOUNT))
TOKEN = shape(token={"type": "string", "pattern": "^rst_[0-9A-Za-z]{38}$"})
ORG = shape(id=_UUID, name=_TEXT, visibility=_VISIBILITY)
MEMBER = shape(user=USER, role={"enum": ["owner", "member"]})
MEMBERS = shape(organization=ORG, members=many(MEMBER))
ADDED_MEMBER = shape(organization=ORG, user=USER, role={"enum": ["owner", "member"]})
USER_ORGS = many(shape(Organization=ORG, Role=_TEXT))
INVITATION = shape(id=_UUID, user_ref=_UUID, organization_id=_UUID, organization_name=_TEXT)
GROUP = shape(
    id=_UUID, name=_TEXT, path=_TEXT, parent_path=_TEXT, visibility=_VISIBILITY, global_visibility=_VISIBILITY
)
PROJECT = shape(
    {
        "pass_vars_to_forked_pr": {"const": True},
        "members_can_perform_run_actions": {"const": True},
        "default_branch": {"type": "string", "minLength": 1},
    },
    id=_UUID,
    name=_TEXT,
    path=_TEXT,
    parent_path=_TEXT,
    visibility=_VISIBILITY,
    global_visibility=_VISIBILITY,
)
SECRET = {**shape(id=_UUID, name=_TEXT, parent_path=_TEXT), "additionalProperties": False}
PATTERN = shape(type={"enum": ["simple", "regexp"]}, match=_TEXT)
CONDITIONS = {
    "type": "object",
    "properties": {"include": many(PATTERN), "exclude": many(PATTERN)},
    "additionalProperties": False,
}
WHEN = {
    "type": ["object", "null"],
    "properties": {"branch": CONDITIONS, "tag": CONDITIONS, "ref": CONDITIONS},
    "additionalProperties": False,
}
VALUE = shape(secret_name=_TEXT, secret_var=_TEXT, matching_secret_parent_path=_TEXT, when=WHEN)
VARIABLE = shape(id=_UUID, name=_TEXT, parent_path=_TEXT, values=many(VALUE))
SOURCE = shape(id=_UUID, name=_TEXT, auth_type=_TEXT, registration_enabled=_FLAG, login_enabled=_FLAG)
VERSION = shape(service={"const": "gateway"}, version=_TEXT)
ERROR = {
    **many(shape(code=_TEXT, details={}, message={"type": "string", "minLength": 1}, hint=_TEXT)),
    "minItems": 1,
    "maxItems": 1,
}
