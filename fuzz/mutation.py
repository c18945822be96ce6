"""Mutations of text and bytes: small random edits of documents that are right, so that readers get far into them.

Two ways: edits of the text itself, which try the parser, and edits of the values in it, written again as YAML or JSON,
which try the readers behind the parser. A mutation depends on its random numbers alone.
"""

import copy
import json
import random
import re
from collections.abc import Sequence
from typing import Any

import yaml

__all__ = ["MAX_CHARACTERS", "mutated_bytes", "mutated_text", "mutated_values"]

MAX_CHARACTERS = 60_000
"""Of a mutated document: large enough for quadratic work to show, small enough for many documents a second."""

_EDITS = (1, 1, 1, 2, 4)
"""Of a document: after one, most of it is still right, and its readers get to the place of the edit."""

_FRAGMENTS = (
    *("{", "}", "[", "]", ":", ": ", "- ", ",", "&a ", "*a", "<<: *a", "? ", "| ", ">-\n", "!!", "%", "#", "---\n"),
    *("!!bool x", "!!int x", "!!null x", "!!binary a", "!!set {a}", "!!str [a]", "!a b", "!!python/object:os.system a"),
    *(".nan", "-.inf", "1e400", "0x_", "0b", "1:30", "2026-01-31", "~", "null", "true", "on", "=", "1_000", "0o7"),
    *('"\\ud800"', '"\\0"', '"\\e[2J"', '"\\U0FFFFFFF"', '"a\\nb: 1"', '"\\u202e"', "\x1b", "\x00", "\x85", "\u2028"),
    *("'", '"', "\\", "${x}", "${", "*", "?", "[[a]--b]", "(a|a)*b", "((((", "a{99999}", "(?=a)", "../x", "\ufeff"),
)
_PIECES = (b"[" * 20_000, b'{"a":' * 5000, b"\r\n", b"\x00", b"9" * 5000, b"\xff", b"NaN", b"\\ud800")
_NUMBERS = ("0", "-1", "1", "64", "65", "99999999999999999999", "1" + "0" * 309, "0x" + "f" * 4000, "0.5", "1e9")
_VALUES: Sequence[Any] = (
    *(None, True, False, 0, -1, 1, 65, 10**18, 10**30, 0.5, -0.0, 1e300, "", " ", "a", "node1", "web1", "10s", "-1s"),
    *("99999999h", "[a]", "([", "[a] or [b] and [c]", "${x}", "*", "[", "a\x1b[2J", "a\nb", "\u202ea", "x" * 5000, []),
    *({}, [[]], {"a": 1}, [1, 2], ["a", "a"], {"type": "regex", "pattern": "(a|a)*b"}, {"type": "range", "range": [2]}),
    *({"count": 3}, {"percentage": 50, "of": "*"}, {"owner-of": "web1"}, {"label": "node=node1"}, {"voter-of": "a"}),
)
_WORD = re.compile(r"[A-Za-z0-9_.-]+")


def mutated_text(rng: random.Random, text: str, others: Sequence[str]) -> str:
    """`text` after one to four edits; words and pieces of `others` come into it."""
    for _ in range(rng.choice(_EDITS)):
        text = _edited(rng, text, others)[:MAX_CHARACTERS]
    return text


def mutated_values(rng: random.Random, text: str, others: Sequence[str]) -> str:
    """The values of `text` after one to four edits, written again; text that is no YAML is edited as text."""
    try:
        data = yaml.safe_load(text)
        words = _WORD.findall(rng.choice(others))
        for _ in range(rng.choice(_EDITS)):
            data = _changed(rng, data, words)
        if rng.random() < 0.5:
            return json.dumps(data)[:MAX_CHARACTERS]
        return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))[:MAX_CHARACTERS]
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return mutated_text(rng, text, others)


def mutated_bytes(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """`data` after one to four edits."""
    for _ in range(rng.choice(_EDITS)):
        begin, end = _span(rng, len(data), 40)
        match rng.randrange(7):
            case 0:
                data = data[:begin] + data[end:]
            case 1:
                data = data[:end] + data[begin:end] * rng.choice((1, 2, 200)) + data[end:]
            case 2:
                data = data[:begin] + rng.randbytes(rng.randint(1, 8)) + data[end:]
            case 3:
                other = rng.choice(others)
                data = data[:begin] + other[slice(*_span(rng, len(other), 400))] + data[end:]
            case 4:
                data = data[:begin]
            case 5:
                data = data[:begin] + rng.choice(_PIECES) + data[begin:]
            case _:
                data = data[:begin] + rng.choice(_FRAGMENTS).encode() + data[end:]
    return data[: 4 * MAX_CHARACTERS]


def _span(rng: random.Random, length: int, most: int) -> tuple[int, int]:
    begin = rng.randint(0, length)
    return begin, min(length, begin + rng.randint(0, most))


def _edited(rng: random.Random, text: str, others: Sequence[str]) -> str:
    begin, end = _span(rng, len(text), 60)
    match rng.randrange(9):
        case 0:
            return text[:begin] + text[end:]
        case 1:
            return text[:end] + text[begin:end] * rng.choice((1, 2, 30, 1000)) + text[end:]
        case 2:
            return text[:begin] + rng.choice(_FRAGMENTS) + text[end if rng.random() < 0.5 else begin :]
        case 3:
            other = rng.choice(others)
            return text[:begin] + other[slice(*_span(rng, len(other), 400))] + text[end:]
        case 4:
            return text[:begin] + chr(rng.choice((rng.randrange(128), rng.randrange(0xD800), 0x1F600))) + text[begin:]
        case 5:
            return _line_moved(rng, text)
        case 6:
            return _word_replaced(rng, text, rng.choice(_NUMBERS))
        case 7:
            words = _WORD.findall(rng.choice(others)) or ["a"]
            return _word_replaced(rng, text, rng.choice(words))
        case _:
            return text[:begin] + rng.choice(_FRAGMENTS) * rng.choice((50, 2000)) + text[begin:]


def _word_replaced(rng: random.Random, text: str, word: str) -> str:
    found = list(_WORD.finditer(text))
    if not found:
        return text + word
    old = rng.choice(found)
    return text[: old.start()] + word + text[old.end() :]


def _line_moved(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    line = lines.pop(rng.randrange(len(lines)))
    lines.insert(rng.randint(0, len(lines)), " " * rng.choice((0, 0, 2, 4)) + line)
    return "\n".join(lines)


def _changed(rng: random.Random, data: Any, words: Sequence[str]) -> Any:
    """`data` with one edit somewhere in it."""
    places = list(_places(data))
    if not places:
        return copy.deepcopy(rng.choice(_VALUES))
    holder, key = rng.choice(places)
    new = rng.choice(words) if words and rng.random() < 0.4 else copy.deepcopy(rng.choice(_VALUES))
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(words) if words else "a"] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder += [holder[key]] * rng.choice((1, 3, 300))
        case 3:
            other, place = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[place])) if _is_there(other, place) else new
        case 4:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
        case _:
            holder[key] = new
    return data


def _is_there(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _places(data: Any) -> Any:
    """Every list or mapping with each of its keys."""
    open_ = [data]
    while open_:
        holder = open_.pop()
        if isinstance(holder, dict | list):
            for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
                yield holder, key
                open_.append(holder[key])
