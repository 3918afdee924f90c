"""Callbacks of the trainer, one concern per file."""
