"""One trace goes through every process, recorded or not."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from runstream.telemetry import current_traceparent, span_from
from runstream.telemetry.tracing import record_with

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    record_with(provider.get_tracer("test"))
    yield exporter
    record_with(None)
    provider.shutdown()


def test_without_an_exporter_the_traceparent_is_handed_on_unchanged() -> None:
    with span_from(PARENT, "decide") as span:
        span.set("run", "r1")
        assert current_traceparent() == PARENT
        with span_from("", "append"):
            assert current_traceparent() == PARENT
    assert current_traceparent(start=False) == ""


@pytest.mark.parametrize(
    "bad", ["", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01", PARENT + "x", "01" + PARENT[2:]]
)
def test_without_a_parent_a_new_valid_trace_begins(bad: str) -> None:
    with span_from(bad, "request"):
        first = current_traceparent()
    with span_from(bad, "request"):
        second = current_traceparent()
    assert first != second
    version, trace_id, span_id, flags = first.split("-")
    assert (version, len(trace_id), len(span_id), flags) == ("00", 32, 16, "00")


def test_recorded_spans_are_children_of_their_parent(exported: InMemorySpanExporter) -> None:
    with span_from(PARENT, "decide", {"run": "r1"}) as span:
        handed_on = current_traceparent()
        span.set("events", 2)
    with span_from(handed_on, "execute"):
        pass
    first, second = exported.get_finished_spans()
    assert f"{first.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert first.parent is not None
    assert f"{first.parent.span_id:016x}" == "b7ad6b7169203331"
    assert first.attributes == {"run": "r1", "events": 2}
    assert second.parent is not None
    assert second.parent.span_id == first.context.span_id


def test_an_unsampled_trace_is_propagated_but_not_recorded(exported: InMemorySpanExporter) -> None:
    with span_from(PARENT[:-2] + "00", "decide"):
        assert current_traceparent().startswith(PARENT[:35])
    assert exported.get_finished_spans() == ()


def test_a_failed_span_says_why(exported: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="broken"), span_from("", "work"):
        raise ValueError("broken")
    (span,) = exported.get_finished_spans()
    assert span.status.description == "ValueError: broken"
    assert current_traceparent(start=False) == ""
