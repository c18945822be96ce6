"""The Python packages of a node, as wheels for the image's Python, resolved outside the build.

It installs nothing: a build unpacks what this finds. A set of wheels is kept in `.blackstart/wheels`, under a name made
of the requirements, and is whole or absent.
"""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.errors import HarnessError
from harness.rig.engine.own_files import STATE, WHEELS, discard_directory, make_directory
from harness.rig.images.base_image import Say

__all__ = ["download_with_pip", "ensure_wheels"]

IMAGE_PYTHON = "3.11"
"""Of Debian bookworm, whatever Python the harness itself runs on."""
IMAGE_ABI = "cp311"
DOWNLOAD_LIMIT_S = 180.0

Download = Callable[[Path, str, Path], None]
"""Puts the wheels of a requirements file, for a architecture, into a directory."""


def download_with_pip(requirements: Path, architecture: str, directory: Path) -> None:
    """Let this interpreter's pip download the wheels. Raises HarnessError with what pip said last."""
    # --no-deps: pip would judge the dependencies by the Python that it runs on, not by the image's.
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
        *("--python-version", IMAGE_PYTHON, "--implementation", "cp", "--abi", IMAGE_ABI, "--abi", "none"),
        *("--platform", f"manylinux2014_{architecture}", "--platform", f"manylinux_2_28_{architecture}"),
        *("--dest", str(directory), "--requirement", str(requirements)),
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DOWNLOAD_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"pip had not downloaded {requirements} after {DOWNLOAD_LIMIT_S:g} s") from error
    if done.returncode != 0:
        advice = ""
        if "No module named pip" in done.stderr:
            advice = f"\nThis environment has no pip: run `{sys.executable} -m ensurepip`, then try again."
        tail = "\n".join(done.stderr.splitlines()[-10:])
        raise HarnessError(f"pip could not download the packages of {requirements}; it said last:\n{tail}{advice}")


def ensure_wheels(
    requirements: Path, *, architecture: str, project_root: Path, say: Say, download: Download = download_with_pip
) -> list[Path]:
    """The wheels of `requirements`, sorted by name; `say` gets a line when they must be downloaded first.

    Raises HarnessError when they cannot be had; nothing of a broken download is left behind.
    """
    key = hashlib.sha256(f"{IMAGE_PYTHON} {architecture}\n".encode() + requirements.read_bytes()).hexdigest()[:16]
    wanted = project_root / STATE / WHEELS / key
    if not wanted.is_dir():
        say("downloading the node's Python packages")
        cache = make_directory(project_root, WHEELS)
        partial = Path(tempfile.mkdtemp(prefix="partial-", dir=cache))
        try:
            download(requirements, architecture, partial)
            partial.rename(wanted)
        finally:
            discard_directory(partial)
    return sorted(wanted.glob("*.whl"))
