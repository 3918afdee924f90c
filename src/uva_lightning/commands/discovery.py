"""Import what a config may name, so that short class names work and a new file is found without an edit."""

import importlib
import pkgutil
from importlib.metadata import entry_points

from uva_lightning.commands.errors import UserError
from uva_lightning.commands.extras import install_command

PACKAGES = (
    "objectives",
    "datamodules",
    "model.heads",
    "model.tokenizers",
    "callbacks",
    "strategies",
    "balancers",
    "robot.benches",
)
MODULES = ("curriculum", "learning_progress", "ramp")
GROUP = "uva_lightning.objectives"


def import_components() -> dict[str, str]:
    """Import every class that a config may name by its short name, and the objectives of other packages.

    Returns:
        Modules left out because they need an extra that is not installed, each with the fix.
    """
    left_out: dict[str, str] = {}
    for name in MODULES:
        importlib.import_module(f"uva_lightning.{name}")
    for name in PACKAGES:
        package = importlib.import_module(f"uva_lightning.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if error.name is None or error.name.startswith("uva_lightning"):
                    raise
                left_out[module.name] = f"needs {error.name}: {install_command(error.name)}"
    load_entry_points()
    return left_out


def load_entry_points() -> None:
    """Import the objectives that installed packages offer.

    Raises:
        UserError: One of them cannot be imported.
    """
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            package = point.dist.name if point.dist else "unknown"
            raise UserError(
                f"Objective '{point.name}' of package '{package}' cannot be imported from {point.value} "
                f"({type(error).__name__}: {error}); mend it or run: pip uninstall {package}"
            ) from error
