"""Measures, with their uncertainty."""
