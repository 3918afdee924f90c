"""Run in a simulator's own environment: ``python -I path/to/simulators KIND FOLDER``.

The folder becomes a package by a name of its own, so that nothing of this environment is on the path there.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

NAME = "uva_simulators"


def main() -> None:
    """Serve."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]  # our libero.py is not LIBERO
    spec = importlib.util.spec_from_file_location(NAME, here / "__init__.py", submodule_search_locations=[str(here)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{here} is no package, expected the simulators of uva_lightning; install it again.")
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    importlib.import_module(f"{NAME}.worker").main(sys.argv[1:])


if __name__ == "__main__":
    main()
