"""Reads, checks, scores, converts and shows YouTube-VIS files; does not need torch: `python -m ytvis`."""

from ytvis.files import InputError

__all__ = ["InputError"]
__version__ = "0.1.0"  # of STMask, too; setup.py and pyproject.toml read it here
