"""The log: append commits and read them back."""
