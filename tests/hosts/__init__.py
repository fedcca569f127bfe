"""The git hosts: fakes that are HTTP servers with real repositories, and one contract for all."""
