"""Importing snapshots, and the epochs that come of it.

An import loads a snapshot into the streams of a new epoch, which nobody reads, and makes the projection from it beside
the live one. Then one transaction of Postgres puts that projection in place and names the new epoch as the current one:
before it everything is as it was, after it everything is as in the snapshot. The old epoch stays until it is deleted by
hand, and going back to it is the same switch.
"""
