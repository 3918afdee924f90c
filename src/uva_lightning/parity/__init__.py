"""Agreement with the official code, number by number."""
