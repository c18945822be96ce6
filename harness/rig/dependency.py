"""`depends-on`: an expression such as `[a] and ([b] or [c])` as an AND of ORs of resource names.

Only its form is judged here, and whether dependencies run in a circle; whether the resources exist is for the reader
who knows the line.
"""

import re
from collections.abc import Mapping

__all__ = ["DEPENDENCY_FORM", "circle", "parse_dependency"]

DEPENDENCY_FORM = "resource names in brackets joined by and, alternatives in parentheses, as in [a] and ([b] or [c])"

Clauses = tuple[tuple[str, ...], ...]

_TOKEN = re.compile(r"\s*(?:\[\s*(?P<name>[^\[\]]*?)\s*\]|(?P<word>and|or|\(|\)))", re.IGNORECASE)


def parse_dependency(text: str) -> Clauses:
    """Every tuple is one condition, met by any of its names. Raises ValueError, saying where, on another form."""
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
    """The first circle found, its first name repeated at the end; empty when there is none."""
    finished: set[str] = set()
    for start in dependencies:
        trail: list[str] = []
        found = _walk(start, dependencies, trail, finished)
        if found:
            return found
    return ()


def _walk(name: str, dependencies: Mapping[str, Clauses], trail: list[str], finished: set[str]) -> tuple[str, ...]:
    if name in trail:
        return (*trail[trail.index(name) :], name)
    if name in finished:
        return ()
    trail.append(name)
    for provider in (provider for clause in dependencies.get(name, ()) for provider in clause):
        found = _walk(provider, dependencies, trail, finished)
        if found:
            return found
    trail.pop()
    finished.add(name)
    return ()


def _tokens(text: str) -> list[str]:
    """Names as `[name]`, words as they are."""
    tokens: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise ValueError(f"{stripped[position:].strip()!r} is neither a name in brackets nor and, or, ( or )")
        tokens.append(match["word"].lower() if match["word"] else f"[{match['name']}]")
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
