"""What runs in a VM, as far as others must know: where it answers, when it is ready, whether it is the guest's
own program.

Records, and the texts that stand for them in a resource's properties. Nothing here asks a VM anything.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.model.serialization import from_json_value
from harness.model.topology import SECOND_US

__all__ = [
    "GUEST_ENDPOINT",
    "GUEST_IMAGE",
    "VM_PORT",
    "Endpoint",
    "Readiness",
    "answers_on",
    "readiness",
    "runs_guest",
]

GUEST_IMAGE = "blackstart/guest"
VM_PORT = 8080
"""Where the guest's program answers, and what every VM is told in BLACKSTART_PORT."""

_ENDPOINT = re.compile(r"(tcp|http):([0-9]{1,5})(/.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a VM answers on its address: a connection to `port`, or, with a `path`, a GET of that path there."""

    port: int
    path: str = ""

    def __str__(self) -> str:
        return f"http:{self.port}{self.path}" if self.path else f"tcp:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """What `str` wrote. Raises ValueError."""
        match = _ENDPOINT.fullmatch(text)
        if match is None or (match[1] == "http") != bool(match[3]):
            raise ValueError(f"{text!r} is neither tcp:PORT nor http:PORT/PATH")
        return cls(port=int(match[2]), path=match[3] or "")


GUEST_ENDPOINT = Endpoint(port=VM_PORT, path="/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """How it is asked whether a VM is ready: an `endpoint` (`Endpoint` as text) or a `command` inside of it whose
    status is 0, one of the two.

    Asked every `interval_us` until it is; each answer may take `timeout_us`. `liveness`: a VM that is Online and
    ceases to be ready has failed; else that is only told.
    """

    endpoint: str = ""
    command: tuple[str, ...] = ()
    interval_us: int = SECOND_US // 2
    timeout_us: int = 2 * SECOND_US
    liveness: bool = False


def readiness(properties: Mapping[str, str]) -> Readiness | None:
    """A VM's readiness check; None when it has none. Raises ValueError for a text that is something else."""
    text = properties.get("readiness", "")
    if not text:
        return None
    check = from_json_value(Readiness, json.loads(text))
    if bool(check.endpoint) == bool(check.command):
        raise ValueError("either an endpoint or a command is expected")
    if check.endpoint:
        Endpoint.parse(check.endpoint)
    return check


def answers_on(properties: Mapping[str, str]) -> Endpoint | None:
    """Where a client outside may ask whether the VM answers; None when nobody knows a way, or it has no address.

    What the document says, else what the readiness check asks, else the guest's own port. Raises ValueError.
    """
    if not properties.get("address"):
        return None
    text = properties.get("answers-on", "")
    check = readiness(properties)
    if not text and check is not None:
        text = check.endpoint
    if text:
        return Endpoint.parse(text)
    return GUEST_ENDPOINT if runs_guest(properties) else None


def runs_guest(properties: Mapping[str, str]) -> bool:
    """Whether the guest's own program runs in it, which keeps a journal and says which boot answers."""
    image = properties.get("image", "")
    return image == GUEST_IMAGE or image.startswith(f"{GUEST_IMAGE}:")
