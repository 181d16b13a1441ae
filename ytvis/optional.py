"""Imports modules that may be missing: optional libraries and the native kernels."""

import importlib
import logging
from types import ModuleType

from ytvis.files import InputError

logger = logging.getLogger(__name__)


def import_extra(name: str, package: str | None = None) -> ModuleType:
    """Imports the module `name`, which `package` brings, by default one of the same name.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = package or name
        raise InputError(f"{package} is not installed: pip install {package}") from None


def import_native(name: str, *functions: str) -> ModuleType | None:
    """The compiled module `name`; None if it is not compiled, or from an older source that lacks one of `functions`."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    if not all(hasattr(module, function) for function in functions):
        logger.warning("%s was compiled from an older source and is not used: install the package again", name)
        return None
    return module
