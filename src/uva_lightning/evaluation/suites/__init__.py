"""Suites, one file each; they are found by their names without an edit elsewhere."""
