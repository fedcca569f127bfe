"""Imports of snapshots, and the epochs that they create.

An import loads a snapshot into the streams of a new epoch, which nothing reads yet, and builds its projection beside
the live one. One Postgres transaction then exchanges the projections and makes the new epoch current: before it, the
service has all of the old state; after it, all of the snapshot. The old epoch stays until an operator deletes it, and
going back to it is the same switch.
"""
