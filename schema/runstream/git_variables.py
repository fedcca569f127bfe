"""The environment variables that Runstream's own git commands get: those that are settings of git.

Others point git at another repository or change what a command does, and git sets many of them in its hooks (`GIT_DIR`,
`GIT_INDEX_FILE`, `GIT_QUARANTINE_PATH`). A list of those would have to grow with git; this one errs on the safe side.
"""

from __future__ import annotations

import re

_SETTING = re.compile(
    r"GIT_(CONFIG_(COUNT|KEY_\d+|VALUE_\d+|PARAMETERS|GLOBAL|SYSTEM|NOSYSTEM)"
    r"|(AUTHOR|COMMITTER)_(NAME|EMAIL|DATE)"
    r"|SSH|SSH_COMMAND|SSH_VARIANT|ASKPASS|TERMINAL_PROMPT"
    r"|(PROXY_)?SSL_\w+|PROXY_COMMAND|HTTP_\w+|ALLOW_PROTOCOL|PROTOCOL|PROTOCOL_FROM_USER|IP_FAMILY"
    r"|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM|ATTR_NOSYSTEM"
    r"|TRACE\w*|CURL_VERBOSE|REDACT_\w+|PROGRESS_DELAY|LFS_\w+|TEST_ASSUME_DIFFERENT_OWNER)"
)


def is_setting(name: str) -> bool:
    """Return whether a git command of ours gets this variable; every one that is not git's is."""
    return not name.startswith("GIT_") or _SETTING.fullmatch(name) is not None
