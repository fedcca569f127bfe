"""Which repositories of an executor's machine the tasks of a run may clone, by their path.

The clone step shows git a repository that the rest of the task does not see: the path in these variables. So a user
may name only those in the folders that the admin allows (`git_folders`), as for projects. The admin may name any path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runstream.events.run_config import RunConfig, Text
from runstream.gateway.sender import Sender
from runstream.git.sources import AllowedSources, require_allowed_path

URL_NAMES = frozenset({"AGOLA_REPOSITORY_URL", "RUNSTREAM_REPOSITORY_URL"})
"""Variables that name the repository of a task."""


def require_allowed_repositories(allowed: AllowedSources, sender: Sender, configs: Iterable[RunConfig]) -> None:
    """Raise BadRequestError for tasks of a user that would clone a path in no allowed folder."""
    if sender.actor.admin:
        return
    for config in configs:
        for text in _repository_urls(config):
            # A secret is marked to be sealed here, and has no key yet; one that is sealed was checked before.
            if isinstance(text, str) or not text.key:
                require_allowed_path(text if isinstance(text, str) else text.value, allowed)


def _repository_urls(config: RunConfig) -> Iterator[Text]:
    tasks = (task.environment for task in config.tasks.values())
    for environment in (config.static_environment, config.environment, *tasks):
        yield from (text for name, text in environment.items() if name in URL_NAMES)
