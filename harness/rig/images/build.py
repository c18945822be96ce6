"""The rig's two images and the examples': built when something that they are made of has changed, recognised by a label
otherwise.

It is not a general builder: it knows the hypervisor's and the guest's image, builds them with the legacy builder that
every engine has, and needs no image registry. Where the base comes from is in `base_image`, what goes into a build in
`build_context`.
"""

import contextlib
import enum
import fcntl
import io
import textwrap
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors
import requests
from docker.models.images import Image as EngineImage

from harness.errors import EngineError, HarnessError, WaitTimeout
from harness.rig.engine.own_files import LOCK, STATE, open_lock
from harness.rig.engine.ownership import IMAGE_LABEL, remove_image
from harness.rig.images.base_image import BaseImage, Say, architecture_of_engine, ensure_base, present_base
from harness.rig.images.build_context import (
    EXAMPLES,
    GUEST,
    HYPERVISOR,
    Recipe,
    context_digest,
    find_project_root,
    pack_context,
)
from harness.rig.images.wheels import ensure_wheels

__all__ = [
    "Image",
    "ImageState",
    "ImageStatus",
    "Images",
    "ensure_example",
    "ensure_images",
    "find_project_root",
    "image_status",
]

CONTEXT_LABEL = IMAGE_LABEL
BASE_LABEL = "io.blackstart.base"

BUILD_LIMIT_S = 600.0
"""25 s where it was measured; a slow mirror is given more than twenty times that."""
BUILD_SILENCE_LIMIT_S = 120
LOCK_LIMIT_S = 900.0
LOCK_LOOK_INTERVAL_S = 0.2
TAIL_LINES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A built image: tag, engine's id, and the digest of what it was built from."""

    tag: str
    id: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Both images of a rig."""

    hypervisor: Image
    guest: Image


class ImageState(enum.Enum):
    """How an image stands to its sources."""

    CURRENT = "built from what is here"
    STALE = "built from something else"
    MISSING = "not built"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStatus:
    """What the engine has under an image's tag; `id` is empty when it has nothing."""

    tag: str
    state: ImageState
    id: str


def ensure_images(client: docker.DockerClient, *, project_root: Path, say: Say) -> Images:
    """Both images as the sources in `project_root` make them; builds what is missing or stale.

    `say` gets one line for each step that takes time, none when nothing has changed. Two processes that call this at
    once build once. Raises HarnessError for a build that fails (with the last lines of its output), EngineError,
    WaitTimeout.
    """
    current = _current_images(client, project_root)
    if current is not None:
        return current
    with _lock(project_root, say=say):
        current = _current_images(client, project_root)  # another process may have built them meanwhile
        if current is not None:
            return current
        base = ensure_base(client, say=say)
        architecture = architecture_of_engine(client)
        # The guest first: what both have in common is built there.
        guest = _ensure(client, GUEST, project_root=project_root, architecture=architecture, base=base, say=say)
        hypervisor = _ensure(
            client, HYPERVISOR, project_root=project_root, architecture=architecture, base=base, say=say
        )
        return Images(hypervisor=hypervisor, guest=guest)


def ensure_example(client: docker.DockerClient, name: str, *, project_root: Path, say: Say) -> Image:
    """The image of an example of `EXAMPLES`, like those of `ensure_images`. It needs Debian's packages."""
    with _lock(project_root, say=say):
        base = ensure_base(client, say=say)
        architecture = architecture_of_engine(client)
        return _ensure(client, EXAMPLES[name], project_root=project_root, architecture=architecture, base=base, say=say)


def image_status(client: docker.DockerClient, *, project_root: Path) -> tuple[ImageStatus, ImageStatus]:
    """The hypervisor's and the guest's image as they stand; builds, pulls and downloads nothing. Raises EngineError."""
    architecture = architecture_of_engine(client)
    base = present_base(client)
    hypervisor, guest = (
        _status(_find(client, recipe.tag), recipe, project_root=project_root, architecture=architecture, base=base)
        for recipe in (HYPERVISOR, GUEST)
    )
    return hypervisor, guest


def _current_images(client: docker.DockerClient, project_root: Path) -> Images | None:
    statuses = image_status(client, project_root=project_root)
    if any(status.state is not ImageState.CURRENT for status in statuses):
        return None
    hypervisor, guest = (_as_built(client, status.tag) for status in statuses)
    return Images(hypervisor=hypervisor, guest=guest)


