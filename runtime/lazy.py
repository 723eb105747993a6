"""A module that loads when something of it is first used: ``--help`` and errors of the command line need none of the
large packages.
"""

import importlib
import types
from typing import Any, Callable, List


class LazyModule(types.ModuleType):
    """Stands for the module ``name``: reading, setting and deleting an attribute load it. ``load(name)`` returns it."""

    def __init__(self, name: str, load: Callable[[str], types.ModuleType] = importlib.import_module) -> None:
        super().__init__(name)
        vars(self).update(_load=load, _module=None)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._loaded(), attribute)

    def __setattr__(self, attribute: str, value: Any) -> None:
        setattr(self._loaded(), attribute, value)

    def __delattr__(self, attribute: str) -> None:
        delattr(self._loaded(), attribute)

    def __dir__(self) -> List[str]:
        return dir(self._loaded())

    def _loaded(self) -> types.ModuleType:
        own = vars(self)
        if own['_module'] is None:
            own['_module'] = own['_load'](self.__name__)
        return own['_module']
