"""Pods of containers of a Docker Engine, or of one with the same API."""
