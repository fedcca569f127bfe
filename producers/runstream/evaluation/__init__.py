"""Configurations in every format: texts are read, programs (jsonnet, starlark) evaluated where they harm nobody."""

from runstream.evaluation.evaluation import LIMITS, EvaluationError, Limits, ProgramFormat, evaluate
from runstream.evaluation.files import FOLDERS, NAMES, SUFFIXES, ConfigName, candidates, parse_file

__all__ = [
    "FOLDERS",
    "LIMITS",
    "NAMES",
    "SUFFIXES",
    "ConfigName",
    "EvaluationError",
    "Limits",
    "ProgramFormat",
    "candidates",
    "evaluate",
    "parse_file",
]
