"""Configurations in every format: text is parsed, programs (jsonnet, starlark) are evaluated in a child process."""
