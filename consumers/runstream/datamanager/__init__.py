"""The archive: the log in object storage, at most some seconds behind, from which a lost log is restored.

What holds, and why, is in `docs/explanation/datamanager.md`.
"""
