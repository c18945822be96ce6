"""PID 1 of a node: the watchdog, the keeper of the programs, and what surrounds them. No process is started here."""

import importlib
import json
import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "images" / "hypervisor"))
init = importlib.import_module("init")
log = importlib.import_module("node_log")
processes = importlib.import_module("node_processes")
programs = importlib.import_module("node_programs")
watchdog = importlib.import_module("node_watchdog")

S = 1_000_000_000
MS = 1_000_000


def pet(guests_end_at, node_ends_at):
    return watchdog.Pet(guests_end_at=guests_end_at, node_ends_at=node_ends_at)


def guests(alive):
    return watchdog.Guests(alive=alive)


def vms(alive):
    return watchdog.Vms(alive=alive)


def orders(actions):
    """What is to be done, without the log lines."""
    return [action for action in actions if not isinstance(action, watchdog.Log)]


KILL = watchdog.KillGuests()
COUNT = watchdog.CountVms()
RESET = watchdog.Exit(status=87)
WOKE = watchdog.Woke()


def granted_until(guests_end_at, node_ends_at):
    dog = watchdog.Watchdog(node_ends_at=60 * S)
    dog.handle(1 * S, pet(guests_end_at, node_ends_at))
    assert dog.permit is watchdog.Permit.GRANTED
    return dog


