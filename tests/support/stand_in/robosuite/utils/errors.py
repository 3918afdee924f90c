class RandomizationError(Exception):
    pass
