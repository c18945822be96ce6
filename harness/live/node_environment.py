"""What a node's container says about itself in its environment; none of it is secret."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import UsageError
from harness.model.name import NAME_FORM, is_name
from harness.model.topology import Fencing, Settings

__all__ = ["ENGINE_SOCKET", "NodeEnvironment", "read_environment"]

ENGINE_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEnvironment:
    """The rig, this node's name, the voters' addresses by name, the cluster's times, the engine's socket, and the ID of
    the only engine that this node may act on (empty: not known).
    """

    rig: str
    node: str
    voters: Mapping[str, str]
    settings: Settings
    engine_socket: str = ENGINE_SOCKET
    engine_id: str = ""


def read_environment(environment: Mapping[str, str]) -> NodeEnvironment:
    """The environment as a record. Raises UsageError that names the variable that is missing or senseless."""
    return NodeEnvironment(
        rig=_named(environment, "BLACKSTART_RIG"),
        node=_named(environment, "BLACKSTART_NODE"),
        voters=_voters(_text(environment, "BLACKSTART_VOTERS")),
        settings=Settings(
            beat_us=_milliseconds(environment, "BLACKSTART_BEAT_MS"),
            lease_us=_milliseconds(environment, "BLACKSTART_LEASE_MS"),
            grace_us=_milliseconds(environment, "BLACKSTART_GRACE_MS"),
            fencing=Fencing(environment.get("BLACKSTART_FENCING", Fencing.POWER.value)),
            program_ask_us=_milliseconds(environment, "BLACKSTART_PROGRAM_ASK_MS"),
            program_silence_us=_milliseconds(environment, "BLACKSTART_PROGRAM_SILENCE_MS"),
        ),
        engine_socket=environment.get("BLACKSTART_ENGINE_SOCKET", ENGINE_SOCKET),
        engine_id=environment.get("BLACKSTART_ENGINE_ID", ""),
    )


def _text(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise UsageError(f"{name} is not set; the rendered Compose file sets it for every node")
    return value


def _named(environment: Mapping[str, str], name: str) -> str:
    """It becomes a label by which containers are found and ended."""
    value = _text(environment, name)
    if not is_name(value):
        raise UsageError(f"{name} is {value!r}, expected {NAME_FORM}")
    return value


def _milliseconds(environment: Mapping[str, str], name: str) -> int:
    text = _text(environment, name)
    if not text.isdigit() or int(text) == 0:
        raise UsageError(f"{name} is {text!r}; a whole number of milliseconds above zero is expected")
    return int(text) * 1000


def _voters(text: str) -> dict[str, str]:
    voters = {}
    for entry in text.split(","):
        name, _, address = entry.partition("=")
        if not name or not address:
            raise UsageError(f"BLACKSTART_VOTERS has {entry!r}; NAME=ADDRESS, separated by commas, is expected")
        voters[name] = address
    return voters
