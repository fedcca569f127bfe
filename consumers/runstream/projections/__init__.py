"""What the log says, as rows of Postgres: folded, written in batches, compared, rebuilt."""
