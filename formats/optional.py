"""Packages that only some file formats need."""

import importlib
from types import ModuleType

from runtime.errors import MissingDependencyError


def optional_module(module: str, package: str) -> ModuleType:
    """Import ``module`` of ``package``. Raises MissingDependencyError, which says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError(f'{package} is not installed: pip install {package}') from None
