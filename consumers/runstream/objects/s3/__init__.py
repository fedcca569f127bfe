"""Objects in a bucket of AWS S3, MinIO, or another service that speaks its protocol.

location = parse_location("s3://bucket/prefix?endpoint=minio:9000&tls=off")      objects.s3.location
storage = await open_s3(location, keys)                                         objects.s3.opening

The bucket is made if it is missing. Processes that use it run on uvloop: with asyncio's own loop the client's threads
may still hold the interpreter when it ends, and abort it.

Nothing is imported here: a process with its objects on disk needs no client.
"""
