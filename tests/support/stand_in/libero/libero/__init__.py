"""Stands in for hf-libero where the processes around it are tested: a point that goes where it is sent."""
