"""The routes below /api/v1alpha, one subject a file."""
