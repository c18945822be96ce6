"""The watch over the node's other programs, on virtual time."""

import itertools

from harness.cluster_service.core.messages import (
    Action,
    HostConnected,
    HostLost,
    Log,
    PingProgram,
    ProgramAnswered,
    RestartProgram,
    Tick,
    WatchedProgram,
)
from harness.cluster_service.program_liveness import ProgramWatch
from harness.model.topology import Settings

SECOND = 1_000_000
HOST, VMMS = WatchedProgram.RESOURCE_HOST, WatchedProgram.VMMS


class Bench:
    """A watch that is looked at twice a second; `deaf` programs do not answer."""

    def __init__(self) -> None:
        self.watch = ProgramWatch(settings=Settings())
        self.now = 100 * SECOND
        self.deaf: set[WatchedProgram] = set()
        self.asked: list[tuple[int, WatchedProgram]] = []
        self.restarts: list[tuple[int, RestartProgram]] = []
        self.logs: list[Log] = []

    def run(self, seconds: float) -> None:
        end = self.now + int(seconds * SECOND)
        while self.now < end:
            self.take(self.watch.handle(self.now, Tick()))
            self.now += SECOND // 2

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case PingProgram(program):
                    self.asked.append((self.now, program))
                    if program not in self.deaf:
                        self.take(self.watch.handle(self.now, ProgramAnswered(program)))
                case RestartProgram():
                    self.restarts.append((self.now, action))
                case Log():
                    self.logs.append(action)


def test_programs_are_asked_every_second_and_left_alone_while_they_answer() -> None:
    bench = Bench()

    bench.run(60)

    assert bench.restarts == []
    assert len(bench.asked) == 2 * 60


def test_program_that_is_silent_for_the_limit_is_restarted_and_the_other_is_not() -> None:
    bench = Bench()
    bench.run(10)
    bench.deaf = {HOST}
    last_answer = max(at for at, program in bench.asked if program is HOST)

    bench.run(6)

    ((at, restart),) = bench.restarts
    assert restart == RestartProgram(program=HOST, silent_since_us=last_answer)
    assert 5 * SECOND <= at - last_answer <= 5.5 * SECOND
    assert [(log.event, log.id) for log in bench.logs] == [("program-hung", 1230)]


def test_program_that_never_answers_gets_twice_the_time_after_each_restart() -> None:
    bench = Bench()
    bench.deaf = {VMMS}

    bench.run(180)

    times = [at for at, _ in bench.restarts]
    assert [round((later - at) / SECOND) for at, later in itertools.pairwise(times)] == [10, 20, 40, 40, 40]
    assert all(restart.silent_since_us in (100 * SECOND, *times) for _, restart in bench.restarts)


def test_answer_brings_the_first_patience_back() -> None:
    bench = Bench()
    bench.deaf = {VMMS}
    bench.run(30)
    bench.deaf = set()
    bench.run(5)
    bench.deaf, bench.restarts = {VMMS}, []

    bench.run(6)

    assert len(bench.restarts) == 1


def test_service_that_was_frozen_itself_complains_of_nobody() -> None:
    bench = Bench()
    bench.run(10)
    bench.now += 30 * SECOND
    bench.deaf = {HOST, VMMS}

    bench.run(4.5)

    assert bench.restarts == []


def test_silence_of_a_host_counts_from_its_connection() -> None:
    bench = Bench()
    bench.run(10)
    bench.deaf = {HOST}
    bench.run(4)
    bench.take(bench.watch.handle(bench.now, HostLost()))
    bench.run(1)
    bench.take(bench.watch.handle(bench.now, HostConnected()))
    connected = bench.now

    bench.run(4.5)
    before = list(bench.restarts)
    bench.run(1.5)

    assert before == []
    assert [restart.silent_since_us for _, restart in bench.restarts] == [connected]
