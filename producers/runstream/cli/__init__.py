"""The client commands of `runstream`: thin, on top of the public Python client."""
