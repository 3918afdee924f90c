"""Which parts of an experiment matter: the same model trained without each of them, and measured alike."""
