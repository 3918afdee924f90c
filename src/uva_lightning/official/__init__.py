"""Checkpoints of the official code: read without running anything in them, renamed, and written again."""
