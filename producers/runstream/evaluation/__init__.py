"""Configurations in every format: text is parsed, programs (jsonnet, starlark) are evaluated in a child process."""

from runstream.evaluation.files import FOLDERS, NAMES, SUFFIXES, ConfigName, candidates, parse_file
from runstream.evaluation.program import LIMITS, EvaluationError, EvaluationLimits, ProgramFormat, evaluate

__all__ = [
    "FOLDERS",
    "LIMITS",
    "NAMES",
    "SUFFIXES",
    "ConfigName",
    "EvaluationError",
    "EvaluationLimits",
    "ProgramFormat",
    "candidates",
    "evaluate",
    "parse_file",
]
