"""The log: how commits are appended and read back."""
