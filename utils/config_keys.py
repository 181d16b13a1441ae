"""What a key of a config is and which values it takes, in the metadata of its dataclass field."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rule:
    """`holds(value)` for every value that a key may have; `text` completes "the key …"."""

    text: str
    holds: Callable[[Any], bool]


def numbers(value: Any) -> list:
    """The numbers of a number or of nested tuples of them."""
    return [number for item in value for number in numbers(item)] if isinstance(value, tuple) else [value]


POSITIVE = Rule("must be positive", lambda value: all(number > 0 for number in numbers(value)))
NOT_NEGATIVE = Rule("must not be negative", lambda value: value >= 0)
FRACTION = Rule("must be in 0…1", lambda value: 0 <= value <= 1)
ODD = Rule("must be odd: it is centred", lambda value: all(number % 2 for number in numbers(value)))
NOT_EMPTY = Rule("must hold at least one entry", lambda value: value != ())
PYRAMID = Rule("must be empty or hold one entry for each of P3…P7", lambda value: len(value) in (0, 5))
ANGLE = Rule("must be at least 0 and less than 90 degrees", lambda value: 0 <= value < 90)
RISING = Rule("must not be lower at its end than at its start", lambda value: value[0] <= value[1])


def key(default: Any, meaning: str, *rules: Rule) -> Any:
    """A dataclass field that is a key of the config: its default, what it is, and the rules of its values."""
    return field(default=default, metadata={"meaning": meaning, "rules": rules})
