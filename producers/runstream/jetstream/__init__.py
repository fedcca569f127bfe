"""What the client library does not have: the raw JetStream API, pipelined publishing, pulling by callback."""
