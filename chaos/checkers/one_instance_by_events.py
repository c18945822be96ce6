"""At most one running instance of a VM, ever, by the engine's events.

The engine is a witness that does not know the cluster. It sees only starts and ends of containers, so an instance that
a start call is still bringing up counts from its start event on; the guests' own journals (`one_instance_by_journals`)
see what this one cannot. A start that the cluster did not make is reported with its length and breaks nothing.
"""

from itertools import combinations

from chaos.history.instances import Instance, Instances, read_instances
from chaos.history.records import History, Reconciled, StreamGap
from chaos.history.verdict import Ruling, Verdict

__all__ = ["NAME", "check"]

NAME = "at-most-one-instance, engine events"


def check(history: History) -> Verdict:
    """BROKEN when two instances of one VM overlap; INCONCLUSIVE when events are or may be missing."""
    instances = read_instances(history)
    broken: list[str] = []
    notes: list[str] = []
    for first, second in combinations(instances.all, 2):
        if first.vm == second.vm and first.overlap_ns(second) != 0:
            (notes if first.foreign or second.foreign else broken).append(_describe(first, second))
    notes += [_describe_foreign(instance) for instance in instances.all if instance.foreign]
    if broken:
        return Verdict(checker=NAME, ruling=Ruling.BROKEN, reasons=tuple(broken), notes=tuple(notes))
    doubts = _doubts(history, instances)
    if doubts:
        return Verdict(checker=NAME, ruling=Ruling.INCONCLUSIVE, reasons=tuple(doubts), notes=tuple(notes))
    notes.append(f"{len(instances.all)} instances of {len({i.vm for i in instances.all})} VMs")
    return Verdict(checker=NAME, ruling=Ruling.HOLDS, notes=tuple(notes))


def _doubts(history: History, instances: Instances) -> list[str]:
    doubts = [
        f"events of the engine may be lost: {gap.reason} ({(gap.at_ns - gap.since_ns) / 1e9:.1f} s without a stream)"
        for gap in history.of(StreamGap)
        if not gap.complete
    ]
    compared = history.of(Reconciled)
    if not compared:
        doubts.append("the engine's list was never compared with its events: a lost event would not have been noticed")
    doubts += [difference for record in compared for difference in record.differences]
    return [*doubts, *instances.contradictions]


def _describe(first: Instance, second: Instance) -> str:
    overlap_ns = first.overlap_ns(second)
    length = "and both still do" if overlap_ns is None else f"for {overlap_ns / 1e9:.3f} s"
    places = f"{first.node} ({first.container[:12]}) and {second.node} ({second.container[:12]})"
    return f"{first.vm} ran twice, on {places}, {length}, from {_at(max(first.started_ns, second.started_ns))}"


def _describe_foreign(instance: Instance) -> str:
    end = f"for {(instance.ended_ns - instance.started_ns) / 1e9:.3f} s" if instance.ended_ns else "and still does"
    return f"foreign start: {instance.vm} ran on {instance.node} ({instance.container[:12]}) {end}"


def _at(at_ns: int) -> str:
    return f"{at_ns / 1e9:.3f}"
