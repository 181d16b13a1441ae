"""Annotations of other tools to the YouTube-VIS format and back: `python -m data.convert --help`."""
