"""Snapshots: the log as one file, made of segments (`docs/formats/snapshot.md`).

Reading and verifying need neither NATS nor Postgres. Whatever is read is taken to be hostile: nothing of it is
believed before its hash was right, and nothing of it decides how much memory is used.
"""
