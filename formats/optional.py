"""Packages that only some file formats and runtimes need."""

import importlib
from types import ModuleType

from runtime.errors import MissingDependencyError


def optional_module(module: str, package: str, name: str = '') -> ModuleType:
    """Import ``module``, which needs ``package``, as pip calls it; people call it ``name``. Raises
    MissingDependencyError, which says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError(f'{name or package} is not installed: pip install {package}') from None
