"""What users do with runs: create, restart, act on them, and ask why they wait."""
