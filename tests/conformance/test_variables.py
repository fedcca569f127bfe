"""variables_test.json: which variables count, and which secret a value may use."""

from __future__ import annotations

from typing import Any

from runstream.runconfig.variables import Secret, Variable, VariableValue, matching_secret, nearest

from .cases import cases


@cases("variables_test.json", "filter_overridden_variables")
def test_the_nearest_variable_counts(case: dict[str, Any]) -> None:
    variables = [Variable(one["name"], one["parent_path"]) for one in case["variables"]]
    found = [{"name": one.name, "parent_path": one.parent_path} for one in nearest(variables)]
    assert found == case["expect"]["variables"]


@cases("variables_test.json", "get_var_value_matching_secret")
def test_the_secret_of_a_value(case: dict[str, Any]) -> None:
    value = VariableValue(case["var_value"]["secret_name"], case["var_value"]["secret_var"])
    secrets = [Secret(one["name"], {}, one["parent_path"]) for one in case["secrets"]]
    found = matching_secret(value, case["var_parent_path"], secrets)
    expected = case["expect"]["secret"]
    assert (found and {"name": found.name, "parent_path": found.parent_path}) == expected
