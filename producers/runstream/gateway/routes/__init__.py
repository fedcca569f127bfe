"""The routes below /api/v1alpha, a file for each subject."""
