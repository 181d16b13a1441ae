"""YouTube-VIS files and all that is done with files alone; imports no torch and works alone: `python -m ytvis`."""

from ytvis.files import InputError

__all__ = ["InputError"]
