"""A simulator for tests of the processes around it; needs numpy alone."""

import time

from uva_simulators.wire import Refused


class Counter:
    """Adds numbers up."""

    def __init__(self, folder):
        self.folder = folder

    def make(self, task):
        if not task:
            raise Refused("There is no such task.")
        return {"task": task}, {}

    def step(self, action):
        return {"total": float(action.sum())}, {"doubled": 2 * action}

    def fail(self):
        return {"number": 1 / 0}, {}

    def chat(self):
        print("printed by the simulator")  # noqa: T201
        try:
            input("A question? ")
        except EOFError as error:
            return {"asked": type(error).__name__}, {}

    def hang(self):
        time.sleep(60)

    def _hidden(self):
        return {}, {}
