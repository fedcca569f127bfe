"""The format of run configurations: parsed, checked and resolved for one ref. Pure: no I/O.

parsed = parse_config(text, "yaml", ".runstream/config.yml")       ConfigError names every problem
for run in run_configs(parsed, RefContext(ref_type="branch", branch="main", …), variables):
    if run.matches: publish(run.config, config_hash(run.config))
"""

from runstream.runconfig.amounts import MAX_NANOSECONDS, format_duration, parse_duration
from runstream.runconfig.graph import ancestors, ancestors_of, check_graph, levels, with_levels
from runstream.runconfig.parse import MAX_PRIORITY, MAX_WAITING, ParsedConfig, RunSpec, notices, parse_config
from runstream.runconfig.problems import ConfigError, Problem
from runstream.runconfig.reading import Format
from runstream.runconfig.refs import (
    SKIP_MARKS,
    RefContext,
    config_context,
    counter_environment,
    ref_context,
    run_group,
    skip_mark,
    static_environment,
)
from runstream.runconfig.resolve import (
    ResolvedRun,
    canonical,
    config_hash,
    differing_tasks,
    require_fitting_environment,
    run_configs,
)
from runstream.runconfig.tasks import MAX_BACKOFF, MAX_RETRIES, REASONS, TaskSpec
from runstream.runconfig.variables import (
    LEAST_MASKED_BYTES,
    Inputs,
    Resolved,
    Secret,
    Variable,
    read_inputs,
    resolve,
)
from runstream.runconfig.when import match_when

__all__ = [
    "LEAST_MASKED_BYTES",
    "MAX_BACKOFF",
    "MAX_NANOSECONDS",
    "MAX_PRIORITY",
    "MAX_RETRIES",
    "MAX_WAITING",
    "REASONS",
    "SKIP_MARKS",
    "ConfigError",
    "Format",
    "Inputs",
    "ParsedConfig",
    "Problem",
    "RefContext",
    "Resolved",
    "ResolvedRun",
    "RunSpec",
    "Secret",
    "TaskSpec",
    "Variable",
    "ancestors",
    "ancestors_of",
    "canonical",
    "check_graph",
    "config_context",
    "config_hash",
    "counter_environment",
    "differing_tasks",
    "format_duration",
    "levels",
    "match_when",
    "notices",
    "parse_config",
    "parse_duration",
    "read_inputs",
    "ref_context",
    "require_fitting_environment",
    "resolve",
    "run_configs",
    "run_group",
    "skip_mark",
    "static_environment",
    "with_levels",
]
