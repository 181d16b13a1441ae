"""Annotations of other tools to the YouTube-VIS format and back: `python -m ytvis convert --help`."""