def _status(
    image: EngineImage | None, recipe: Recipe, *, project_root: Path, architecture: str, base: BaseImage | None
) -> ImageStatus:
    if image is None:
        return ImageStatus(tag=recipe.tag, state=ImageState.MISSING, id="")
    # An image that was loaded from an archive comes without its base: then the base it names counts.
    base_id = base.id if base is not None else image.labels.get(BASE_LABEL, "")
    digest = context_digest(recipe, project_root=project_root, architecture=architecture, base_id=base_id)
    state = ImageState.CURRENT if image.labels.get(CONTEXT_LABEL) == digest else ImageState.STALE
    return ImageStatus(tag=recipe.tag, state=state, id=str(image.id))


def _ensure(
    client: docker.DockerClient, recipe: Recipe, *, project_root: Path, architecture: str, base: BaseImage, say: Say
) -> Image:
    replaced = _find(client, recipe.tag)
    status = _status(replaced, recipe, project_root=project_root, architecture=architecture, base=base)
    if status.state is ImageState.CURRENT:
        return _as_built(client, recipe.tag)
    started = time.monotonic()
    say(f"building {recipe.tag} on {base.reference}")
    digest = context_digest(recipe, project_root=project_root, architecture=architecture, base_id=base.id)
    wheels = []
    if recipe.with_harness:
        requirements = recipe.sources(project_root) / "requirements.txt"
        wheels = ensure_wheels(requirements, architecture=architecture, project_root=project_root, say=say)
    context = pack_context(recipe, project_root=project_root, wheels=wheels)
    _build(client, recipe, context=context, digest=digest, base=base, say=say)
    built = _as_built(client, recipe.tag)
    if built.digest != digest:
        raise HarnessError(
            f"{recipe.tag} was built and carries another {CONTEXT_LABEL}: was it built elsewhere at once?"
        )
    say(f"built {recipe.tag} in {time.monotonic() - started:.1f} s")
    if replaced is not None and replaced.id != built.id:
        # Or each change of a source would leave an image without a name. It stays while containers need it.
        with contextlib.suppress(EngineError):
            remove_image(client, str(replaced.id))
    return built


def _build(
    client: docker.DockerClient, recipe: Recipe, *, context: bytes, digest: str, base: BaseImage, say: Say
) -> None:
    deadline = time.monotonic() + BUILD_LIMIT_S
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        for part in client.api.build(
            fileobj=io.BytesIO(context),
            custom_context=True,
            tag=recipe.tag,
            buildargs={"BASE": base.reference, "BASE_ID": base.id},
            labels={CONTEXT_LABEL: digest},
            rm=True,
            forcerm=True,
            decode=True,
            timeout=BUILD_SILENCE_LIMIT_S,
        ):
            text = str(part.get("stream") or part.get("status") or "").rstrip()
            tail.extend(text.splitlines())
            if text.startswith("Step "):
                say(textwrap.shorten(f"{recipe.directory}: {text}", width=100, placeholder=" ..."))
            if "error" in part:
                output = "\n".join(tail)
                raise HarnessError(f"building {recipe.tag} failed: {part['error']}; its last output:\n{output}")
            if time.monotonic() > deadline:
                saw = tail[-1] if tail else "nothing"
                raise WaitTimeout(waited_for=f"the build of {recipe.tag}", saw=saw, limit_s=BUILD_LIMIT_S)
    except (docker.errors.DockerException, requests.RequestException) as error:
        output = "\n".join(tail)
        raise EngineError(
            f"the engine broke off the build of {recipe.tag}: {error}; its last output:\n{output}"
        ) from error


def _find(client: docker.DockerClient, tag: str) -> EngineImage | None:
    try:
        return client.images.get(tag)
    except docker.errors.ImageNotFound:
        return None
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise EngineError(f"the engine did not say whether it has {tag}: {error}") from error


def _as_built(client: docker.DockerClient, tag: str) -> Image:
    image = _find(client, tag)
    if image is None:
        raise HarnessError(f"{tag} has just been there and is gone: somebody else removes images of this engine")
    return Image(tag=tag, id=str(image.id), digest=image.labels.get(CONTEXT_LABEL, ""))


@contextlib.contextmanager
def _lock(project_root: Path, *, say: Say) -> Iterator[None]:
    """Held by one process of this checkout at a time; let go by the kernel when it dies."""
    deadline = time.monotonic() + LOCK_LIMIT_S
    with open_lock(project_root, LOCK) as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise WaitTimeout(
                        waited_for=f"another process that builds the images ({STATE}/{LOCK})",
                        saw="it still holds the lock",
                        limit_s=LOCK_LIMIT_S,
                    ) from None
            if not told:
                say("another process builds the images: waiting for it")
                told = True
            time.sleep(LOCK_LOOK_INTERVAL_S)  # flock with a limit does not exist
        yield
