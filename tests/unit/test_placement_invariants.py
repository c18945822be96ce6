"""The watchers of where groups go, each with the smallest history that breaks its rule, and with one that does not."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from harness.database.protocol import Address, Ballot, Beat, BeatAnswer
from harness.model.records import (
    ClusterRecord,
    Drained,
    GroupRecord,
    Move,
    MoveCause,
    NodeEntry,
    ResumeFailback,
    SessionState,
)
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session
from harness.model.topology import Failback, GroupSpec, Settings
from harness.model.voter_set import VoterSet
from harness.simulation.invariants.placement import (
    Candidates,
    FailbackByPolicy,
    FirstInTurn,
    NextInTheCycle,
    OverSince,
    PreferredFirst,
)
from harness.simulation.invariants.starts import LeaseOracle, PausedNodes

NAMES = ("node1", "node2", "node3")
SESSIONS = {name: Session.parse(f"{name}@00000000000{number}/5.1") for number, name in enumerate(NAMES, start=1)}
SETTINGS = Settings()
SETS = {1: VoterSet(version=1, members={name: f"{name}-1" for name in NAMES})}
LATE_US = 20_000_000
HOUR_US = 3_600_000_000


def cluster(*, paused: tuple[str, ...] = (), down: tuple[str, ...] = (), fenced: bool = False) -> ClusterRecord:
    entries = tuple(
        NodeEntry(
            name=name,
            address="",
            session=SESSIONS[name],
            state=SessionState.DOWN if name in down else SessionState.UP,
            fenced=fenced and name in down,
            paused=name in paused,
        )
        for name in NAMES
    )
    return ClusterRecord(rig="r", nodes=entries, groups=("web",), settings=SETTINGS)


def group(*preferred: str, owner: str = "node1", **more: Any) -> GroupRecord:
    spec = GroupSpec(name="web", preferred_owners=preferred, **more.pop("said", {}))
    return GroupRecord(spec=spec, owner=SESSIONS[owner], epoch=1, persistent={}, **more)


def content(record: Any) -> Any:
    return SimpleNamespace(record=record, version=1)


class World:
    """The time, what is chosen, and what the watchers have told."""

    def __init__(self) -> None:
        self.now_us = 0
        self.told: list[str] = []
        self.cluster = cluster()
        self.chosen: Any = SimpleNamespace(
            proposed_us=0, proposed_by="", newest=lambda key: self.cluster if key == CLUSTER_KEY else None
        )
        self.leases = LeaseOracle(
            sets=SETS,
            lease_us=SETTINGS.lease_us,
            pause_us=SETTINGS.lease_us // 2,
            now=lambda: self.now_us,
            told=self.told.append,
        )
        self.candidates = Candidates(SETTINGS, leases=self.leases, sets=SETS, now=lambda: self.now_us)
        self.over = OverSince(now=lambda: self.now_us)
        self.preferred = PreferredFirst(
            SETTINGS,
            chosen=self.chosen,
            candidates=self.candidates,
            over=self.over,
            now=lambda: self.now_us,
            told=self.told.append,
        )
        self.cycle = NextInTheCycle(chosen=self.chosen, candidates=self.candidates, told=self.told.append)

    def choose(self, older: Any, newer: Any, *, at_us: int, by: str = "node1") -> None:
        """Proposed and chosen at once."""
        self.now_us = self.chosen.proposed_us = at_us
        self.chosen.proposed_by = by
        if isinstance(newer, ClusterRecord):
            self.cluster = newer
        key = CLUSTER_KEY if isinstance(newer, ClusterRecord) else "group/web"
        for watcher in (self.over, self.candidates, self.preferred, self.cycle):
            watcher.chose(key, content(older), content(newer))

    def beats(self, *, since_us: int = 0, until_us: int, silent: tuple[tuple[str, str], ...] = ()) -> None:
        """Every node renews its lease at every voter, twice a second, but where it is `silent`."""
        for at_us in range(since_us, until_us, 500_000):
            self.now_us = at_us
            for node in NAMES:
                for voter in NAMES:
                    if (node, voter) not in silent:
                        self.beat(node, voter)

    def beat(self, node: str, voter: str) -> None:
        """One renewal."""
        to = Address(rig="r", voter=voter, incarnation=f"{voter}-1", set_version=1)
        session = str(SESSIONS[node])
        answer = BeatAnswer(
            of=to, session=session, revision=1, cluster=Ballot(1, ""), clock_us=self.now_us, leases=(), changed=()
        )
        heard: Any = SimpleNamespace(node=voter)
        self.leases.saw(heard, Beat(to=to, session=session, since=0), answer)


def formed(*, silent: tuple[tuple[str, str], ...] = (), paused: tuple[str, ...] = ()) -> World:
    """A cluster that is there for long."""
    world = World()
    world.choose(cluster(), cluster(paused=paused), at_us=0)
    world.beats(until_us=LATE_US, silent=silent)
    return world


@pytest.mark.parametrize(
    ("silent", "paused", "at_us", "certain"),
    [
        ((), (), LATE_US, True),
        ((), ("node3",), LATE_US, False),
        ((("node3", "node1"),), (), LATE_US, True),
        ((("node3", "node1"), ("node3", "node2")), (), LATE_US, False),
        ((), (), 2_900_000, False),
        ((), (), LATE_US + 1_000_000, False),
    ],
)
def test_a_candidate_is_certain_when_a_majority_has_heard_of_it_all_the_time(
    silent: tuple[tuple[str, str], ...], paused: tuple[str, ...], at_us: int, certain: bool
) -> None:
    world = formed(silent=silent, paused=paused)
    assert world.candidates.certain(GroupSpec(name="web"), "node3", at_us=at_us) == certain


def test_a_candidate_may_own_the_group_and_was_heard_without_a_pause() -> None:
    world = formed()
    barred = GroupSpec(name="web", possible_owners=("node1", "node2"))
    assert not world.candidates.certain(barred, "node3", at_us=LATE_US)

    world.now_us += 1_500_000
    for voter in NAMES:
        world.beat("node3", voter)
    assert not world.candidates.certain(GroupSpec(name="web"), "node3", at_us=world.now_us)


@pytest.mark.parametrize(
    ("preferred", "claimant", "by", "after_us", "broken"),
    [
        (("node3", "node2"), "node2", "node2", 10_000, True),
        (("node3",), "node2", "node2", 10_000, True),
        (("node3", "node2"), "node2", "node2", 1_000_000, False),
        (("node3", "node2"), "node3", "node3", 10_000, False),
        (("node1", "node2"), "node2", "node2", 10_000, False),
        ((), "node2", "node2", 10_000, False),
        (("node3", "node2"), "node2", "node1", 10_000, False),
    ],
)
def test_who_claims_before_the_turn_of_a_preferred_owner_is_told_of(
    preferred: tuple[str, ...], claimant: str, by: str, after_us: int, broken: bool
) -> None:
    world, record = formed(), group(*preferred)
    world.choose(cluster(), cluster(down=("node1",)), at_us=LATE_US)
    world.choose(cluster(), cluster(down=("node1",), fenced=True), at_us=LATE_US)
    world.beats(since_us=LATE_US, until_us=LATE_US + after_us)

    claimed = replace(record, owner=SESSIONS[claimant], epoch=2)
    world.choose(record, claimed, at_us=LATE_US + after_us, by=by)

    assert [text.startswith("register group/web: claimed by node2 0.01") for text in world.told] == [True] * broken


@pytest.mark.parametrize(
    ("down", "seen_us", "after_us", "broken"),
    [
        ((), LATE_US, 10_000, "node3 is preferred"),
        ((), LATE_US, 1_000_000, ""),
        ((), 115_000_000, 10_000, ""),
        (("node1",), LATE_US, 10_000, "some nodes have not come yet"),
        (("node1",), LATE_US, 100_000_000, ""),
    ],
)
def test_what_nobody_has_owned_waits_for_all_nodes_and_then_for_its_preferred_owner(
    down: tuple[str, ...], seen_us: int, after_us: int, broken: str
) -> None:
    world, record = World(), replace(group("node3", "node2"), owner=None)
    world.choose(cluster(), cluster(down=("node1",)), at_us=0)
    world.beats(until_us=seen_us)
    world.choose(cluster(down=("node1",)), cluster(down=down), at_us=seen_us)
    world.beats(since_us=seen_us, until_us=seen_us + after_us)

    world.choose(record, replace(record, owner=SESSIONS["node2"]), at_us=seen_us + after_us, by="node2")

    assert [broken in text for text in world.told] == ([True] if broken else [])


@pytest.mark.parametrize(
    ("cause", "target", "paused", "broken"),
    [
        (MoveCause.DRAIN, "node2", (), True),
        (MoveCause.PAUSED, "node2", (), True),
        (MoveCause.DRAIN, "node3", (), False),
        (MoveCause.DRAIN, "node2", ("node3",), False),
        (MoveCause.REQUEST, "node2", (), False),
    ],
)
def test_a_group_leaves_a_paused_node_for_the_most_preferred_candidate(
    cause: MoveCause, target: str, paused: tuple[str, ...], broken: bool
) -> None:
    world, record = formed(paused=paused), group("node1", "node3", "node2")

    world.choose(record, replace(record, move=Move(target=target, reason="", cause=cause)), at_us=LATE_US)

    assert ["node3 is preferred" in text for text in world.told] == [True] * broken


@pytest.mark.parametrize(
    ("preferred", "failed_on", "target", "paused", "broken"),
    [
        ((), "node2", "node3", (), ""),
        ((), "node2", "node1", (), "node3 is next"),
        ((), "node2", "node1", ("node3",), ""),
        ((), "node3", "node1", (), ""),
        (("node3", "node2"), "node2", "node1", (), ""),
        (("node3", "node2"), "node2", "node3", (), "node1 is next"),
        (("node3", "node2"), "node3", "node1", (), "node2 is next"),
    ],
)
def test_after_a_failure_a_group_goes_to_the_next_candidate_of_the_cyclic_list(
    preferred: tuple[str, ...], failed_on: str, target: str, paused: tuple[str, ...], broken: str
) -> None:
    world, record = formed(paused=paused), group(*preferred, owner=failed_on)
    move = Move(target=target, reason="vm failed and its restarts are used up")

    world.choose(record, replace(record, move=move), at_us=LATE_US)
    world.choose(replace(record, move=move), replace(record, move=move), at_us=LATE_US)

    assert [broken in text for text in world.told] == ([True] if broken else [])


ALLOW = {"failback": Failback.ALLOW}


@pytest.mark.parametrize(
    ("record", "target", "hour", "broken"),
    [
        (group("node2", said=ALLOW), "node2", 5, ""),
        (group("node2"), "node2", 5, "prevents"),
        (group("node2", drained=Drained(node="node2", drain=1)), "node2", 5, ""),
        (group("node2", drained=Drained(node="node3", drain=1)), "node2", 5, "prevents"),
        (group("node1", "node2", said=ALLOW), "node2", 5, "does not prefer"),
        (group("node2", said=ALLOW), "node3", 5, "does not prefer"),
        (group("node2", said=ALLOW, left=(SESSIONS["node2"],)), "node2", 5, "which it left"),
        (group("node2", said=ALLOW, left=(SESSIONS["node3"],)), "node2", 5, ""),
        (group("node2", said={**ALLOW, "failback_window": (5, 6)}), "node2", 5, ""),
        (group("node2", said={**ALLOW, "failback_window": (5, 6)}), "node2", 6, "outside of its failback-window"),
        (group("node2", said={**ALLOW, "failback_window": (22, 6)}), "node2", 5, ""),
        (group("node2", said={**ALLOW, "failback_window": (22, 6)}), "node2", 23, ""),
        (group("node2", said={**ALLOW, "failback_window": (22, 6)}), "node2", 7, "outside of its failback-window"),
    ],
)
def test_a_group_goes_back_where_its_policy_says(record: GroupRecord, target: str, hour: int, broken: str) -> None:
    told: list[str] = []
    chosen: Any = SimpleNamespace(proposed_us=100, newest=lambda _key: cluster())
    watcher = FailbackByPolicy(
        chosen=chosen,
        seen_us=3_000_000,
        now=lambda _node: hour * HOUR_US + 200,
        world_us=lambda: 200,
        told=told.append,
    )
    move = Move(target=target, reason="", cause=MoveCause.FAILBACK)

    moves, asked = replace(record, move=move), replace(record, move=replace(move, cause=MoveCause.REQUEST))
    for before, after in ((record, record), (record, asked), (moves, moves), (moves, record)):
        watcher.chose("group/web", content(before), content(after))
    assert told == []

    watcher.chose("group/web", content(record), content(moves))
    assert [broken in text for text in told] == ([True] if broken else [])


@pytest.mark.parametrize(
    ("failback", "said", "drain", "immediate_until_us", "broken"),
    [
        (ResumeFailback.NONE, {}, 1, None, True),
        (ResumeFailback.POLICY, {}, 1, None, True),
        (ResumeFailback.NONE, {}, 1, LATE_US - 4_000_000, True),
        (ResumeFailback.NONE, {}, 1, LATE_US - 1_000_000, False),
        (ResumeFailback.IMMEDIATE, {}, 1, None, False),
        (ResumeFailback.NONE, {}, 2, None, False),
        (ResumeFailback.NONE, ALLOW, 1, None, False),
    ],
)
def test_a_group_goes_back_where_a_resume_asks_for_it(
    failback: ResumeFailback, said: dict[str, Any], drain: int, immediate_until_us: int | None, broken: bool
) -> None:
    told: list[str] = []
    entry = replace(cluster().nodes[1], drains=1, failback=failback)
    resumed = cluster().with_node(entry)
    chosen: Any = SimpleNamespace(proposed_us=LATE_US, newest=lambda _key: resumed)
    watcher = FailbackByPolicy(
        chosen=chosen,
        seen_us=3_000_000,
        now=lambda _node: 0,
        world_us=lambda: immediate_until_us or 0,
        told=told.append,
    )
    if immediate_until_us is not None:
        immediate = resumed.with_node(replace(entry, failback=ResumeFailback.IMMEDIATE))
        watcher.chose(CLUSTER_KEY, content(immediate), content(resumed))
    record = group("node2", said=said, drained=Drained(node="node2", drain=drain))
    move = Move(target="node2", reason="", cause=MoveCause.FAILBACK)

    watcher.chose("group/web", content(record), content(replace(record, move=move)))

    assert told == [f"register group/web: goes back to node2, which was resumed with failback {failback}"] * broken


GROUPS = ("web", "mail", "news", "files")


class Orphans:
    """A cluster of three whose groups are owned by these, and node1 is lost."""

    def __init__(self, owners: str, *, paused: tuple[str, ...] = (), moved_us: int = 0, **said: Any) -> None:
        self.world = formed(paused=paused)
        self.told = self.world.told
        self.records = {
            name: GroupRecord(
                spec=GroupSpec(name=name, **said), owner=SESSIONS[f"node{owner}"], epoch=1, persistent={}
            )
            for name, owner in zip(GROUPS, owners, strict=False)
        }
        chosen, now_us = self.world.chosen, lambda: self.world.now_us
        names = tuple(self.records)
        chosen.newest = lambda key: (
            replace(self.world.cluster, groups=names) if key == CLUSTER_KEY else self.records[key.partition("/")[2]]
        )
        pauses = PausedNodes(seen_us=3_000_000, now=now_us)
        self.world.now_us = 0
        pauses.chose(CLUSTER_KEY, content(cluster()), content(cluster(paused=paused)))
        self.watcher = FirstInTurn(
            SETTINGS,
            chosen=chosen,
            candidates=self.world.candidates,
            over=self.world.over,
            paused=pauses,
            now=now_us,
            told=self.told.append,
        )
        if moved_us:
            self.own(names[-1], SESSIONS["node2"], moved_us, by="node3")
        self.at_us = LATE_US
        for down in (cluster(paused=paused, down=("node1",), fenced=fenced) for fenced in (False, True)):
            self.watcher.chose(CLUSTER_KEY, content(self.world.cluster), content(down))
            self.world.choose(self.world.cluster, down, at_us=LATE_US)

    def own(self, name: str, owner: Session, at_us: int, *, by: str) -> None:
        before = self.records[name]
        after = self.records[name] = replace(before, owner=owner, epoch=before.epoch + 1)
        self.world.now_us = self.world.chosen.proposed_us = at_us
        self.world.chosen.proposed_by = by
        self.watcher.chose(f"group/{name}", content(before), content(after))

    def claim(self, name: str, node: str, after_us: int = 10_000, *, by: str = "") -> "Orphans":
        self.world.beats(since_us=self.at_us, until_us=LATE_US + after_us)
        self.own(name, SESSIONS[node], LATE_US + after_us, by=by or node)
        return self


def out_of_turn(name: str, node: str) -> list[str]:
    over = f"{SESSIONS['node1']} is over for 0.010000 s"
    return [f"register group/{name}: {over}, {node} claims it, and is not first in turn"]


def test_what_a_lost_node_owned_goes_to_who_owns_least() -> None:
    assert Orphans("123").claim("web", "node2").told == []
    assert Orphans("122").claim("web", "node3").told == []
    assert Orphans("122").claim("web", "node2").told == out_of_turn("web", "node2")
    assert Orphans("122", preferred_owners=("node2",)).claim("web", "node2").told == []
    assert Orphans("123").claim("web", "node3").told == out_of_turn("web", "node3")


def test_who_knows_of_other_claims_reckons_with_them() -> None:
    assert Orphans("1123").claim("mail", "node2").claim("web", "node3").told == []
    assert Orphans("1123").claim("mail", "node2").claim("web", "node2").told == out_of_turn("web", "node2")
    assert Orphans("1113").claim("mail", "node2").claim("news", "node2").claim("web", "node2").told != []


@pytest.mark.parametrize(
    ("orphans", "after_us", "by"),
    [
        (Orphans("122"), 1_000_000, "node2"),
        (Orphans("122"), 10_000, "node3"),
        (Orphans("122", paused=("node3",)), 10_000, "node2"),
        (Orphans("123", moved_us=LATE_US - 1_000_000), 10_000, "node2"),
    ],
)
def test_where_another_may_be_first_in_turn_nothing_is_told(orphans: Orphans, after_us: int, by: str) -> None:
    assert orphans.claim("web", "node2", after_us, by=by).told == []


def test_a_node_that_has_just_come_may_not_be_known_yet() -> None:
    late = Orphans("122")
    now, without = late.world.cluster, replace(late.world.cluster, nodes=late.world.cluster.nodes[:2])
    for before, after in ((now, without), (without, now)):
        late.world.candidates.chose(CLUSTER_KEY, content(before), content(after))
    assert late.claim("web", "node2").told == []


def test_a_node_that_has_just_come_back_may_be_taken_for_lost() -> None:
    late = Orphans("122")
    back = cluster(down=("node1",), fenced=True)
    late.watcher.chose(CLUSTER_KEY, content(cluster(down=("node1", "node3"), fenced=True)), content(back))
    assert late.claim("web", "node2").told == []
