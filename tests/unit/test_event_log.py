"""The cluster log: every event is told, a lasting condition once a minute."""

from harness.cluster_service.core.event_log import REPEAT_US, EventLogProcessor
from harness.cluster_service.core.messages import Log

CRASH = Log(component="resource-control-manager", event="resource-failed", message="vm1 failed", id=1069)
STUCK = Log(component="membership-manager", event="fence-failed", message="node2 is not known to be off", lasting=True)


def test_the_same_failure_twice_within_a_minute_is_two_lines() -> None:
    log = EventLogProcessor(node="node1")

    lines = [log.line(now, 1.0, CRASH) for now in (0, 1)]

    assert [line and line["sequence"] for line in lines] == [1, 2]


def test_a_lasting_condition_is_told_again_after_a_minute_only() -> None:
    log = EventLogProcessor(node="node1")

    told = [log.line(now, 1.0, STUCK) is not None for now in (0, REPEAT_US - 1, REPEAT_US)]

    assert told == [True, False, True]
