"""A small image that has the names of public ones, for documents whose examples name those.

It has busybox, the real bash, git and make, and scripts that stand for the programs of the public images.
"""

from __future__ import annotations

from tests.docker_engine import DockerEngine, root_file_system

MAIN = ("python:3.11", "python:3.12", "python:3.13", "debian:bookworm-slim", "quay.io/buildah/stable:v1.38")
GO = tuple(f"golang:{version}-bookworm" for version in ("1.23", "1.24", "1.25"))
SERVICES = {
    "postgres:17": '["docker-entrypoint.sh", "postgres"]',
    "postgres:18": '["docker-entrypoint.sh", "postgres"]',
    "redis:7": '["redis-server"]',
    "minio/minio:latest": "[]",
}
_PROGRAMS = ("bash", "git", "make")
_SCRIPTS = {
    "pytest": 'echo "1 passed ($*)"',
    "pg_isready": "nc 127.0.0.1 5432 </dev/null >/dev/null 2>&1",
    "docker-entrypoint.sh": """
        if [ -z "$POSTGRES_PASSWORD" ]; then echo "superuser password is not specified" >&2; exit 1; fi
        echo "database system is ready to accept connections"
        exec nc -ll -p 5432 -e /bin/true""",
    "redis-server": 'echo "Ready to accept connections tcp"; exec nc -ll -p 6379 -e /bin/true',
    "minio": """
        if [ "$1" != server ] || [ -z "$MINIO_ROOT_PASSWORD" ]; then echo "usage" >&2; exit 1; fi
        echo "API: http://127.0.0.1:9000"
        exec nc -ll -p 9000 -e /bin/true""",
    "go": """
        case "$1 $2" in
        "mod download")
          if [ -e "$GOMODCACHE/modules" ]; then echo "nothing to download"; exit; fi
          mkdir -p "$GOMODCACHE"; cp go.sum "$GOMODCACHE/modules"; echo "downloaded";;
        "test ./...") cmp go.sum "$GOMODCACHE/modules" && echo ok;;
        esac""",
    # As buildah does, it mounts a file system and runs a command of the image in it.
    "buildah": """
        case $1 in
        bud)
          mkdir /var/lib/containers/root; mount -t tmpfs image /var/lib/containers/root
          cp -a /bin /var/lib/containers/root/; chroot /var/lib/containers/root /bin/echo "built $3";;
        login) read -r password; test "$password" = pass:word; echo "Login Succeeded!";;
        push) echo "pushed $2";;
        esac""",
}


def files() -> bytes:
    """A tar of the image's files."""
    scripts = tuple((name, f"#!/bin/sh -e\n{text}\n") for name, text in _SCRIPTS.items())
    return root_file_system(programs=_PROGRAMS, scripts=scripts)


def load(engine: DockerEngine) -> None:
    """Give the image to the engine under all these names."""
    first, *others = (*MAIN, *GO)
    engine.cli("import", "-", first, stdin=files())
    for name in others:
        engine.cli("tag", first, name)
    for name, command in SERVICES.items():
        made = engine.cli("create", "--network=none", first, "true")
        engine.cli("commit", "--change", f"CMD {command}", made, name)
        engine.cli("rm", made)


def runs_privileged(engine: DockerEngine) -> bool:
    """Return whether the engine can start privileged containers: root of a confined machine cannot."""
    try:
        engine.cli("run", "--rm", "--privileged", "--network=none", MAIN[0], "true")
    except AssertionError:
        return False
    return True
