"""Takes up the tasks that are assigned to this machine, runs their steps and reports.

executor = make_executor(settings, nats, log, objects, leases)      # runstream.executor.executor
await executor.start()
await executor.stop()
"""
