"""References to images: `[DOMAIN[:PORT]/]PATH[:TAG][@DIGEST]`, the grammar of the OCI distribution.

Checked when a document is read, because a reference becomes a part of the engine's API paths: one with `..` in it would
be answered by another object than an image.
"""

import re

__all__ = ["IMAGE_FORM", "is_image_reference"]

IMAGE_FORM = "an image reference such as shop/database:15 (lower-case path, at most 255 characters)"

MAX_NAME_CHARACTERS = 255

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]{{2,45}}\])(?::[0-9]{{1,5}})?"
_WORD = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_WORD}(?:/{_WORD})*)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[a-z][a-z0-9]*(?:[+._-][a-z][a-z0-9]*)*:[0-9a-fA-F]{32,128})?"
)


def is_image_reference(text: str) -> bool:
    """Whether the engine can take `text` for the name of an image."""
    if len(text) > 2 * MAX_NAME_CHARACTERS + 128:
        return False
    match = _REFERENCE.fullmatch(text)
    return match is not None and len(match["name"]) <= MAX_NAME_CHARACTERS
