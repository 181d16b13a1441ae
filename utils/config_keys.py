"""The meaning of a config key and the rules of its values, in the metadata of its dataclass field."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_COUNT = 2**31 - 1


@dataclass(frozen=True)
class Rule:
    """A rule of a key's values: `holds(value)` is True for valid ones; `text` completes "the key …"."""

    text: str
    holds: Callable[[Any], bool]


def numbers(value: Any) -> list:
    """The numbers in a number or in nested tuples of numbers."""
    return [number for item in value for number in numbers(item)] if isinstance(value, tuple) else [value]


def between(least: float, most: float = MAX_COUNT) -> Rule:
    """The rule that each number of a key is in `least`…`most`, by default the greatest count that exported networks,
    which compute with int32, can hold."""
    return Rule(f"must be in {least}…{most}", lambda value: all(least <= number <= most for number in numbers(value)))


POSITIVE = Rule("must be positive", lambda value: all(number > 0 for number in numbers(value)))
NOT_NEGATIVE = Rule("must not be negative", lambda value: value >= 0)
FRACTION = between(0, 1)
ODD = Rule("must be odd, as it is centred", lambda value: all(number % 2 for number in numbers(value)))
NOT_EMPTY = Rule("must have at least one entry", lambda value: value != ())
PYRAMID = Rule("must be empty or have one entry for each of P3…P7", lambda value: len(value) in (0, 5))
ANGLE = Rule("must be at least 0 and less than 90 degrees", lambda value: 0 <= value < 90)
RISING = Rule("must not decrease from its first number to its last", lambda value: value[0] <= value[1])


def key(default: Any, meaning: str, *rules: Rule) -> Any:
    """Returns a dataclass field that is a key of the config: its default, its meaning, and the rules of its values."""
    return field(default=default, metadata={"meaning": meaning, "rules": rules})
