"""The form of names: one definition for rigs, nodes, groups and resources, wherever such a name comes from.

A name becomes part of container names, volume names, paths and filters of the engine. It therefore holds nothing that
any of these could read as more than a name.
"""

import re

from harness.errors import UsageError

__all__ = ["MAX_NAME_LENGTH", "NAME_FORM", "is_name"]

MAX_NAME_LENGTH = 32
"""Names are joined to name containers and volumes; three of this length stay far below every limit of the engine."""

NAME_FORM = f"lower-case letters, digits and inner hyphens, a letter first, at most {MAX_NAME_LENGTH} characters"
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


def is_name(value: object) -> bool:
    """Whether `value` may name a rig, node, group or resource."""
    return isinstance(value, str) and len(value) <= MAX_NAME_LENGTH and _NAME.fullmatch(value) is not None


def check_rig_name(name: object) -> str:
    """The name, if it may name a rig. Raises UsageError."""
    if not is_name(name):
        raise UsageError(f"the rig's name is {name!r}, expected {NAME_FORM}")
    return str(name)
