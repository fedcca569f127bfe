"""A whole `runstream` in a process of its own, as root or as an ordinary user.

python -m tests.hostile.service_as UID WORDS…        the words of the command follow
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.hostile.executor_as import ROOT, become
from tests.service.running import RUNSTREAM


def main() -> None:
    """Become the user, and the command."""
    uid = int(sys.argv[1])
    if uid:
        become(uid, Path(sys.base_prefix), ROOT)
    os.execv(RUNSTREAM, [str(RUNSTREAM), *sys.argv[2:]])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
