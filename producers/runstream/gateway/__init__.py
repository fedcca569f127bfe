"""The gateway: the HTTP API below /api/v1alpha. It appends to the log and reads the projection; it has no state.

gateway = Gateway(settings, Backends(log, database, past, step_logs, shared, questions), telemetry)
await gateway.start()
"""
