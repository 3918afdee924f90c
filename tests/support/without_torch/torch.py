"""Stands where torch would: LeRobot names its types when it is imported; its robots and cameras call nothing of it."""


class Tensor:
    """What `isinstance` and annotations ask for."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
