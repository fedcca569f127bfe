"""Throughput, and the latency of a single run: `python -m benchmarks`, or `make bench`.

Everything real is switched on: validation, telemetry, optimistic concurrency, and an fsync before every append is
acknowledged. What the machine itself can do is measured in the same run, right beside it.
"""
