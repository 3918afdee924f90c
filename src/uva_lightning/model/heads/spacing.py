"""Which of the training's noise levels a sampler visits, by the names that the official code uses."""

from __future__ import annotations

SECTIONS, STRIDE, SOLVER = ",", "ddim", "dpm"


KNOWN = "a whole number from 1 on, such as 100, or a spacing: 10,15,25, ddim20 or dpm16"


def number_of_steps(steps: int | str, process: str) -> int:
    """Read a plain number of steps.

    Args:
        steps: As given.
        process: Class of the denoiser, which knows no spacings.

    Raises:
        ValueError: It is none, or not positive.
    """
    if (count := _whole(str(steps).strip())) is None:
        spacing = str(steps).strip().startswith((STRIDE, SOLVER)) or SECTIONS in str(steps)
        what = f", a spacing for a diffusion head; this head uses {process}" if spacing else f" for {process}"
        raise ValueError(f"steps is '{steps}'{what}, expected a whole number from 1 on; give a number such as 10.")
    return count


def solves(steps: int | str) -> bool:
    """Tell whether steps name DPM-Solver, such as ``dpm16``."""
    return str(steps).strip().startswith(SOLVER)


def spaced(steps: int | str, levels: int, usable: int | None = None) -> list[int]:
    """Choose the noise levels of a sampler, increasing.

    Args:
        steps: ``100``: so many, evenly spaced, the first and the last among them; ``10,15,25``: so many in each of
            three equal sections; ``ddim20``: with an equal whole stride from the first on, as the DDIM paper;
            ``dpm16``: evenly spaced over the usable levels without the first, as DPM-Solver.
        levels: Levels of the training.
        usable: How many of them, from the first on, DPM-Solver may visit; all if not given.

    Raises:
        ValueError: Not one of these, or more steps than levels.
    """
    text = str(steps).replace(" ", "")
    if text.startswith(STRIDE):
        return _strided(_counted(text.removeprefix(STRIDE), steps), levels)
    if text.startswith(SOLVER):
        return _even(_counted(text.removeprefix(SOLVER), steps), usable or levels)
    counts = [_counted(part, steps) for part in text.split(SECTIONS)]
    if counts == [1]:
        return [levels - 1]  # the official code keeps level 0 alone, from which no sample can start
    sizes = [levels // len(counts) + (index < levels % len(counts)) for index in range(len(counts))]
    chosen, start = [], 0
    for count, size in zip(counts, sizes, strict=True):
        if count > size:
            raise ValueError(f"{count} denoising steps, expected 1 to {size} of {levels} levels in '{steps}'.")
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        chosen += [start + round(stride * step) for step in range(count)]
        start += size
    return chosen


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) else None


def _counted(part: str, steps: int | str) -> int:
    """Read a number within steps, and echo all of them where there is none."""
    if (count := _whole(part)) is None:
        raise ValueError(f"steps is '{steps}', expected {KNOWN}; give one of these.")
    return count


def _strided(count: int, levels: int) -> list[int]:
    for stride in range(1, levels):
        if len(range(0, levels, stride)) == count:
            return list(range(0, levels, stride))
    raise ValueError(f"ddim{count}: no whole stride gives {count} of {levels} levels; ddim10, ddim20 or ddim50 do.")


def _even(count: int, usable: int) -> list[int]:
    if count >= usable:
        raise ValueError(f"dpm{count}: {count} denoising steps, expected 1 to {usable - 1}; dpm10 to dpm20 are enough.")
    return [round(step * (usable - 1) / count) for step in range(1, count + 1)]
