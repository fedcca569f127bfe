"""What runs leave behind, and its end: objects that no run refers to any more."""
