"""The projection: the log folded into rows of Postgres, written in batches, checked and rebuilt."""
