"""Files of `secret` and `variable` commands: the texts of a secret, and the values of a variable, in YAML."""

from __future__ import annotations

from runstream.client import ConditionsView, NewVariableValue, PatternView, WhenView
from runstream.runconfig.cursor import Cursor
from runstream.runconfig.fields import Field, FieldTable
from runstream.runconfig.nodes import ScalarNode
from runstream.runconfig.problems import ConfigProblems
from runstream.runconfig.reading import read_nodes
from runstream.runconfig.when import Conditions, When, decode_when

_VALUE: FieldTable = {
    "secret_name": Field("text", "the name of a secret of this project or group, or of one above it", required=True),
    "secret_var": Field("text", "a key in the secret's data", required=True),
    "when": Field("when", "the branches, tags and refs that the value is for"),
}


def secret_data(text: str, source: str) -> dict[str, str]:
    """Return the texts of a secret, a map in YAML or JSON. Raises ConfigError with all problems."""
    top = _top(text, source)
    data: dict[str, str] = {}
    for key, place in top.entries():
        data[key] = place.strict_text() or ""
    if not data and not len(top.problems):
        top.error("a secret needs at least one text", "write lines such as `password: …`")
    top.problems.raise_if_any(source)
    return data


def variable_values(text: str, source: str) -> list[NewVariableValue]:
    """Return the values of a variable, a list in YAML or JSON. Raises ConfigError with all problems."""
    top = _top(text, source)
    values = [_value(place) for place in top.items()]
    if not values and not len(top.problems):
        top.error("a variable needs at least one value", "write entries with secret_name and secret_var")
    top.problems.raise_if_any(source)
    return values


def _top(text: str, source: str) -> Cursor:
    node = read_nodes(text, source)
    return Cursor(node or ScalarNode(1, "", "null", plain=True), "", ConfigProblems(), 1)


def _value(place: Cursor) -> NewVariableValue:
    fields = place.fields(_VALUE, strict=True)
    for name in ("secret_name", "secret_var"):
        if fields.found and fields.get(name) is None:
            place.error(f"{name} is missing", f"it is {_VALUE[name].about}")
    when = decode_when(fields)
    return NewVariableValue(
        fields.strict_text("secret_name"),
        fields.strict_text("secret_var"),
        None if when is None else _when(when),
    )


def _when(when: When) -> WhenView:
    return WhenView(*(None if one is None else _conditions(one) for one in (when.branch, when.tag, when.ref)))


def _conditions(conditions: Conditions) -> ConditionsView:
    include, exclude = (
        tuple(PatternView(pattern.kind, pattern.text) for pattern in those)
        for those in (conditions.include, conditions.exclude)
    )
    return ConditionsView(include, exclude)


def when_text(when: WhenView | None) -> str:
    """Return a condition in the short syntax, for people; `always` without one."""
    if when is None:
        return "always"
    parts = []
    for kind in ("branch", "tag", "ref"):
        conditions: ConditionsView | None = getattr(when, kind)
        if conditions is not None:
            names = [_pattern_text(one) for one in conditions.include or ()]
            names += [f"not {_pattern_text(one)}" for one in conditions.exclude or ()]
            parts.append(f"{kind} {', '.join(names)}")
    return "; ".join(parts) or "never"


def _pattern_text(pattern: PatternView) -> str:
    return f"/{pattern.match}/" if pattern.type == "regexp" else pattern.match
