"""Reads, checks, scores, converts and shows YouTube-VIS files; does not need torch: `python -m ytvis`."""

from ytvis.files import InputError

__all__ = ["InputError"]
