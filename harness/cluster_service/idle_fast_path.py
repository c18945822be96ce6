"""Rest: nothing but the own lease changes, and the facts that come all the time are taken in by the one they concern.

A service at rest acts, sees everybody renew, has no change of the voters under way, and no manager has anything to do
before a time that it has told. Until then a Tick concerns whoever's time has come, a beat's answer without news the
lease alone, another answer of a voter that is as it was the Database Manager alone, and a report of the resource host
the Resource Control Manager alone. That is nearly all that ever comes, and what is done for it is what the whole way
through all managers would do.
"""

from dataclasses import dataclass

from harness.cluster_service.core.messages import Action, Event, HostReported, Tick, VoterAnswered
from harness.cluster_service.core.resync import ResyncTimer
from harness.cluster_service.core.takeover_delay import NEVER_US, earliest_after
from harness.cluster_service.membership.membership import MembershipManager
from harness.cluster_service.membership.node import NodeManager
from harness.cluster_service.membership.voter_set import VoterSetManager
from harness.cluster_service.program_liveness import ProgramWatch
from harness.database.protocol import BeatAnswer, HelloAnswer, Refused

__all__ = ["IdleFastPath"]


@dataclass(slots=True, kw_only=True)
class IdleFastPath:
    """Until when the service rests: `until_us`, not ahead when it does not rest at all, and `wake_us`, when it wants a
    Tick. A look at everything is due with the first fact after its time and wakes nobody.
    """

    programs: ProgramWatch
    node: NodeManager
    membership: MembershipManager
    voter_set: VoterSetManager
    look: ResyncTimer
    until_us: int = 0
    wake_us: int | None = None
    _own_us: int = 0
    _others_us: int = NEVER_US
    _without_database_us: int = NEVER_US
    _until_us: int = 0

    def reckon(self, now: int, *, leased: bool, database_us: int | None) -> None:
        """Every manager has taken a fact in: when to look again by itself, and until when to rest."""
        others = self.look.wake_us, self.membership.next_wake(now), self.voter_set.next_wake(now)
        self._without_database_us = earliest_after(now, others) or NEVER_US
        waits = self.look.wake_us is not None and self.look.wake_us <= now
        if waits or not leased or not self.membership.may_act(now) or not self.node.all_alive(now):
            self._until_us = 0
        else:
            self._until_us = min(self.look.rests_until_us, self.voter_set.rests_until_us)
        self.reckon_database(database_us)
        self._reckon_own(now)

    def reckon_database(self, database_us: int | None) -> None:
        """Nothing else has changed since `reckon`."""
        others_us = self._without_database_us
        if database_us is not None and database_us < others_us:
            others_us = database_us
        self._others_us = others_us
        self.until_us = min(others_us, self._until_us)
        self.wake_us = min(others_us, self._own_us)

    def concerns_one(self, now: int, event: VoterAnswered | HostReported) -> bool:
        """Whether a fact that is no beat's answer concerns one manager only, and nobody's time has come."""
        if now >= self.until_us or now >= self._own_us or self.voter_set.has_news:
            return False
        if isinstance(event, HostReported):
            return True
        reply = event.reply
        if isinstance(reply, (BeatAnswer, HelloAnswer, Refused)):
            return False
        return self.voter_set.watch.hears_the_same(now, event.voter, reply.of)

    def _reckon_own(self, now: int) -> None:
        node_us, self._own_us = self.node.next_wake(), self.programs.next_wake()
        if node_us is not None and now < node_us < self._own_us:
            self._own_us = node_us
        self.wake_us = min(self._others_us, self._own_us)

    def handle(self, now: int, event: Event) -> list[Action] | None:
        """What a fact leads to that ends no rest. None for any other, which has the whole way before it."""
        if now >= self.until_us or self.voter_set.has_news:
            return None
        if isinstance(event, VoterAnswered):
            reply = event.reply
            if not isinstance(reply, BeatAnswer) or now >= self._own_us:
                return None
            if not self.voter_set.watch.hears_the_same(now, event.voter, reply.of):
                return None
            return self.node.renewed(now, event, reply)
        if not isinstance(event, Tick) or self.node.lapsed(now) or not self.node.all_alive(now):
            return None
        actions = self.programs.handle(now, event) if now >= self.programs.next_wake() else []
        actions += self.node.handle(now, event)
        self._reckon_own(now)
        return actions
