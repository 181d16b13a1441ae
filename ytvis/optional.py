"""Libraries that only some need: imported where they are used, and missed in one line."""

import importlib
from types import ModuleType

from ytvis.files import InputError


def import_extra(name: str) -> ModuleType:
    """The module `name`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"{name} is not installed: pip install {name}") from None
