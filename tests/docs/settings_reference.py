"""The table in docs/reference/settings.md is generated from the settings: `python -m tests.docs.settings_reference`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args, get_origin

from runstream.settings import SETTINGS, Setting
from tests.docs.tables import DOCS

REFERENCE = DOCS / "settings.md"
_BEGIN = "| setting | option | environment | default | used by | |\n|---|---|---|---|---|---|\n"


def reference() -> str:
    """The whole page, with the table as it should be."""
    before, _, rest = REFERENCE.read_text().partition("| setting |")
    _, _, after = rest.partition("\n\n")
    return f"{before}{_BEGIN}{''.join(map(_row, SETTINGS.values()))}\n{after}"


def _row(setting: Setting) -> str:
    option = f"`{setting.option}`" if setting.group else "-"
    if setting.commands == "all":
        option = f"(`{setting.option}`)"
    default = f"`{setting.default_text}`" if setting.default_text else "none"
    cells = [f"`{setting.key}`", option, f"`{setting.variable}`", default, ", ".join(setting.components) or "all"]
    return f"| {' | '.join(cells)} | {_text(setting)} |\n"


def _text(setting: Setting) -> str:
    unit = f" In {setting.unit}." if setting.unit else ""
    page = Path(setting.page)
    link = page.name if page.parent.name == "reference" else f"../{page}"
    if get_origin(setting.kind) is Literal:
        unit = f" One of {', '.join(f'`{choice}`' for choice in get_args(setting.kind))}."
    see = f" See [{page.stem.replace('-', ' ')}]({link})." if setting.page else ""
    return f"{setting.help}{unit}{see}"


if __name__ == "__main__":
    REFERENCE.write_text(reference())
