"""Extensions of nats-py: the raw JetStream API, pipelined publishing, pulling by callback, failover."""
