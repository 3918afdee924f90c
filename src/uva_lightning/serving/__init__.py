"""Policies over a network: server, client, and how the actions of a distant policy are run."""
