"""Text of guests, logs and files as it may be shown: what could confuse a reader or break a format is made visible.

It does not escape: each format does that by its own rules. It takes out what no format can carry (control characters,
halves of surrogate pairs) and what turns the direction of a line, so that a name cannot look like another.
"""

import re

__all__ = ["LINE_LIMIT", "cut", "shown"]

LINE_LIMIT = 600
"""Characters of one message: what the longest message of the cluster itself needs is a third of this."""

_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def shown(text: object) -> str:
    """`text` with a replacement character for each character that is not for showing; newlines and tabs stay."""
    return _UNFIT.sub(REPLACEMENT, str(text))


def cut(text: object, limit: int = LINE_LIMIT) -> str:
    """`shown`, and no longer than `limit` characters: the number of those that are missing is said."""
    whole = shown(text)
    if len(whole) <= limit:
        return whole
    return f"{whole[:limit]}... ({len(whole) - limit} more characters)"
