"""The logs of steps: live over NATS while the step runs, then an object; a reader notices no difference.

live = LiveLogs(nats, namespace)                  the executor's side: runstream.steplogs.live
await live.start()
log = live.log(executor_task, 0); log.write(b"..."); log.end()

logs = StepLogReader(nats, namespace, log, objects)    the reader's side: runstream.steplogs.reader
async for chunk in await logs.open(key, follow=True): ...
"""
