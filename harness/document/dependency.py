"""`depends-on`: an expression such as `[a] and ([b] or [c])` as an AND of ORs of resource names.

Only its form is judged here, and whether dependencies run in a circle; whether the resources exist is for the reader
who knows the line.
"""

import re
from collections.abc import Iterator, Mapping

__all__ = ["DEPENDENCY_FORM", "circle", "parse_dependency"]

DEPENDENCY_FORM = "resource names in brackets joined by and, alternatives in parentheses, as in [a] and ([b] or [c])"

Clauses = tuple[tuple[str, ...], ...]

MAX_CHARACTERS = 4096
"""A hundred names of the longest kind, with their words between them."""

_TOKEN = re.compile(r"\s*(?:\[(?P<name>[^\[\]]*)\]|(?P<word>and|or|\(|\)))", re.IGNORECASE)


def parse_dependency(text: str) -> Clauses:
    """Every tuple is one condition, met by any of its names. Raises ValueError, saying where, on another form."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text):,} characters, at most {MAX_CHARACTERS:,} are read; a list of names has no limit")
    tokens = _tokens(text)
    if not tokens:
        return ()
    clauses: list[tuple[str, ...]] = []
    position = 0
    while True:
        names, position = _condition(tokens, position)
        clauses.append(names)
        if position == len(tokens):
            return tuple(clauses)
        if tokens[position] != "and":
            raise ValueError(f"{tokens[position]!r} where `and` or the end was expected")
        position += 1


def circle(dependencies: Mapping[str, Clauses]) -> tuple[str, ...]:
    """The first circle found, its first name repeated at the end; empty when there is none. Linear, and without
    recursion: a chain of dependencies may be as long as a document.
    """
    finished: set[str] = set()
    for start in dependencies:
        trail: dict[str, Iterator[str]] = {}  # the names from `start` on, in order, with their providers still to visit
        name: str | None = start
        while name is not None:
            if name not in finished and name not in trail:
                trail[name] = iter([provider for clause in dependencies.get(name, ()) for provider in clause])
            elif name in trail:
                names = list(trail)
                return (*names[names.index(name) :], name)
            name = _next_provider(trail, finished)
    return ()


def _next_provider(trail: dict[str, Iterator[str]], finished: set[str]) -> str | None:
    """The next name to visit; names without a further provider leave the trail. None when the trail is empty."""
    while trail:
        last = next(reversed(trail))
        provider = next(trail[last], None)
        if provider is not None:
            return provider
        finished.add(last)
        del trail[last]
    return None


def _tokens(text: str) -> list[str]:
    """Names as `[name]`, words as they are."""
    tokens: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise ValueError(f"{stripped[position:].strip()[:60]!r} is neither a name in brackets nor and, or, ( or )")
        tokens.append(match["word"].lower() if match["word"] else f"[{match['name'].strip()}]")
        position = match.end()
    return tokens


def _condition(tokens: list[str], position: int) -> tuple[tuple[str, ...], int]:
    """One name, or alternatives; parentheses may be left out when they are the whole expression."""
    enclosed = tokens[position : position + 1] == ["("]
    position += enclosed
    names: list[str] = []
    while True:
        token = tokens[position] if position < len(tokens) else "the end"
        if not token.startswith("["):
            raise ValueError(f"{token} where a name in brackets was expected")
        if token == "[]":
            raise ValueError("an empty name")
        names.append(token[1:-1])
        position += 1
        if tokens[position : position + 1] != ["or"]:
            break
        position += 1
    if enclosed:
        if tokens[position : position + 1] != [")"]:
            raise ValueError("a parenthesis that is not closed, or `and` inside of one")
        position += 1
    elif len(names) > 1 and "and" in tokens:
        raise ValueError("`and` beside `or` without parentheses leaves open which binds first")
    return tuple(dict.fromkeys(names)), position
