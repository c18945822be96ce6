"""Removes the rigs that were made from this checkout, and what the project keeps in its state folder.

    python tools/clean.py             for `make clean`
    python tools/clean.py --images    the images, for `make clean-images`

Everything goes through the modules that prove ownership: files that the project did not write stay, and are named.
"""

import contextlib
import sys

from harness.errors import BlackstartError
from harness.rig.engine.connection import connect
from harness.rig.engine.own_files import remove_state, rendered_rigs
from harness.rig.engine.ownership import MADE_BASE, remove_tag
from harness.rig.images.build_context import EXAMPLES, GUEST, HYPERVISOR, find_project_root
from harness.rig.lifecycle.teardown import remove_rig


def main(arguments: list[str]) -> int:
    """Clean. Returns the exit code."""
    try:
        return _clean_images() if "--images" in arguments else _clean_state()
    except BlackstartError as error:
        print(f"clean: {error}", file=sys.stderr)
        return 1


def _clean_state() -> int:
    root = find_project_root()
    rigs = rendered_rigs(root)
    if rigs:
        with contextlib.closing(connect()) as client:
            for rig in rigs:
                remove_rig(client, rig, say=print)
    for left in remove_state(root):
        print(f"clean: left alone, because Blackstart did not write it: {left}")
    return 0


def _clean_images() -> int:
    with contextlib.closing(connect()) as client:
        for tag in (HYPERVISOR.tag, GUEST.tag, *(recipe.tag for recipe in EXAMPLES.values()), MADE_BASE):
            if remove_tag(client, tag):
                print(f"removed image {tag}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
