"""Users, organizations, projects, secrets and variables: one state for the whole service, and pure decisions on it.

A decision looks at the whole state (names, parents, owners), so it is valid for one position of the log only: the
writer appends it where the log still ends there. The events of a decision change several aggregates, in an order in
which every step leaves a valid state: parents are created before their children, and deleted after them.
"""
