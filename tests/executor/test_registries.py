"""Names of images, as distribution/reference knows them."""

from __future__ import annotations

import pytest

from runstream.errors import BadRequestError
from runstream.executor.drivers.registries import registry_of, require_reference, tagged

DIGEST = "sha256:" + "0af" * 20 + "beef"


@pytest.mark.parametrize(
    "image",
    [
        "alpine",
        "alpine:3.20",
        "library/alpine",
        "a__b/c-d--e.f:UPPER_tag.1-x",
        "docker.io/library/alpine@" + DIGEST,
        "registry.example.com:5000/team/app:1@" + DIGEST,
        "localhost/app",
        "LOCAL:5000/app",
        "[::1]:5000/app",
        DIGEST,
    ],
)
def test_a_name_of_an_image(image: str) -> None:
    require_reference(image)


@pytest.mark.parametrize(
    "image",
    [
        "UPPER//x::",
        "Not An Image",
        "Upper",
        "a:b:c",
        "a//b",
        "/a",
        "a/",
        "../../containers/json",
        "a?b",
        "a#b",
        "a%2fb",
        "a\nb",
        "a\n",
        "http://registry.example.com/a",
        "a@sha256:beef",
        "a:" + "t" * 129,
        "é",
        "-a",
    ],
)
def test_anything_else_is_refused_with_the_form(image: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        require_reference(image)
    assert refused.value.code == "invalidImage"
    assert "NAME[:TAG]" in refused.value.hint
    assert "\n" not in refused.value.message


def test_the_registry_and_the_tag_of_a_name() -> None:
    assert registry_of("alpine") == registry_of("docker.io/library/alpine") == "index.docker.io"
    assert registry_of("localhost/app") == "localhost"
    assert tagged("alpine") == "alpine:latest"
    assert tagged("registry.example.com:5000/app") == "registry.example.com:5000/app:latest"
