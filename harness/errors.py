"""The errors of Blackstart, drawn once.

BlackstartError
├── UsageError            a wrong file, option or name: refused before anything starts (exit 2)
├── RequestRefused        the cluster answered a person's request with no (exit 1)
├── ConditionUnmet        what a command was to bring about, or to wait for, did not come in time (exit 1)
├── HarnessError          the harness itself could not do its work (exit 4)
│   ├── WaitTimeout       a wait reached its limit; says what it waited for and what it saw last
│   │   └── NotOnline     every node is Up, and a group of the rig's document did not get Online (run: 3, up: 1)
│   └── ApiUnanswered     a node's API gave no answer: what was asked for may or may not be done
│       └── ApiUnreachable  there was no connection to it: what was asked for is certainly not done
├── CleanupError          something is left behind; says what and how to remove it (exit 5)
└── EngineError           a call of the container engine failed
    ├── EngineUnanswered  nobody knows whether the call was or will be carried out
    ├── NotOwned          the object is not the rig's, or that cannot be proven: the call was not made
    └── NoSuchContainer   the engine says that the object does not exist: the call had and will have no effect

A leaf exists only where someone catches it. An error about a remote effect says through its class whether the effect
certainly did not happen: `NoSuchContainer` certainly, plain `EngineError` means that the engine answered with a
refusal that proves nothing about calls still under way, `EngineUnanswered` means unknown.
"""

__all__ = [
    "ApiUnanswered",
    "ApiUnreachable",
    "BlackstartError",
    "CleanupError",
    "ConditionUnmet",
    "EngineError",
    "EngineTooLate",
    "EngineUnanswered",
    "HarnessError",
    "NoSuchContainer",
    "NotOnline",
    "NotOwned",
    "RequestRefused",
    "UsageError",
    "WaitTimeout",
]


class BlackstartError(Exception):
    """Root of every error that Blackstart raises on purpose."""


class UsageError(BlackstartError):
    """The person gave something that cannot be used; nothing was started."""


class RequestRefused(BlackstartError):
    """The cluster refused a request, and says why; nothing was done. `code` is the node API's word for it."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class ConditionUnmet(BlackstartError):
    """A command waited for its effect, and the time was up."""


class HarnessError(BlackstartError):
    """The harness could not do its work: the verdict is about the harness, not about the system under test."""


class WaitTimeout(HarnessError):
    """A wait ended at its limit."""

    def __init__(self, *, waited_for: str, saw: str, limit_s: float, advice: str = "") -> None:
        """`waited_for` and `saw` are sentences without a full stop; `limit_s` is in seconds."""
        text = f"waited {limit_s:g} s for {waited_for}; last saw: {saw}"
        super().__init__(f"{text}. {advice}" if advice else text)
        self.waited_for = waited_for
        self.saw = saw
        self.limit_s = limit_s


class NotOnline(WaitTimeout):
    """The nodes of a rig are Up, and what its document wants Online is not: the harness has done its work, and an
    image, a command or a readiness check of the document may be wrong.
    """


class ApiUnanswered(HarnessError):
    """A node's API gave no answer in time, or the connection broke: what was asked for may or may not be done."""


class ApiUnreachable(ApiUnanswered):
    """No connection could be made: what was asked for is certainly not done."""


class CleanupError(BlackstartError):
    """Something of a rig or a fault is left behind."""


class EngineError(BlackstartError):
    """The engine refused a call. Proves nothing about other calls that are still under way."""


class EngineUnanswered(EngineError):
    """The engine gave no answer in time, or the connection broke: the call may still be carried out, even much
    later.
    """


class EngineTooLate(EngineError):
    """The call has waited until after its time and was not sent: nothing was asked of the engine, and nothing will be.
    """


class NotOwned(EngineError):
    """The object is not the rig's, or nothing proves that it is: nothing was done to it."""


class NoSuchContainer(EngineError):
    """The named container does not exist; a call that names it can never have an effect again."""
