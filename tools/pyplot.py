"""``matplotlib.pyplot``, which loads when it first draws, and draws into files: there may be no screen."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from runtime.lazy import LazyModule

__all__ = ['plt']


def _load(name: str) -> ModuleType:
    importlib.import_module('matplotlib').use('Agg')  # before pyplot chooses
    return importlib.import_module(name)


if TYPE_CHECKING:
    from matplotlib import pyplot as plt
else:
    plt = LazyModule('matplotlib.pyplot', _load)
