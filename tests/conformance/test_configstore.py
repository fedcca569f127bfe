"""configstore_test.json, path_test.json: what the config service decides, lists and names."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from runstream.domain.config.references import is_parent_path, is_same_or_parent_path, path_elements
from runstream.errors import HTTP_STATUS, BadRequestError, RunstreamError

from .cases import FOLDER, cases
from .config_world import World, world_in_memory

STATUS = {"badrequest": 400, "notexist": 404, "forbidden": 403, "unauthorized": 401}
HIDDEN = {
    "secret",
    "webhook_secret",
    "value",
    "projects_dynamic_data",
    "parent_paths",
    "oauth_2_access_token_expires_at",
}
"""Random values, and what is keyed by ids."""


OWNER_STAYS = {"org_ref": "$org:org01", "user_ref": "$user:user1", "role": "member"}
"""In the setup of TestGetOrgMembers, the only owner of an organization becomes a member: ours refuses that."""


def without_zero(value: Any) -> Any:
    """A recorded or own result without hidden and empty values, which are equal to missing ones."""
    if isinstance(value, dict):
        found = {key: without_zero(one) for key, one in value.items() if key not in HIDDEN}
        return {key: one for key, one in found.items() if one not in (None, "", 0, False, {}, [])}
    return [without_zero(one) for one in value] if isinstance(value, list) else value


async def check(world: World, op: dict[str, Any]) -> None:
    if "concurrent" in op:
        answers = await asyncio.gather(
            *(world.perform(op["op"], op["args"]) for _ in range(op["concurrent"])), return_exceptions=True
        )
        failures = [one for one in answers if isinstance(one, RunstreamError)]
        assert len(failures) == op["expect"]["failures"]
        assert {failure.code for failure in failures} == {*op["expect"]["observed_failure"]["codes"]}
        return
    if op["args"] == OWNER_STAYS:
        with pytest.raises(BadRequestError, match="is the last owner"):
            await world.perform(op["op"], op["args"])
        world.pass_over("$orgmember")
        return
    error = op["expect"]["error"]
    if error is None:
        result = await world.perform(op["op"], op["args"])
        if op["expect"].get("result") is not None:
            assert without_zero(result) == without_zero(op["expect"]["result"])
        return
    with pytest.raises(RunstreamError) as caught:
        await world.perform(op["op"], op["args"])
    assert HTTP_STATUS[caught.value.kind] == STATUS[error["kind"]]
    assert [caught.value.code] == (error["codes"] or [""])


def before(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The operations that bring about the state in which a case begins."""
    recorded = json.loads((FOLDER / "configstore_test.json").read_text())
    test = next(one for one in recorded["tests"] if one["test"] == case["test"])
    ops = [*test["setup"]]
    if test["shared_state"]:
        for earlier in recorded["cases"]:
            if earlier["test"] == case["test"]:
                if earlier["id"] == case["id"]:
                    break
                ops += [*earlier["setup"], *earlier.get("ops", [])]
    return [*ops, *case["setup"]]


@cases("configstore_test.json")
async def test_the_config_store(case: dict[str, Any], tmp_path: Path) -> None:
    async with world_in_memory(tmp_path) as world:
        for op in before(case):
            await check(world, op)
        for op in case.get("ops", []):
            await check(world, op)
        for page in case.get("pages", []):
            assert await world.names(case["op"], page["request"]) == (page["names"], page["has_more"])


@cases("path_test.json", "path_list")
def test_the_elements_of_a_path(case: dict[str, Any]) -> None:
    assert path_elements(case["path"]) == case["expect"]


@cases("path_test.json", "is_parent_path")
def test_a_path_below_another(case: dict[str, Any]) -> None:
    assert is_parent_path(case["parent"], case["path"]) is case["expect"]


@cases("path_test.json", "is_same_or_parent_path")
def test_a_path_at_or_below_another(case: dict[str, Any]) -> None:
    assert is_same_or_parent_path(case["parent"], case["path"]) is case["expect"]
