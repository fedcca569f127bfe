"""Users' operations on runs: create, restart, act on them, and ask why they wait."""
