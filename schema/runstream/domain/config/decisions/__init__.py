"""Decisions on requests, one file for each kind of thing: what changes, or the error with its code and a hint.

A decision takes the state, and everything that it cannot compute: ids, sealed texts, digests, the time. It changes
nothing. It can be made again on a newer state.
"""
