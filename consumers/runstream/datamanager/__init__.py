"""The archive: a copy of the log in object storage, at most seconds behind, from which a lost log is restored.

`docs/explanation/datamanager.md` says what it guarantees, and why.
"""
