"""What schemathesis takes for a rejection of invalid credentials, beside 401 and 403: the limit of failed logins."""

from __future__ import annotations

from schemathesis.core.transport import AUTH_REJECTION_STATUSES
from schemathesis.specs.openapi import checks

vars(checks)["AUTH_REJECTION_STATUSES"] = frozenset({*AUTH_REJECTION_STATUSES, 429})
