"""The check of GitHub's fake finds what GitHub does not know."""

from __future__ import annotations

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.hosts.openapi import Operation


def test_requests_and_answers_that_github_does_not_know_are_found() -> None:
    status = Operation("POST", "/repos/ada/web/statuses/abc")
    status.check_request({}, b'{"state": "pending", "context": "c"}')
    with pytest.raises(jsonschema.ValidationError):
        status.check_request({}, b'{"state": "failed"}')
    with pytest.raises(AssertionError):
        Operation("GET", "/user").check_request({"limit": "1"}, b"")
    with pytest.raises(AssertionError):
        Operation("PUT", "/repos/ada/web/hooks")
    with pytest.raises(AssertionError):
        status.answer(299, {})
    with pytest.raises(jsonschema.ValidationError):
        status.answer(201, {"id": "no number"})
    whole = status.answer(201, {"id": 1})
    assert whole["id"] == 1
    assert "created_at" in whole
