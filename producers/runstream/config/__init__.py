"""The config service, from the writer's side: its state in memory, decisions that are appended, sealed secrets, tokens.

Start at `runstream.config.store`.
"""