class TestWatchdog:
    def test_node_that_is_never_petted_ends_at_the_boot_grace(self):
        dog = watchdog.Watchdog(node_ends_at=60 * S)

        early = orders(dog.handle(60 * S - 1, WOKE))
        late = orders(dog.handle(60 * S, WOKE))

        assert RESET not in early
        assert late == [RESET]

    def test_guests_die_when_the_first_deadline_passes_and_the_node_at_the_second(self):
        dog = granted_until(3 * S, 4 * S)

        assert orders(dog.handle(3 * S - 1, WOKE)) == []
        assert orders(dog.handle(3 * S, WOKE)) == [KILL]
        assert orders(dog.handle(3 * S, guests(0))) == []
        assert orders(dog.handle(4 * S, WOKE)) == [RESET]

    def test_nothing_is_ordered_after_the_reset(self):
        dog = granted_until(3 * S, 4 * S)
        dog.handle(4 * S, WOKE)

        assert dog.handle(5 * S, pet(9 * S, 10 * S)) == []

    def test_fresh_pet_after_a_freeze_does_not_save_the_node(self):
        dog = granted_until(3 * S, 4 * S)

        assert orders(dog.handle(5 * S, pet(7 * S, 8 * S))) == [RESET]

    def test_fresh_pet_after_a_freeze_does_not_save_the_guests(self):
        dog = granted_until(3 * S, 4 * S)

        assert orders(dog.handle(3 * S + 1, pet(7 * S, 8 * S))) == [KILL]

    def test_pet_that_came_while_guests_were_killed_counts_once_none_is_left(self):
        dog = granted_until(3 * S, 4 * S)
        dog.handle(3 * S + 1, pet(7 * S, 8 * S))

        dog.handle(3 * S + 10 * MS, guests(0))

        assert dog.permit is watchdog.Permit.GRANTED
        assert orders(dog.handle(7 * S - 1, WOKE)) == []
        assert orders(dog.handle(7 * S, WOKE)) == [KILL]

    def test_last_round_of_killing_orders_no_other(self):
        dog = granted_until(3 * S, 4 * S)
        dog.handle(3 * S, pet(7 * S, 8 * S))

        # the answer comes so late that another round would be due: it would hit guests of the new permit
        assert orders(dog.handle(3 * S + 50 * MS, guests(0))) == []

    def test_killing_is_repeated_until_none_is_left(self):
        dog = granted_until(3 * S, 4 * S)
        dog.handle(3 * S, WOKE)

        dog.handle(3 * S, guests(5))
        too_early = orders(dog.handle(3 * S + 4 * MS, WOKE))
        again = orders(dog.handle(3 * S + 5 * MS, WOKE))
        dog.handle(3 * S + 6 * MS, guests(0))
        after = orders(dog.handle(3 * S + 11 * MS, WOKE))

        assert too_early == []
        assert again == [KILL]
        assert KILL not in after

    def test_guests_that_cannot_be_killed_end_the_node_however_alive_the_service_is(self):
        dog = granted_until(3 * S, 4 * S)
        dog.handle(3 * S, WOKE)

        for now in range(3 * S, 4 * S, 100 * MS):
            dog.handle(now, pet(now + 2 * S, now + 3 * S))
            dog.handle(now, guests(1))

        assert orders(dog.handle(4 * S, pet(6 * S, 7 * S))) == [RESET]

    def test_lease_that_is_renewed_keeps_guests_and_node(self):
        dog = granted_until(3 * S, 4 * S)

        done = [orders(dog.handle(now, pet(now + 2 * S, now + 3 * S))) for now in range(2 * S, 20 * S, S // 2)]

        assert not any(done)

    def test_service_that_ends_its_session_is_believed_whatever_it_says_afterwards(self):
        dog = watchdog.Watchdog(node_ends_at=60 * S)

        done = orders(dog.handle(5 * S, pet(1, 1))) + orders(dog.handle(5 * S, pet(0, 65 * S)))

        assert done == [RESET]

    def test_session_is_ended_also_while_guests_are_being_killed(self):
        dog = granted_until(3 * S, 9 * S)
        dog.handle(3 * S, WOKE)

        assert RESET in orders(dog.handle(4 * S, pet(1, 1)))

    def test_service_without_a_lease_neither_ends_guests_nor_lengthens_the_node_once_guests_were_permitted(self):
        dog = granted_until(10 * S, 11 * S)

        dog.handle(5 * S, pet(0, 65 * S))

        assert dog.permit is watchdog.Permit.GRANTED
        assert KILL in orders(dog.handle(10 * S, WOKE))
        assert orders(dog.handle(11 * S, WOKE)) == [RESET]

    def test_pet_whose_first_deadline_has_passed_withdraws_the_permit_at_once(self):
        dog = granted_until(3 * S, 4 * S)

        assert orders(dog.handle(2 * S, pet(1, 9 * S))) == [KILL]

    def test_service_that_waits_to_join_keeps_the_node_without_permitting_guests(self):
        dog = watchdog.Watchdog(node_ends_at=60 * S)

        for now in range(1 * S, 200 * S, S):
            assert orders(dog.handle(now, pet(0, now + 3 * S))) == []

        assert dog.permit is watchdog.Permit.NONE

    def test_vm_that_appears_without_a_permit_is_killed(self):
        dog = watchdog.Watchdog(node_ends_at=60 * S)

        assert orders(dog.handle(1 * S, WOKE)) == [COUNT]
        assert orders(dog.handle(1 * S, vms(0))) == []
        assert orders(dog.handle(1 * S + 100 * MS, WOKE)) == []
        assert orders(dog.handle(1 * S + 250 * MS, WOKE)) == [COUNT]
        assert orders(dog.handle(1 * S + 250 * MS, vms(1))) == [KILL]

    def test_vm_counted_before_its_permit_was_read_is_left_alone(self):
        dog = watchdog.Watchdog(node_ends_at=60 * S)
        dog.handle(1 * S, WOKE)
        dog.handle(1 * S, pet(3 * S, 4 * S))

        assert orders(dog.handle(1 * S, vms(1))) == []

    def test_node_without_a_petting_program_has_no_deadline(self):
        dog = watchdog.Watchdog(node_ends_at=init.NEVER)

        assert RESET not in dog.handle(10**9 * S, WOKE)

    def test_next_wake_is_the_nearest_deadline(self):
        dog = granted_until(3 * S, 4 * S)

        before = dog.next_wake()
        dog.handle(3 * S, WOKE)
        dog.handle(3 * S, guests(1))

        assert before == 3 * S
        assert dog.next_wake() == 3 * S + 5 * MS

    @pytest.mark.parametrize("seed", range(20))
    def test_whatever_the_order_no_deadline_that_was_believed_is_missed(self, seed):
        rng = random.Random(seed)
        dog = watchdog.Watchdog(node_ends_at=60 * S)
        now = 0
        for _ in range(500):
            now += rng.choice([0, MS, 10 * MS, 300 * MS, 2 * S])
            guests_end_at, node_ends_at, permit = dog.guests_end_at, dog.node_ends_at, dog.permit
            event = rng.choice([WOKE, guests(0), guests(2), vms(0), vms(3), None])
            if event is None:
                first = now + rng.choice([-S, 0, S, 2 * S])
                event = pet(first, max(first, now) + S)

            done = orders(dog.handle(now, event))

            assert (RESET in done) == (now >= min(node_ends_at, dog.node_ends_at))
            if RESET in done:
                break
            if permit is watchdog.Permit.GRANTED and now >= guests_end_at:
                assert KILL in done
            if permit is watchdog.Permit.WITHDRAWN and event != guests(0):
                assert dog.permit is watchdog.Permit.WITHDRAWN
                assert dog.node_ends_at == node_ends_at


class TestPets:
    def test_all_that_the_pipe_held_are_read_in_order(self):
        data = watchdog.PET.pack(1, 2) + watchdog.PET.pack(3, 4)

        assert watchdog.pets_of(data) == [pet(1, 2), pet(3, 4)]

    @pytest.mark.parametrize("data", [b"", b"x", b"x" * 17])
    def test_what_is_not_whole_is_no_pet(self, data):
        assert watchdog.pets_of(data) is None

    def test_pets_are_sixteen_bytes_little_endian(self):
        assert watchdog.pets_of(b"\x01" + b"\0" * 7 + b"\x02" + b"\0" * 7) == [pet(1, 2)]


def hang(name, silent_since):
    return programs.Restart(name=name, silent_since=silent_since)


def keeper_of(*names):
    return programs.Keeper(tuple(programs.Program(name=name, argv=("x",), uid=900) for name in names))


def due_names(keeper, now):
    return [order.program.name for order in keeper.due(now)]


class TestKeeper:
    def test_all_programs_are_due_at_boot_and_none_while_they_run(self):
        keeper = keeper_of("voter", "service")

        at_boot = due_names(keeper, 0)
        keeper.started(0, "voter", 7)
        keeper.started(0, "service", 8)

        assert at_boot == ["voter", "service"]
        assert due_names(keeper, 100 * S) == []
        assert keeper.next_wake() == programs.NEVER

    def test_program_that_lived_a_second_is_due_at_once(self):
        keeper = keeper_of("service")
        keeper.started(0, "service", 8)

        keeper.died(1 * S, 8, -9)

        assert due_names(keeper, 1 * S) == ["service"]

    def test_program_that_dies_young_waits_twice_as_long_each_time_up_to_five_seconds(self):
        keeper = keeper_of("service")
        now, waits = 0, []
        for pid in range(2, 10):
            keeper.started(now, "service", pid)
            now += 10 * MS
            keeper.died(now, pid, 1)
            waits.append((keeper.next_wake() - now) / S)
            assert due_names(keeper, keeper.next_wake() - 1) == []
            now = keeper.next_wake()

        assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]

    def test_a_good_life_forgives_the_earlier_deaths(self):
        keeper = keeper_of("service")
        for pid in (2, 3, 4):
            keeper.started(0, "service", pid)
            keeper.died(0, pid, 1)
        keeper.started(0, "service", 5)
        keeper.died(2 * S, 5, 1)
        keeper.started(2 * S, "service", 6)

        keeper.died(2 * S, 6, 1)

        assert keeper.next_wake() == 2 * S + 200 * MS

    def test_program_that_could_not_be_started_waits_like_one_that_died_young(self):
        keeper = keeper_of("service")

        line = keeper.not_started(0, "service", "no such file")

        assert keeper.next_wake() == 200 * MS
        assert line.fields["reason"] == "no such file"

    def test_death_of_one_leaves_the_others_alone(self):
        keeper = keeper_of("voter", "service")
        keeper.started(0, "voter", 7)
        keeper.started(0, "service", 8)

        keeper.died(5 * S, 7, 1)

        assert due_names(keeper, 5 * S) == ["voter"]
        assert keeper.runs(8)
        assert not keeper.runs(7)

    def test_program_that_is_silent_since_before_it_was_started_is_not_killed(self):
        keeper = keeper_of("host", "service")
        keeper.started(10 * S, "host", 7)
        keeper.started(1 * S, "service", 8)

        early, late = keeper.hung(hang("host", 10 * S - 1)), keeper.hung(hang("host", 10 * S))

        assert (early, late) == (None, 7)

    def test_successor_of_a_program_that_hung_is_not_killed_by_a_late_line(self):
        keeper = keeper_of("host")
        keeper.started(0, "host", 7)
        keeper.died(9 * S, 7, -9)
        keeper.started(9 * S, "host", 9)

        assert keeper.hung(hang("host", 4 * S)) is None

    @pytest.mark.parametrize("name", ["host", "stranger"])
    def test_what_does_not_run_is_not_killed(self, name):
        assert keeper_of("host").hung(hang(name, 4 * S)) is None


class TestRestarts:
    def test_all_lines_that_the_pipe_held_are_read_in_order(self):
        assert programs.restarts_of(b"vmms 12\nresource-host 7\n") == [hang("vmms", 12), hang("resource-host", 7)]

    @pytest.mark.parametrize("data", [b"vmms 12", b"vmms\n", b"vmms x\n", b" 12\n", b"vmms 1 2\n", b"\xff 12\nvmms 1"])
    def test_what_is_no_whole_line_is_no_restart(self, data):
        assert programs.restarts_of(data) is None


class TestPrograms:
    ENVIRONMENT = {"BLACKSTART_NODE": "node2", "BLACKSTART_VOTERS": "node1=10.87.0.11,node2=10.87.0.12"}

    def names(self, **changes):
        return [program.name for program in programs.standard_programs({**self.ENVIRONMENT, **changes})]

    def test_node_with_a_vote_runs_a_voter(self):
        assert self.names() == ["voter", "vmms", "resource-host", "service"]

    @pytest.mark.parametrize("name", ["node3", "node", ""])
    def test_node_without_a_vote_runs_none(self, name):
        assert self.names(BLACKSTART_NODE=name) == ["vmms", "resource-host", "service"]

    def test_witness_runs_a_voter_alone(self):
        assert self.names(BLACKSTART_ROLE="witness") == ["voter"]

    def test_only_the_service_pets_and_serves_the_api_and_only_vmms_talks_to_the_engine(self):
        all_programs = programs.standard_programs(self.ENVIRONMENT)

        assert [program.name for program in all_programs if program.pets] == ["service"]
        assert [program.name for program in all_programs if program.serves_api] == ["service"]
        assert [program.name for program in all_programs if program.talks_to_engine] == ["vmms"]
        assert len({program.uid for program in all_programs}) == len(all_programs)

    def test_command_line_gives_the_program_its_own_identity_and_nothing_more(self):
        program = programs.Program(name="host", argv=("{api_fd}", "{pet_fd}"), uid=903, capabilities=("net_admin",))

        line = programs.command_line(program, descriptors={"pet_fd": 20, "api_fd": 21}, engine_group=106)

        assert line[0] == "setpriv"
        assert line[-2:] == ["21", "20"]
        assert "--no-new-privs" in line
        settings = dict(zip(line[1:-3:2], line[2:-3:2], strict=True))
        assert settings == {
            "--reuid": "903",
            "--regid": "903",
            "--groups": "910",
            "--inh-caps": "-all,+net_admin",
            "--ambient-caps": "-all,+net_admin",
            "--bounding-set": "-all,+net_admin",
        }

    def test_only_what_talks_to_the_engine_gets_the_group_of_its_socket(self):
        program = programs.Program(name="vmms", argv=("run",), uid=902, talks_to_engine=True)

        line = programs.command_line(program, descriptors={}, engine_group=106)

        assert line[line.index("--groups") + 1] == "910,106"

    def test_voter_is_in_no_group(self):
        voter = programs.standard_programs(self.ENVIRONMENT)[0]

        assert "--clear-groups" in programs.command_line(voter, descriptors={}, engine_group=106)

    def test_file_replaces_the_programs(self):
        entry = {"name": "stub", "argv": ["sleep", "9"], "uid": 900, "pets": True}
        text = json.dumps({"boot_grace_s": 3, "programs": [entry]})

        found, boot_grace_s = programs.programs_of_file(text)

        assert found == (programs.Program(name="stub", argv=("sleep", "9"), uid=900, pets=True),)
        assert boot_grace_s == 3

    def test_file_that_describes_something_else_is_refused(self, tmp_path, capsys):
        path = tmp_path / "programs.json"
        path.write_text('{"programs": [{"name": "x", "argv": ["x"], "uid": 900, "colour": "red"}]}')

        with pytest.raises(SystemExit) as ended:
            init.main([str(path)], {})

        assert ended.value.code == 2
        assert "colour" in capsys.readouterr().err


def status(uid, state="S (sleeping)", threads=1):
    text = f"Name:\tx: y\nState:\t{state}\nUid:\t{uid}\t0\t0\t0\nGid:\t1\t1\t1\t1\nThreads:\t{threads}\n"
    return processes.parse_status(42, text)


class TestProcesses:
    @pytest.mark.parametrize("uid", [0, 1000, 898, 910, 10001])
    def test_whoever_is_not_of_the_node_is_a_guest(self, uid):
        assert processes.is_guest(status(uid))

    @pytest.mark.parametrize("uid", range(899, 910))
    def test_the_nodes_own_identities_are_no_guests(self, uid):
        assert not processes.is_guest(status(uid))

    def test_pid_1_is_no_guest_whoever_it_runs_as(self):
        assert not processes.is_guest(processes.Process(pid=1, uid=0, alive=True))

    @pytest.mark.parametrize(
        ("state", "threads", "alive"),
        [("Z (zombie)", 1, False), ("X (dead)", 1, False), ("Z (zombie)", 3, True), ("D (disk sleep)", 1, True)],
    )
    def test_zombie_is_dead_unless_threads_of_it_run_on(self, state, threads, alive):
        assert status(10001, state, threads).alive is alive

    def test_this_process_is_found(self):
        found = {process.pid: process for process in processes.processes()}

        assert found[os.getpid()].uid == os.getuid()
        assert found[os.getpid()].alive


class TestLog:
    def test_line_has_the_form_of_the_cluster_log(self):
        read, write = os.pipe()
        writer = log.LogWriter(node="node1", descriptor=write)

        writer.put("init", log.Log(event="node-boots", message="up", fields={"uid": 899}))
        writer.flush(limit_s=5)

        line = os.read(read, 4096)
        assert line.endswith(b"\n")
        record = json.loads(line)
        assert list(record) == ["time", "node", "component", "id", "event", "message", "fields"]
        assert record["event"] == "node-boots"
        assert record["fields"] == {"uid": 899}

    def test_log_that_nobody_reads_never_blocks_and_tells_what_was_lost(self):
        read, write = os.pipe()
        writer = log.LogWriter(node="node1", descriptor=write, limit=10)
        for number in range(500):
            writer.put("init", log.Log(event="x", message="m" * 1000, fields={"number": number}))
        writer.flush(limit_s=0.01)

        written = b""
        while written.count(b"\n") < 10 or not writer._queue.empty():
            written += os.read(read, 65536)
        writer.put("init", log.Log(event="last", message="", fields={}))
        writer.flush(limit_s=5)
        written += os.read(read, 65536)

        records = [json.loads(line) for line in written.splitlines()]
        told = sum(record["fields"]["lines"] for record in records if record["event"] == "log-lost")
        assert records[-1]["event"] == "last"
        assert told == 500 - sum(record["event"] == "x" for record in records) > 0

    def test_lines_are_put_together_from_pieces(self):
        lines = log.Lines()

        assert lines.feed(b"one\ntw") == ["one"]
        assert lines.feed(b"o\n\n\xff\n") == ["two", "\N{REPLACEMENT CHARACTER}"]

    def test_line_without_an_end_does_not_grow_for_ever(self):
        lines = log.Lines()

        found = [line for _ in range(100) for line in lines.feed(b"x" * 1000)]

        assert found
        assert max(map(len, found)) <= log.LINE_LIMIT
