"""A record is one line, says why something failed without a stack trace, and holds no secret."""

import json
import logging

import pytest
import structlog

from runstream.errors import InternalError, NotExistError, chain_lines
from runstream.telemetry import hide_secret, logs, setup_logging, span_from


def _records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def _fail() -> None:
    try:
        raise NotExistError("log doesn't exist", code="logDoesNotExist")
    except NotExistError as error:
        raise InternalError("the log could not be read", hint="try again") from error


def test_a_record_is_one_line_of_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "json")
    structlog.get_logger().info("a run started", action="run_started", run="r1")
    structlog.get_logger().debug("not shown", action="nothing")
    (record,) = _records(capsys)
    assert record["event"] == "a run started"
    assert record["action"] == "run_started"
    assert record["level"] == "info"
    assert str(record["timestamp"]).endswith("Z")


def test_an_exception_is_its_chain_of_causes_without_a_stack_trace(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "json")
    try:
        _fail()
    except InternalError as error:
        structlog.get_logger().exception("cannot follow", action="follow_failed")
        expected = chain_lines(error)
    (record,) = _records(capsys)
    assert record["chain"] == expected
    assert len(expected) == 2
    assert "test_logs.py:" in expected[0]
    assert record["hint"] == "try again"
    assert "Traceback" not in json.dumps(record)


def test_on_a_console_each_cause_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "console")
    try:
        _fail()
    except InternalError as error:
        structlog.get_logger().error("cannot follow", action="follow_failed", exc_info=error)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "cannot follow" in lines[0]
    assert lines[1].startswith("    (InternalError) ")
    assert lines[2].startswith("    (NotExistError) ")


def test_what_a_loop_says_again_and_again_is_written_at_bounded_intervals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(logs, "monotonic", lambda: now)
    setup_logging("info", "json")
    for _ in range(100):  # a minute without the servers
        for reason in ("no answer", "no leader"):
            structlog.get_logger().warning("the lease is lost", action="lease_lost", error=reason)
        structlog.get_logger().info("a request", action="request")
        now += 0.6
    records = _records(capsys)
    assert [record["error"] for record in records if record["action"] == "lease_lost"] == ["no answer", "no leader"] * 2
    assert [record.get("repeated") for record in records if record["action"] == "lease_lost"] == [None, None, 49, 49]
    assert len([record for record in records if record["action"] == "request"]) == 100


def test_an_exception_of_a_loop_counts_as_repeated_only_with_the_same_causes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup_logging("info", "json")
    for _ in range(3):
        for error in (ValueError("one"), ValueError("another")):
            structlog.get_logger().error("it failed", action="failed", exc_info=error)
    assert len(_records(capsys)) == 2


def test_repeated_records_are_recognised_in_bounded_memory(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "json")
    for number in (*range(logs.MAX_RECENT + 1), 0, logs.MAX_RECENT):
        structlog.get_logger().warning("unusable", action="unusable", number=number)
    assert len(_records(capsys)) == logs.MAX_RECENT + 2  # 0 was forgotten, the last one was not


def test_records_of_libraries_go_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "json")
    logging.getLogger("uvicorn.error").warning("port %d", 80)
    logging.getLogger("uvicorn.error").info("chatter")
    logging.getLogger("uvicorn.error").error("Traceback (most recent call last):\n  File x\nValueError: no\n")
    record, trace = _records(capsys)
    assert trace["event"] == "ValueError: no"
    assert record["event"] == "port 80"
    assert record["logger"] == "uvicorn.error"
    assert record["level"] == "warning"


@pytest.mark.parametrize("style", ["json", "console"])
def test_secrets_are_hidden_wherever_they_stand(capsys: pytest.CaptureFixture[str], style: str) -> None:
    setup_logging("info", "json" if style == "json" else "console")
    hide_secret("s3cr3t-value")
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1\n-----END OPENSSH PRIVATE KEY-----"
    try:
        raise InternalError("cannot reach postgresql://user:hunter22@db/x with s3cr3t-value")
    except InternalError:
        structlog.get_logger().exception(
            "failed with s3cr3t-value",
            action="failed",
            api_token="tok-123456",
            environment={"AGOLA_SSHPRIVKEY": "abcdefgh", "X": key, "urls": ["nats://u:hunter22@host:4222"]},
        )
    text = capsys.readouterr().err
    for secret in ("s3cr3t-value", "hunter22", "tok-123456", "abcdefgh", "b3BlbnNzaC1"):
        assert secret not in text
    assert "[hidden]" in text


def test_a_record_names_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "json")
    with span_from("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "work"):
        structlog.get_logger().info("inside", action="inside")
    (record,) = _records(capsys)
    assert record["trace"] == "0af7651916cd43dd8448eb211c80319c"
