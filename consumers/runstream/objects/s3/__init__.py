"""Objects in a bucket of AWS S3, MinIO, or another service that speaks its protocol.

location = parse_location("s3://bucket/prefix?endpoint=minio:9000&tls=off")      objects.s3.location
storage = await open_s3(location, keys)                                         objects.s3.opening

The bucket is made if it is missing. Nothing is imported here: a process with its objects on disk needs no client.
"""
