"""When Python looks for garbage while a world runs: not at all.

A world makes few cycles and is garbage as a whole when it is over. To look for them while it runs costs time, the more
the larger it is.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collected_later"]


@contextmanager
def collected_later() -> Iterator[None]:
    """Nothing is collected before the end of the block, if anything was before it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
