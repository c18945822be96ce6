"""Power over nodes: fencing a session, powering a node on, and clearing what earlier sessions of this node left.

Off means that the engine shows it: the node's container does not run, or runs another life than the one that was
killed, and no VM container of the session exists. An error or a time-out is never off. Everything is killed at
once in parallel, because a frozen guest keeps its node's PID 1 from dying, and containers are removed, not stopped,
because the engine may carry a start out much later (safety review, findings 2 and 4).
"""

from harness.errors import EngineError, NoSuchContainer
from harness.model import labels as label
from harness.model.labels import Role
from harness.model.session import Session
from harness.ports import Container, Engine, Log, Runtime
from harness.synchronization import all_of

__all__ = ["Power"]

VERIFY_LIMIT_US = 5_000_000
"""From the end of the kills until the engine must show the node off: its notice of a node's end was measured to take up
to 0.6 s.
"""
VERIFY_AFTER_ERRORS_US = 1_000_000
"""The same when a kill failed: enough for another fencer's kill to show, and the caller repeats."""
VERIFY_PAUSE_US = 30_000


class Power:
    """The switch of every node of one rig."""

    def __init__(self, *, runtime: Runtime, engine: Engine, rig: str, log: Log) -> None:
        self._runtime = runtime
        self._engine = engine
        self._rig = rig
        self._log = log

    async def fence(self, session: Session, *, not_after_us: int) -> None:
        """Make sure that nothing of `session` runs or can still start. Raises EngineError when that was not seen,
        whatever the reason.

        The caller has checked that no newer life of the node has joined; one that merely boots is killed as well, for
        the engine may still start a VM of the old session inside it.
        """
        # The node first: what started after this look is not killed by accident, and its StartedAt tells one life from
        # the next.
        nodes = await self._node_containers(session.node)
        guests = await self._guests(session.node)
        if self._runtime.now() > not_after_us:
            raise EngineError(f"fencing of {session}: too late to begin, nothing was killed")
        kills = [self._kill(box) for box in nodes]
        removals = [self._engine.remove(box.id) for box in guests]
        errors = await all_of(self._runtime, [*kills, *removals], name=f"fence {session.node}")
        real = [error for error in errors if not isinstance(error, NoSuchContainer)]
        await self._wait_off(session, {box.id: box.started for box in nodes}, real)
        self._log("fence-verified", f"session {session} is off", session=str(session), guests=len(guests))

    async def power_on(self, node: str) -> bool:
        """Start the node's container unless it is held off; returns whether it is on now. Raises EngineError."""
        if node in await self._engine.holds(self._rig):
            return False
        nodes = await self._node_containers(node) or await self._witness_containers(node)
        if not nodes:
            raise EngineError(
                f"power-on of {node}: it has no container with the rig's labels; run `blackstart up` again"
            )
        for box in nodes:
            if not box.running:
                await self._engine.start(box.id)
        return True

    async def clear(self, node: str, *, keep: Session) -> int:
        """Remove every VM container of the node that is not of the session `keep`; returns how many there were.
        Raises EngineError.
        """
        cleared: set[str] = set()
        errors: list[Exception] = []
        for _ in range(3):
            strangers = [box for box in await self._guests(node) if box.labels.get(label.SESSION) != str(keep)]
            if not strangers:
                return len(cleared)
            cleared |= {box.id for box in strangers}
            errors = await all_of(self._runtime, [self._engine.remove(box.id) for box in strangers], name="clear")
        raise EngineError(f"clearing of earlier sessions of {node}: containers are left; last errors: {_told(errors)}")

    async def _wait_off(self, session: Session, killed: dict[str, str], errors: list[Exception]) -> None:
        end_us = self._runtime.now() + (VERIFY_AFTER_ERRORS_US if errors else VERIFY_LIMIT_US)
        while True:
            on = [
                box.name
                for box in await self._node_containers(session.node)
                if box.running and killed.get(box.id, "") == box.started
            ]
            left = [
                box.name for box in await self._guests(session.node) if box.labels.get(label.SESSION) == str(session)
            ]
            if not on and not left:
                return
            if self._runtime.now() >= end_us:
                raise EngineError(
                    f"fencing of {session}: still running: {', '.join(on) or 'no node'}; VM containers left: "
                    f"{', '.join(left) or 'none'}; errors: {_told(errors)}; the fence must be repeated"
                )
            await self._runtime.sleep(VERIFY_PAUSE_US)

    async def _kill(self, box: Container) -> None:
        # Also when it seems to be off: it may be waiting for its restart policy, and a kill ends that wait.
        await self._engine.kill(box.id)

    async def _node_containers(self, node: str) -> list[Container]:
        return await self._engine.containers(
            labels={label.RIG: self._rig, label.ROLE: Role.NODE.value, label.NODE: node}
        )

    async def _witness_containers(self, name: str) -> list[Container]:
        return await self._engine.containers(
            labels={label.RIG: self._rig, label.ROLE: Role.WITNESS.value, label.NODE: name}
        )

    async def _guests(self, node: str) -> list[Container]:
        return await self._engine.containers(
            labels={label.RIG: self._rig, label.ROLE: Role.VM.value, label.NODE: node}
        )


def _told(errors: list[Exception]) -> str:
    return "; ".join(str(error) for error in errors) or "none"
