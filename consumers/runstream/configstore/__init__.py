"""The component `configstore`: it keeps the rows of users, projects and secrets in Postgres as their log says.

One process at a time does, the others stand by. Gateways do not need the rows: they have the state in memory.
"""
