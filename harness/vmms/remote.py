"""The `Hypervisor` port for those who are not VMMS itself: each call becomes a message, with a limit of its own.

The limits bound how long a caller waits, never what VMMS does: when one passes, EngineUnanswered is raised and the call
may still be carried out. How messages travel is the subclass's business: a socket live, a killable hand-over in the
simulation.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from harness.errors import EngineError, EngineUnanswered, NoSuchContainer
from harness.model.serialization import from_json_value, to_json_value
from harness.model.session import Session
from harness.model.topology import SECOND_US
from harness.model.vm import Order, Proof, VmNotice, VmSpec, VmView
from harness.ports import Hypervisor, OrderRefused

__all__ = [
    "CALLS",
    "NOTICES_CALL",
    "RemoteHypervisor",
    "call_message",
    "carry_out",
    "notice_in",
    "notice_message",
    "refusal",
    "result_in",
]

CALLS: Mapping[str, Mapping[str, Any]] = {
    "alive": {"return": None},
    "identity": {"return": Session},
    "clear_earlier_sessions": {"return": int},
    "prepare": {"spec": VmSpec, "epoch": int, "adopt": bool, "return": VmView},
    "start": {"vm": str, "order": Order, "return": VmView},
    "shut_down": {"vm": str, "grace_us": int, "return": Proof},
    "terminate": {"vm": str, "return": Proof},
    "close": {"vm": str, "epoch": int, "return": Proof},
    "view": {"vm": str, "return": VmView},
    "vms": {"return": tuple[VmView, ...]},
    "run_inside": {"vm": str, "command": tuple[str, ...], "limit_us": int, "return": int | None},
    "fence": {"session": Session, "not_after_us": int, "return": None},
    "power_on": {"node": str, "return": bool},
}
"""Each call's arguments and result with their types: what both ends of a connection need to turn them into plain values
and back.
"""
NOTICES_CALL = "notices"

ERRORS: Mapping[str, type[Exception]] = {
    kind.__name__: kind for kind in (EngineError, EngineUnanswered, NoSuchContainer, OrderRefused)
}
"""What VMMS raises, by the name that travels."""

ENGINE_CALL_US = 5 * SECOND_US
"""The engine client's own limit for one call; the limits below are how many a call of VMMS makes one after the other,
and a second.
"""


class RemoteHypervisor:
    """Implements `Hypervisor` on one primitive, `_call`."""

    async def _call(self, call: str, arguments: dict[str, Any], limit_us: int) -> Any:
        """Carry one call out. Raises EngineUnanswered when the answer is lost or late, else what VMMS raised."""
        raise NotImplementedError

    async def alive(self) -> None:
        """Whether VMMS answers at all; needs no engine."""
        await self._call("alive", {}, SECOND_US)

    async def identity(self) -> Session:
        """The session of this life of the node."""
        session: Session = await self._call("identity", {}, ENGINE_CALL_US + SECOND_US)
        return session

    async def clear_earlier_sessions(self) -> int:
        """Remove what earlier sessions of this node left; returns how many containers."""
        cleared: int = await self._call("clear_earlier_sessions", {}, 6 * ENGINE_CALL_US)
        return cleared

    async def prepare(self, spec: VmSpec, *, epoch: int, adopt: bool) -> VmView:
        """Have a container that can be started."""
        arguments = {"spec": spec, "epoch": epoch, "adopt": adopt}
        view: VmView = await self._call("prepare", arguments, 4 * ENGINE_CALL_US)
        return view

    async def start(self, vm: str, *, order: Order) -> VmView:
        """Start a prepared VM."""
        view: VmView = await self._call("start", {"vm": vm, "order": order}, 4 * ENGINE_CALL_US)
        return view

    async def shut_down(self, vm: str, *, grace_us: int) -> Proof:
        """End gracefully, conclusively."""
        arguments = {"vm": vm, "grace_us": grace_us}
        proof: Proof = await self._call("shut_down", arguments, grace_us + 4 * ENGINE_CALL_US)
        return proof

    async def terminate(self, vm: str) -> Proof:
        """End at once, conclusively."""
        proof: Proof = await self._call("terminate", {"vm": vm}, 3 * ENGINE_CALL_US)
        return proof

    async def close(self, vm: str, *, epoch: int) -> Proof:
        """End conclusively and forget."""
        proof: Proof = await self._call("close", {"vm": vm, "epoch": epoch}, 3 * ENGINE_CALL_US)
        return proof

    async def view(self, vm: str) -> VmView:
        """The VM as VMMS knows it; needs no engine, so a second is plenty."""
        view: VmView = await self._call("view", {"vm": vm}, SECOND_US)
        return view

    async def vms(self) -> list[VmView]:
        """Every VM of this session."""
        return list(await self._call("vms", {}, SECOND_US))

    async def run_inside(self, vm: str, command: tuple[str, ...], *, limit_us: int) -> int | None:
        """The status of a command in the VM; None when it has not ended within the limit."""
        arguments = {"vm": vm, "command": command, "limit_us": limit_us}
        status: int | None = await self._call("run_inside", arguments, limit_us + 2 * ENGINE_CALL_US)
        return status

    async def fence(self, session: Session, *, not_after_us: int) -> None:
        """Make sure that nothing of the session runs or can still start."""
        await self._call("fence", {"session": session, "not_after_us": not_after_us}, 6 * ENGINE_CALL_US)

    async def power_on(self, node: str) -> bool:
        """Start the node's container unless it is held off."""
        on: bool = await self._call("power_on", {"node": node}, 3 * ENGINE_CALL_US)
        return on

    def notices(self) -> AsyncIterator[VmNotice]:
        """Every VM as it is, then every change. Raises EngineUnanswered when VMMS is lost: then ask again."""
        raise NotImplementedError


