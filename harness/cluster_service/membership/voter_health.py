"""What this node sees of each voter: answers, refuses and why, silent since when. Facts; it decides nothing.

Fed with every answer and every failure of a call, whoever asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.cluster_service.core.messages import Action, Event, Log, VoterAnswered, VoterFailed
from harness.database.protocol import Address, HelloAnswer, RefusalReason, Refused

__all__ = ["VoterView", "VoterWatch"]

COMPONENT = "database-manager"


@dataclass(slots=True)
class VoterView:
    """One voter. `incarnation` is the life that it told last, empty for a voter without its disk; None while it never
    answered. `behind`: it has lost writes and knows it. Times in microseconds.
    """

    answered_us: int | None = None
    silent_since_us: int | None = None
    told_silent: bool = False
    incarnation: str | None = None
    set_version: int = 0
    as_whom: Address | None = None
    behind: bool = False
    reason: str = ""


class VoterWatch:
    """The voters by name. A voter is called silent once it has not answered for `patience_us`."""

    def __init__(self, *, patience_us: int) -> None:
        self.changes = 0
        """How often a voter was found to be another than it was: it may be lost, or be there to be added."""
        self._patience_us = patience_us
        self._voters: dict[str, VoterView] = {}
        self._expected: set[str] = set()
        self._members_since_us: dict[tuple[str, str], int] = {}

    def expect(self, now: int, members: Mapping[str, str]) -> None:
        """These lives of these voters count from now on: what a voter said before does not tell whether it is lost."""
        known = self._members_since_us
        self._members_since_us = {life: known.get(life, now) for life in members.items()}
        self._expected.update(members)

    def view(self, voter: str) -> VoterView:
        """What is known of that voter."""
        view = self._voters.get(voter)
        if view is None:
            view = self._voters[voter] = VoterView()
        return view

    def answers(self, now: int, voter: str, incarnation: str) -> bool:
        """Whether that life of the voter has answered lately and may vote."""
        view = self.view(voter)
        lately = view.answered_us is not None and now - view.answered_us <= self._patience_us
        return lately and view.incarnation == incarnation and not view.behind

    def lost(self, voter: str, incarnation: str) -> str:
        """Why that life of the voter is over for good: a sentence, empty when it is not known to be."""
        view = self.view(voter)
        since_us = self._members_since_us.get((voter, incarnation))
        if view.incarnation is None or view.answered_us is None or since_us is None or view.answered_us <= since_us:
            return ""
        if view.incarnation == "":
            return "it came back empty"
        if view.incarnation != incarnation:
            return f"it came back as {view.incarnation}"
        return "it has lost writes that it had told of" if view.behind else ""

    def silent_for_us(self, now: int, voter: str) -> int:
        """How long the voter has not answered; 0 while it does."""
        view = self.view(voter)
        return now - view.silent_since_us if view.silent_since_us is not None else 0

    def hears_the_same(self, now: int, voter: str, of: Address) -> bool:
        """Take in that a voter has answered, if it is as it was when it last did; else that is for `handle`."""
        view = self._voters.get(voter)
        if view is None or view.as_whom != of or of.voter != voter or voter in self._expected:
            return False
        if view.behind or view.silent_since_us is not None:
            return False
        view.answered_us = now
        return True

    def handle(self, now: int, event: Event) -> list[Action]:
        """Take a fact in; tell when a voter falls silent and when it is heard again."""
        if isinstance(event, VoterAnswered):
            return self._answered(now, event)
        if isinstance(event, VoterFailed):
            return self._failed(now, event)
        return []

    def _answered(self, now: int, event: VoterAnswered) -> list[Action]:
        view, reply = self.view(event.voter), event.reply
        told = reply.voter if isinstance(reply, HelloAnswer) else reply.of.voter
        if told != event.voter:
            # Somebody else is at its address. That says nothing of the voter, least of all that its disk is lost.
            reason = f"{told} answers in its place"
            return self._failed(now, VoterFailed(number=event.number, voter=event.voter, reason=reason))
        was = view.incarnation, view.behind, view.silent_since_us is None
        if isinstance(reply, HelloAnswer):
            view.incarnation, view.behind, view.as_whom = reply.incarnation, reply.behind, None
            view.set_version = reply.voter_set.version if reply.voter_set is not None else 0
        else:
            view.as_whom = of = reply.of
            view.incarnation, view.set_version = of.incarnation, of.set_version
            view.behind = isinstance(reply, Refused) and reply.why is RefusalReason.BEHIND
        view.answered_us = now
        if was == (view.incarnation, view.behind, True) and event.voter not in self._expected:
            return []
        self._expected.discard(event.voter)
        self.changes += 1
        was_silent, view.silent_since_us, view.told_silent, view.reason = view.told_silent, None, False, ""
        if not was_silent:
            return []
        message = f"voter {event.voter} answers again"
        return [Log(component=COMPONENT, event="voter-answers", message=message, fields={"voter": event.voter})]

    def _failed(self, now: int, event: VoterFailed) -> list[Action]:
        view = self.view(event.voter)
        view.reason = event.reason
        if view.silent_since_us is None:
            view.silent_since_us = now
        if view.told_silent or now - view.silent_since_us < self._patience_us:
            return []
        view.told_silent = True
        message = f"voter {event.voter} does not answer: {event.reason or 'no answer within the limit'}"
        fields = {"voter": event.voter, "reason": event.reason}
        return [Log(component=COMPONENT, event="voter-silent", message=message, fields=fields)]
