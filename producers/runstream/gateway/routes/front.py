"""What a browser finds at the root: which service this is, and how to use it. There is no web interface yet."""

from __future__ import annotations

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_TEXT = """\
Runstream {version}: a CI/CD service.

There is no web interface yet. Use the command line:

    runstream --url {url} --token TOKEN run list

API       {url}api/v1alpha/openapi.json
health    {url}readyz
metrics   {url}metrics
"""


async def _front(request: Request) -> Response:
    return PlainTextResponse(_TEXT.format(version=version("runstream"), url=request.base_url))


front_route = Route("/", _front)