def call_message(number: int, call: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A call as it travels; the answer will have the same number."""
    return {"id": number, "call": call, "arguments": to_json_value(arguments)}


async def carry_out(vmms: Hypervisor, message: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out a call of the table that came as a message. Returns the answer, which may be a refusal; raises what is
    none of the port's errors.
    """
    call = message["call"]
    try:
        arguments = _arguments(call, message.get("arguments"))
    except ValueError as error:
        return refusal(message, f"arguments of {call}: {error}")
    try:
        result = await getattr(vmms, call)(**arguments)
    except (EngineError, OrderRefused) as error:
        return refusal(message, str(error), kind=type(error).__name__)
    return {"id": message["id"], "result": to_json_value(result)}


def refusal(message: Mapping[str, Any], text: str, *, kind: str = EngineError.__name__) -> dict[str, Any]:
    """The answer to a call that ended with an error."""
    # A subclass that has no name of its own on the wire travels as what it is one of.
    name = kind if kind in ERRORS else EngineError.__name__
    return {"id": message.get("id"), "error": {"kind": name, "text": text}}


def result_in(call: str, message: Mapping[str, Any]) -> Any:
    """The result in the answer to that call. Raises the error that is in it, and EngineUnanswered for one that cannot
    be the answer.
    """
    if "error" in message:
        error = message["error"]
        raise ERRORS.get(error["kind"], EngineError)(error["text"])
    hint = CALLS[call]["return"]
    if hint is None:
        return None
    try:
        return from_json_value(hint, message.get("result"))
    except ValueError as error:
        raise EngineUnanswered(f"{call}: VMMS answered something else than was asked for: {error}") from error


def notice_message(notice: VmNotice) -> dict[str, Any]:
    """A notice as it travels."""
    return {"notice": to_json_value(notice)}


def notice_in(message: Mapping[str, Any]) -> VmNotice:
    """The notice in a message that has one."""
    return from_json_value(VmNotice, message["notice"])


def _arguments(call: str, given: Any) -> dict[str, Any]:
    hints = {name: hint for name, hint in CALLS[call].items() if name != "return"}
    if not isinstance(given, dict) or given.keys() != hints.keys():
        raise ValueError(f"expected {', '.join(hints) or 'none'}, got {given!r}")
    return {name: from_json_value(hint, given[name]) for name, hint in hints.items()}
