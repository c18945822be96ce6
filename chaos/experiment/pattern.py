"""Regular expressions of files: matched by RE2, in time linear in the text.

A backtracking engine can take years for one text, and cannot be interrupted meanwhile. A limit on time would make a
verdict depend on the load of the host; RE2 needs none. It has no look-around and no references to earlier groups: a
pattern that needs them is refused when the file is read. A match looks at text, so an answer that is no text is never
compared.
"""

import functools
import re
from typing import Any

__all__ = ["MAX_PATTERN_CHARACTERS", "found_in", "problem_of_pattern"]

MAX_PATTERN_CHARACTERS = 1_000
"""RE2 compiles a pattern of that length in milliseconds."""

_TOO_OFTEN = re.compile(r"\{[0-9]{0,4}(?:,[0-9]{5,}|[0-9]{5,})")
"""RE2 refuses a repetition of 1,001 times, and takes one of ten digits for plain text."""


def problem_of_pattern(pattern: str) -> str:
    """Why `pattern` is no regular expression here, empty when it is one."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"it has {len(pattern):,} characters, at most {MAX_PATTERN_CHARACTERS:,} are taken"
    import re2

    if _TOO_OFTEN.search(pattern):
        return "a repetition of more than 1,000 times"
    try:
        _compiled(pattern)
    except re2.error as error:
        (reason, *_) = error.args
        return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    except UnicodeEncodeError:
        return "it has characters that do not exist"
    return ""


def found_in(pattern: str, text: str) -> bool:
    """Whether `pattern` matches somewhere in `text`. Characters of `text` that do not exist match nothing."""
    return _compiled(pattern).search(text.encode("utf-8", "replace").decode("utf-8")) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    """Raises re2.error, UnicodeEncodeError."""
    # Imported where it is needed: the reaper reads no patterns, and the image of its container has no RE2.
    import re2

    options = re2.Options()
    options.log_errors = False  # RE2 would write them to standard error
    return re2.compile(pattern, options)
