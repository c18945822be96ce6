"""When a simulated world has come to rest: what the rules of the cluster excuse, and nothing else."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from harness.model.records import (
    ClusterRecord,
    Drained,
    GroupRecord,
    NodeEntry,
    Restart,
    ResumeFailback,
    SessionState,
)
from harness.model.register_keys import CLUSTER_KEY
from harness.model.session import Session
from harness.model.topology import (
    Failback,
    GroupSpec,
    NodeSpec,
    ResourcePolicy,
    ResourceSpec,
    RestartAction,
    Settings,
    Topology,
)
from harness.simulation.invariants.convergence import unconverged

OWNER = Session.parse("node1@000000000001/1.1")
NAMES = ("node1", "node2", "node3")
NOW_US = 100_000_000
PERIOD_US = 50_000_000
IP = ResourceSpec(name="ip", type="ip-address")
VM = ResourceSpec(
    name="vm",
    type="virtual-machine",
    depends_on=(("ip",),),
    policy=ResourcePolicy(restart_threshold=1, retry_period_us=None),
)
SPEC = GroupSpec(name="web", resources=(IP, VM), failover_threshold=1, failover_period_us=PERIOD_US)
USED_UP = (Restart(resource="vm", session=OWNER, at_us=1, failure="run"),)


def session_of(node: str) -> Session:
    return OWNER._replace(node=node)


def judge(
    *,
    states: dict[str, str],
    record: GroupRecord | None = None,
    paused: tuple[str, ...] = (),
    runs: bool = False,
    resumed: ResumeFailback = ResumeFailback.POLICY,
) -> list[str]:
    """What is said of one group of node1; each resource is wanted unless the record says otherwise. Each node was
    drained once, and `resumed` with that failback.
    """
    record = record or owned()
    nodes = tuple(
        NodeEntry(
            name=name,
            address="",
            session=session_of(name),
            state=SessionState.UP,
            paused=name in paused,
            drains=1,
            failback=resumed,
        )
        for name in NAMES
    )
    cluster = ClusterRecord(rig="r", nodes=nodes, groups=("web",), settings=Settings())
    resources = [
        {
            "name": spec.name,
            "type": spec.type,
            "state": states[spec.name],
            "persistent_state": record.persistent[spec.name],
            "why": "",
        }
        for spec in record.spec.resources
    ]
    told = {"name": "web", "owner": "node1", "moving_to": None, "resources": resources}
    snapshot = {"member": True, "quorum": True, "nodes": [], "groups": [told]}
    node: Any = SimpleNamespace(snapshot=lambda: snapshot, requests_open=0)
    spec = NodeSpec(name="node1", address="", voter=True)
    registers = {CLUSTER_KEY: cluster, "group/web": record}
    return unconverged(
        Topology(rig="r", subnet="", nodes=(spec,), groups=(record.spec,)),
        nodes={"node1": node},
        newest=registers.get,
        running={"vm": ["node1"]} if runs else {},
        may_be_wanted=lambda vm: {bool(record.persistent[vm])},
        now=lambda _node: NOW_US,
    )


def owned(spec: GroupSpec = SPEC, **more: Any) -> GroupRecord:
    wanted = {resource.name: True for resource in spec.resources}
    return GroupRecord(**{"spec": spec, "owner": OWNER, "epoch": 1, "persistent": wanted, **more})


def with_policy(spec: GroupSpec = SPEC, **said: Any) -> GroupSpec:
    return replace(spec, resources=(IP, replace(VM, policy=replace(VM.policy, **said))))


FAILED = {"ip": "Online", "vm": "Failed"}


def test_all_online_and_running_is_rest() -> None:
    assert judge(states={"ip": "Online", "vm": "Online"}, runs=True) == []


def test_a_vm_that_is_said_to_be_online_and_does_not_run_is_none() -> None:
    assert judge(states={"ip": "Online", "vm": "Online"}) != []


@pytest.mark.parametrize(
    ("record", "paused", "excused"),
    [
        (owned(), (), False),
        (owned(restarts=USED_UP), (), False),
        (owned(failovers=(NOW_US,)), (), False),
        (owned(restarts=USED_UP, failovers=(NOW_US,)), (), True),
        (owned(restarts=USED_UP, failovers=(NOW_US - PERIOD_US - 1,)), (), False),
        (owned(restarts=USED_UP), ("node2",), False),
        (owned(restarts=USED_UP), ("node2", "node3"), True),
        (owned(replace(SPEC, possible_owners=("node1", "node2")), restarts=USED_UP), ("node2",), True),
        (owned(replace(SPEC, possible_owners=("node1",))), ("node1",), True),
        (owned(with_policy(restart_action=RestartAction.NONE)), (), True),
        (owned(with_policy(restart_action=RestartAction.RESTART)), (), False),
        (owned(with_policy(restart_action=RestartAction.RESTART), restarts=USED_UP), (), True),
        (owned(with_policy(restart_action=RestartAction.RESTART)), ("node1",), True),
        (
            owned(with_policy(restart_action=RestartAction.RESTART, retry_period_us=60_000_000), restarts=USED_UP),
            (),
            False,
        ),
        (
            owned(with_policy(restart_action=RestartAction.RESTART, retry_period_us=60_000_001), restarts=USED_UP),
            (),
            True,
        ),
    ],
)
def test_a_failed_vm_may_stay_so_when_its_policy_is_used_up(
    record: GroupRecord, paused: tuple[str, ...], excused: bool
) -> None:
    assert (judge(states=FAILED, record=record, paused=paused) == []) == excused


@pytest.mark.parametrize(
    ("record", "paused", "excused"),
    [
        (owned(), (), False),
        (owned(), NAMES[1:], False),
        (owned(), NAMES, True),
        (owned(replace(SPEC, possible_owners=("node1", "node3"))), ("node1", "node3"), True),
        (owned(persistent={"ip": False, "vm": True}), (), True),
    ],
)
def test_a_vm_may_wait_for_nodes_that_are_paused_and_for_what_is_not_wanted(
    record: GroupRecord, paused: tuple[str, ...], excused: bool
) -> None:
    assert (judge(states={"ip": "Offline", "vm": "Offline"}, record=record, paused=paused) == []) == excused


def test_a_vm_may_not_wait_for_one_of_two_while_the_other_is_there() -> None:
    other = replace(IP, name="ip2")
    either = replace(SPEC, resources=(IP, other, replace(VM, depends_on=(("ip", "ip2"),))))
    record = owned(either, persistent={"ip": False, "ip2": True, "vm": True})

    assert judge(states={"ip": "Offline", "ip2": "Online", "vm": "Offline"}, record=record) != []


ONLINE = {"ip": "Online", "vm": "Online"}


def test_nothing_is_online_without_one_of_those_that_it_depends_on() -> None:
    record = owned(with_policy(restart_action=RestartAction.NONE))
    assert judge(states=ONLINE, record=record, runs=True) == []
    assert "vm on node1 is Online without ip" in judge(states={**ONLINE, "ip": "Failed"}, record=record, runs=True)


PREFERS = replace(SPEC, preferred_owners=("node2", "node1", "node3"), failback=Failback.ALLOW)


@pytest.mark.parametrize(
    ("record", "paused", "gone_back"),
    [
        (owned(PREFERS), (), False),
        (owned(replace(PREFERS, failback=Failback.PREVENT)), (), True),
        (owned(replace(PREFERS, failback_window=(5, 6))), (), True),
        (owned(replace(PREFERS, preferred_owners=("node1", "node2"))), (), True),
        (owned(replace(PREFERS, preferred_owners=("node3",))), (), False),
        (owned(replace(PREFERS, possible_owners=("node1", "node3"))), (), True),
        (owned(PREFERS, left=(session_of("node2"),)), (), True),
        (owned(PREFERS, left=(session_of("node3"),)), (), False),
        (owned(PREFERS), ("node2",), True),
        (owned(PREFERS), ("node1",), True),
    ],
)
def test_a_group_is_where_its_failback_policy_wants_it(
    record: GroupRecord, paused: tuple[str, ...], gone_back: bool
) -> None:
    assert (judge(states=ONLINE, record=record, paused=paused, runs=True) == []) == gone_back


def test_a_group_of_which_something_has_failed_stays() -> None:
    assert judge(states=FAILED, record=owned(with_policy(PREFERS, restart_action=RestartAction.NONE))) == []


@pytest.mark.parametrize(
    ("spec", "resumed", "drain", "paused", "gone_back"),
    [
        (SPEC, ResumeFailback.IMMEDIATE, 1, (), False),
        (SPEC, ResumeFailback.IMMEDIATE, 2, (), True),
        (SPEC, ResumeFailback.IMMEDIATE, 1, ("node2",), True),
        (SPEC, ResumeFailback.NONE, 1, (), True),
        (SPEC, ResumeFailback.POLICY, 1, (), True),
        (PREFERS, ResumeFailback.POLICY, 1, (), False),
        (PREFERS, ResumeFailback.NONE, 1, (), True),
        (PREFERS, ResumeFailback.NONE, 2, (), False),
    ],
)
def test_a_group_is_where_a_resume_wants_it(
    spec: GroupSpec, resumed: ResumeFailback, drain: int, paused: tuple[str, ...], gone_back: bool
) -> None:
    record = owned(spec, drained=Drained(node="node2", drain=drain))
    assert (judge(states=ONLINE, record=record, paused=paused, runs=True, resumed=resumed) == []) == gone_back
