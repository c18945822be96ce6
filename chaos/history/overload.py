"""Overload as data: which parts of a run stood still, or were answered late, because the host had too much to do.

Read from the history, so that probes, checkers and reports cannot disagree. It judges nothing: a bound of time that
fails meanwhile is inconclusive, and a violation of safety is broken all the same.

| witness | counts |
|---|---|
| the runner | `Stall`: its loop ran half a second late |
| a node | cluster log, `loop-late`: the service's loop was ready to run for half a second of a window and did not |
| the engine | `EngineSlow`: it took half a second to answer a call that does nothing |

A fault that freezes a node makes its loop late as well, but a frozen thread is not ready to run. Where the kernel of a
node does not count that time, a late loop counts unless such a fault of the run explains it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chaos.history.records import EngineSlow, FaultMoment, FaultRecord, History, LogLine, Stall

__all__ = ["LATE_US", "LOOP_LATE", "NodeLate", "describe_overload", "nodes_late", "overload_since"]

LATE_US = 500_000
"""A beat of the cluster's leases by default. A loaded host of two processors was 0.1 s late without a consequence."""
LOOP_LATE = "loop-late"
"""The event of the cluster log with which a node's service reports that its own loop ran late."""
FREEZING = frozenset({"node.hang", "service.hang"})
NODES_SHOWN = 4
"""Nodes that a sentence names one by one; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLate:
    """The loop of a node's service ran late for want of a processor, in a window of `window_us` that ended at `at_ns`.

    `late_us` is how long it was ready in the window and did not run; where the kernel does not count that, its longest
    delay.
    """

    at_ns: int
    node: str
    late_us: int
    window_us: int
    load: float | None = None


def nodes_late(history: History) -> list[NodeLate]:
    """Every window in which a node's loop ran late for want of a processor, by time."""
    freezes = list(_freezes(history.of(FaultRecord)))
    lines = [line for line in history.of(LogLine) if line.event == LOOP_LATE]
    found = [_node_late(line, freezes) for line in lines]
    return [late for late in found if late is not None]


def overload_since(history: History, since_ns: int) -> str:
    """A clause that says how the host was overloaded since then; empty when no witness saw an overload."""
    return describe_overload(
        stalls=[stall for stall in history.of(Stall) if stall.at_ns >= since_ns],
        nodes=[late for late in nodes_late(history) if late.at_ns >= since_ns],
        engine=[slow for slow in history.of(EngineSlow) if slow.at_ns >= since_ns],
    )


def describe_overload(*, stalls: Iterable[Stall], nodes: Iterable[NodeLate], engine: Iterable[EngineSlow]) -> str:
    """The same clause, of these records."""
    stalls, nodes, engine = list(stalls), list(nodes), list(engine)
    told = [*_of_runner(stalls), *_of_nodes(nodes), *_of_engine(engine)]
    if not told:
        return ""
    loads = [*(one.load for one in stalls), *(one.load for one in nodes), *(one.load for one in engine)]
    known = [load for load in loads if load is not None]
    load = f", load average {max(known):.1f}" if known else ""
    return f"the host was overloaded: {', '.join(told)}{load}"


def _of_runner(stalls: list[Stall]) -> Iterator[str]:
    if stalls:
        longest_s = max(stall.length_us for stall in stalls) / 1e6
        yield f"the runner stood still for {longest_s:.1f} s{_times(stalls)}"


def _of_nodes(nodes: list[NodeLate]) -> Iterator[str]:
    longest: dict[str, int] = {}
    for late in nodes:
        longest[late.node] = max(late.late_us, longest.get(late.node, 0))
    ordered = sorted(longest, key=lambda node: -longest[node])
    for node in ordered[:NODES_SHOWN]:
        yield f"the loop of {node} ran {longest[node] / 1e6:.1f} s late{_times([n for n in nodes if n.node == node])}"
    if len(ordered) > NODES_SHOWN:
        yield f"those of {len(ordered) - NODES_SHOWN} further nodes less"


def _of_engine(engine: list[EngineSlow]) -> Iterator[str]:
    if engine:
        slowest = max(engine, key=lambda slow: slow.took_us)
        took = f"{slowest.took_us / 1e6:.1f} s"
        yield f"the engine answered after {took}" if slowest.answered else f"the engine had not answered after {took}"


def _times(records: list[Stall] | list[NodeLate]) -> str:
    return f" (the longest of {len(records)})" if len(records) > 1 else ""


def _node_late(line: LogLine, freezes: list[tuple[str, int, int]]) -> NodeLate | None:
    late_us, window_us = _number(line, "late_us"), _number(line, "window_us")
    if late_us is None or window_us is None:
        return None
    waited_us, load = _number(line, "waited_us"), line.fields.get("load")
    if waited_us is not None:
        if waited_us < LATE_US:
            return None  # it was frozen or at work itself: that is no want of a processor
        late_us = waited_us
    elif _is_frozen(line.node, line.at_ns - window_us * 1000, line.at_ns, freezes):
        return None
    return NodeLate(
        at_ns=line.at_ns,
        node=line.node,
        late_us=late_us,
        window_us=window_us,
        load=float(load) if isinstance(load, int | float) else None,
    )


def _is_frozen(node: str, began_ns: int, ended_ns: int, freezes: list[tuple[str, int, int]]) -> bool:
    return any(frozen == node and begin < ended_ns and end > began_ns for frozen, begin, end in freezes)


def _number(line: LogLine, name: str) -> int | None:
    value = line.fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _freezes(faults: list[FaultRecord]) -> Iterator[tuple[str, int, int]]:
    """Node, begin and end of each freeze that this run made; one that was not healed lasts for ever."""
    healed = {fault.number: fault.at_ns for fault in faults if fault.moment is FaultMoment.HEALED}
    for fault in faults:
        if fault.fault in FREEZING and fault.moment is FaultMoment.INTENDED:
            yield fault.target, fault.at_ns, healed.get(fault.number, 1 << 63)
