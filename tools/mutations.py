"""Damaged copies of valid files: JSON values replaced, removed, repeated, and bytes changed, cut or inserted."""

import json
import random
from typing import Any

NOTHING = object()  # marks an item to be removed

# JSON text that json.dumps does not write, or only slowly.
RAW = {
    "NaN": "NaN",
    "infinity": "Infinity",
    "long integer": "9" * 5000,
    "large integer": "1" + "0" * 400,
    "large float": "1e400",
    "lone surrogate": '"\\ud800"',
    "deep list": "[" * 3000 + "]" * 3000,
    "repeated key": '{"id": 1, "id": 2}',
}
VALUES = (
    *(None, True, False, 0, 1, -1, 0.5, -0.0, 2**29, 2**31, 2**32, 2**63, 2**64, 10**9, -(10**9), 1e9, 1e308, 5e-324),
    *("", "0", "1", "x", "\0", "a\nb", "../../x", "/", "._x", "a" * 5000, "é" * 300, "b'abc'", "PPYo1"),
    *(
        [],
        {},
        [None],
        [[]],
        [0, 0, 0, 0],
        [1e9] * 6,
        [[0.0, 0.0, 1e9, 0.0, 1e9, 1e9]],
        {"size": [4, 4], "counts": [16]},
    ),
    *({"size": [10**9, 10**9], "counts": "PPYo1"}, {"size": [2, 2], "counts": [2**31, 2**31]}),
    *(
        {"size": [4, 4], "counts": [16]},
        {"size": [4, 4], "counts": "0@"},
        {"size": [0, 0], "counts": ""},
        {"size": [4], "counts": []},
    ),
)


def mutate_json(content: Any, rng: random.Random, changes: int = 1) -> str:
    """The JSON text of `content` with `changes` random values replaced, removed, repeated or moved."""
    content = json.loads(json.dumps(content))
    for _ in range(changes):
        containers = [item for item in _containers(content) if item]
        if not containers:
            break
        container = rng.choice(containers)
        key = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        kind = rng.randrange(6)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, list):
            container.insert(key, json.loads(json.dumps(container[key])))
        elif kind == 2 and isinstance(container, list):
            rng.shuffle(container)
        elif kind == 3:
            container[key] = f"<<{rng.choice(list(RAW))}>>"
        elif kind == 4 and isinstance(container[key], str) and container[key]:
            container[key] = mutate_text(container[key], rng)
        elif kind == 4 and isinstance(container[key], int | float):
            container[key] = container[key] * rng.choice((-1, 2, 1000, 2**40)) + rng.choice((0, 1, -1, 0.5))
        else:
            container[key] = rng.choice(VALUES)
    text = json.dumps(content)
    for name, raw in RAW.items():
        text = text.replace(f'"<<{name}>>"', raw)
    return text


def mutate_text(text: str, rng: random.Random) -> str:
    """`text` with one character changed, removed or repeated."""
    place = rng.randrange(len(text))
    return text[:place] + rng.choice(("", text[place] * 2, chr(rng.randrange(32, 127)))) + text[place + 1 :]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """`data` cut, with bytes changed, with a piece repeated or removed, or in another encoding."""
    kind = rng.randrange(6)
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    if kind == 0:
        return data[:last]
    if kind == 1:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 3, 20))):
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if kind == 2:
        return data[:first] + data[last:]
    if kind == 3:
        return data[:last] + data[first:]
    if kind == 4:
        return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\x1f\x8b")) + data
    try:
        return data.decode("utf-8").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))
    except UnicodeDecodeError:
        return data[first:last]


def _containers(value: Any):
    """`value` and everything in it that is a list or a dict."""
    if isinstance(value, list | dict):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _containers(item)
