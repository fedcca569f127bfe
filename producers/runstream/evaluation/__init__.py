"""Configurations that are programs: jsonnet and starlark, evaluated where they can harm nobody."""

from runstream.evaluation.evaluation import LIMITS, EvaluationError, Limits, ProgramFormat, evaluate

__all__ = ["LIMITS", "EvaluationError", "Limits", "ProgramFormat", "evaluate"]
