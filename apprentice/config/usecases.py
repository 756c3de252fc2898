"""Finds the class of a use case by the name in `environment.use`, and the files that determine its results."""

import difflib
import sys
import traceback
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from apprentice.config.schema import DataConfig, EnvironmentConfig
from apprentice.errors import ApprenticeError

GROUP = "apprentice.usecases"
"""Group of entry points through which an installed package offers use cases."""
PARTS = ("usecase", "source", "source_program", "environment", "environment_program", "metrics")
"""Parts of a use case's code that DVC watches: the class, the data source, the episodes, and the metrics.
A program is code that the source or the environment runs as a process in a separate virtual environment."""
WHERE = "environment.use"


def shipped() -> dict[str, str]:
    """Return the use cases in this package: name -> `module:Class`."""
    return import_module("apprentice.usecases").SHIPPED


@cache
def find_use_case(name: str) -> Any:
    """Return the class of a use case (`apprentice.environments.usecase.UseCase`).

    Args:
        name: a shipped use case, `package.module:Class`, or an entry point of the group `apprentice.usecases`.

    Raises:
        ApprenticeError: no use case has that name, its module cannot be imported, or the class is not a use case.
    """
    installed = {point.name: point.value for point in entry_points(group=GROUP)}
    known = installed | shipped()
    target = name if ":" in name else known.get(name)
    if target is None:
        close = difflib.get_close_matches(name, known, n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        todo = f"choose one of {', '.join(known)}, or write package.module:Class"
        raise ApprenticeError(f"there is no use case {name!r}{guess}", where=WHERE, todo=todo)
    module, _, attribute = target.partition(":")
    found = getattr(_imported(module), attribute, None)
    if found is None:
        raise ApprenticeError(f"the module {module!r} has no class {attribute!r}", where=WHERE, todo="write package.module:Class")
    sections = ((getattr(found, "environment_config", None), EnvironmentConfig), (getattr(found, "data_config", None), DataConfig))
    if not all(isinstance(section, type) and issubclass(section, base) for section, base in sections):
        raise ApprenticeError(f"{target!r} is not a use case", where=WHERE, todo="derive it from apprentice.environments.usecase.UseCase")
    return found


def watched_code(name: str, root: Path = Path()) -> dict[str, str]:
    """Return the file or folder of each part in `PARTS`: relative to `root` if it is inside, otherwise absolute.

    A program that the use case does not declare defaults to the part that would run it. Any other part defaults to the
    package of the class, or to its file if the module belongs to no package.

    Raises:
        ApprenticeError: see `find_use_case`.
    """
    found = find_use_case(name)
    module = sys.modules[found.__module__]
    file = Path(module.__file__).resolve()
    own = file.parent if module.__package__ else file
    named = {part: (file.parent / path).resolve() for part, path in found.code.items()}
    paths = {part: named.get(part) or named.get(part.removesuffix("_program"), own) for part in PARTS}
    project = root.resolve()
    return {part: (path.relative_to(project) if path.is_relative_to(project) else path).as_posix() for part, path in paths.items()}


def _imported(module: str) -> Any:
    """Import the module; the project's folder is searched too, as under `python -m`."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            todo = "write package.module:Class with a module in the project's folder or an installed one"
            raise ApprenticeError(f"there is no module {error.name!r}", where=WHERE, todo=todo) from None
        raise _unusable(module, error) from None
    except Exception as error:
        raise _unusable(module, error) from None


def _unusable(module: str, error: Exception) -> ApprenticeError:
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}:{last.lineno}"
    what = f"the module {module!r} of the use case cannot be imported: {type(error).__name__}: {error}"
    return ApprenticeError(what, where=place, todo="fix this line")
