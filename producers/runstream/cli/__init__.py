"""The client commands of `runstream`, a thin layer on the public Python client."""
