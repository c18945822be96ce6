"""The base image: Debian bookworm from wherever it can be had, an image registry being the least likely place.

Taken in this order: what the engine has, what a registry gives within a short limit, what mmdebstrap makes from
Debian's packages. It knows nothing of what is built on top.
"""

import os
import platform
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors
import requests

from harness.errors import EngineError, HarnessError
from harness.rig.engine.ownership import MADE_BASE

__all__ = ["MADE", "PULLED", "BaseImage", "Say", "architecture_of_engine", "ensure_base", "present_base"]

Say = Callable[[str], None]

PULLED = "debian:bookworm-slim"
MADE = MADE_BASE

PULL_SILENCE_LIMIT_S = 20.0
"""A registry that answers at all says something every few seconds."""
PULL_LIMIT_S = 120.0
INSTALL_LIMIT_S = 180.0
MAKE_LIMIT_S = 300.0
"""20 s where it was measured; a slow mirror is given fifteen times that."""

DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""The hosts for which Debian, and a wheel of every Python package, exist."""

SLIM = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """An image that the engine has: its tag and its id."""

    reference: str
    id: str


def present_base(client: docker.DockerClient) -> BaseImage | None:
    """The base that the engine has already; None when it must be pulled or made. Raises EngineError."""
    for reference in (PULLED, MADE):
        try:
            image = client.images.get(reference)
        except docker.errors.ImageNotFound:
            continue
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise EngineError(f"the engine did not say whether it has {reference}: {error}") from error
        return BaseImage(reference=reference, id=str(image.id))
    return None


def ensure_base(client: docker.DockerClient, *, say: Say) -> BaseImage:
    """The base that the engine has after this call; `say` gets a line for each step that takes time.

    Raises HarnessError when it is neither there nor can be pulled or made, with each refusal; EngineError.
    """
    base = present_base(client)
    if base is not None:
        return base
    say(f"no base image here: pulling {PULLED}")
    refusal = _pull(client)
    if refusal:
        say(f"no registry gave {PULLED} ({refusal}): making a base with mmdebstrap, about 20 s")
        _make(client, refusal=refusal, say=say)
    base = present_base(client)
    if base is None:
        raise HarnessError(f"the engine took a base image and does not have it: neither {PULLED} nor {MADE} exists")
    return base


def architecture_of_engine(client: docker.DockerClient) -> str:
    """What the kernel of the engine's host calls itself: x86_64 or aarch64. Raises HarnessError for others."""
    try:
        architecture = str(client.info()["Architecture"])
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise EngineError(f"the engine did not say what architecture it has: {error}") from error
    if architecture not in DEBIAN_ARCHITECTURES:
        known = " and ".join(DEBIAN_ARCHITECTURES)
        raise HarnessError(f"the engine runs on {architecture}; the images can be built for {known}")
    return architecture


def _pull(client: docker.DockerClient) -> str:
    """Pull `PULLED`; returns why it could not, or nothing.

    In a thread, because the engine may say nothing for minutes when no registry can be reached, and the client's own
    limit is meant for other calls. A pull that was given up goes on in the engine and does no harm.
    """
    lines: queue.Queue[str | None] = queue.Queue()
    refusals: list[str] = []

    def pull() -> None:
        repository, tag = PULLED.split(":")
        try:
            for part in client.api.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in part:
                    refusals.append(str(part["error"]))
                lines.put(str(part.get("status", "")))
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            refusals.append(str(getattr(error, "explanation", None) or error))
        lines.put(None)

    threading.Thread(target=pull, name="pull", daemon=True).start()
    started = time.monotonic()
    last = "nothing"
    while True:
        left_s = min(PULL_SILENCE_LIMIT_S, PULL_LIMIT_S - (time.monotonic() - started))
        try:
            line = lines.get(timeout=max(0.0, left_s))
        except queue.Empty:
            waited_s = time.monotonic() - started
            return f"waited {waited_s:.0f} s for the pull to get on, last saw: {last}"
        if line is None:
            return refusals[0] if refusals else ""
        last = line or last


def _make(client: docker.DockerClient, *, refusal: str, say: Say) -> None:
    tool = shutil.which("mmdebstrap") or _install_mmdebstrap(refusal=refusal, say=say)
    with tempfile.TemporaryDirectory(prefix="blackstart-base-") as directory:
        archive = Path(directory) / "base.tar"
        command = [
            tool,
            "--variant=minbase",
            "--components=main",
            f"--architectures={DEBIAN_ARCHITECTURES[architecture_of_engine(client)]}",
            '--aptopt=Acquire::Languages "none"',
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in SLIM),
            '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"',  # copies of this host's own
            "bookworm",
            str(archive),
        ]
        _run(command, limit_s=MAKE_LIMIT_S, purpose="to make a Debian base image")
        say(f"importing the base image as {MADE}")
        repository, tag = MADE.split(":")
        try:
            client.api.import_image_from_file(str(archive), repository=repository, tag=tag, changes=['CMD ["bash"]'])
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise EngineError(f"the engine did not import the base image {MADE}: {error}") from error


def _install_mmdebstrap(*, refusal: str, say: Say) -> str:
    """Install the tool where that is this process's to do; otherwise say what to do."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if not (os.geteuid() == 0 and family & {"debian", "ubuntu"} and shutil.which("apt-get")):
        raise HarnessError(
            f"no base image: the engine has neither {PULLED} nor {MADE}, pulling gave '{refusal}', and mmdebstrap is "
            f"not here to make one. Do one of: docker load of an image tagged {PULLED}; let the engine reach a "
            "registry; as root, apt-get install mmdebstrap (Debian, Ubuntu)"
        )
    say("installing mmdebstrap (apt-get install mmdebstrap)")
    install = [
        "apt-get",
        "-q",
        "-y",
        "install",
        "--no-install-recommends",
        "mmdebstrap",
        "debian-archive-keyring",
        "gpg",
    ]
    try:
        _run(install, limit_s=INSTALL_LIMIT_S, purpose="to install mmdebstrap")
    except HarnessError:
        _run(["apt-get", "-q", "update"], limit_s=INSTALL_LIMIT_S, purpose="to learn where mmdebstrap is")
        _run(install, limit_s=INSTALL_LIMIT_S, purpose="to install mmdebstrap")
    tool = shutil.which("mmdebstrap")
    if tool is None:
        raise HarnessError("apt-get installed mmdebstrap, and it is not on the PATH")
    return tool


def _run(command: list[str], *, limit_s: float, purpose: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"`{shown}`, run {purpose}, had not ended after {limit_s:g} s and was killed") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise HarnessError(f"`{shown}`, run {purpose}, failed with status {done.returncode}; it said last:\n{tail}")
