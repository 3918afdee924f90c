"""Where episodes are run: one bench per file, found by its class name in a config."""
