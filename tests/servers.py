"""Where a test works: the servers that all tests share, and what on them is its own."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Servers:
    """Real servers, and a namespace and a schema that no other test has."""

    nats_url: str
    database_url: str
    namespace: str
    schema: str
    """Not made yet; dropped after the test."""

    def beside(self, name: str) -> Servers:
        """A second deployment on the same servers; its schema is the test's to drop."""
        return replace(self, namespace=f"{self.namespace}-{name}", schema=f"{self.schema}_{name}")
