"""Checks of a data set, one class each; a new one is a class here or in any imported module."""
