"""What nats-py lacks: the raw JetStream API, pipelined publishing, pulling by callback, failover."""
