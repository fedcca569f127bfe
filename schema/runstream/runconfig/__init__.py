"""The format of run configurations: parsed, checked and resolved for one ref. Pure: no I/O.

parsed = parse_config(text, "yaml", ".runstream/config.yml")       ConfigError names every problem
for run in run_configs(parsed, RefContext(ref_type="branch", branch="main", …), variables):
    if run.matches: publish(run.config, config_hash(run.config))
"""
