"""What a training has logged of its episodes on an arm."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def scalars(folder):
    accumulator = EventAccumulator(str(folder / "run"), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    names = [name for name in accumulator.Tags()["scalars"] if name.startswith("hardware/")]
    return {name: [(entry.step, entry.value) for entry in accumulator.Scalars(name)] for name in names}
