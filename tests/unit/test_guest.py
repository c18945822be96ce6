"""The VM of the rig: its journal on disks that fill, its beat across freezes, its HTTP side."""

import errno
import importlib.util
import json
import os
import select
import socket
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "images" / "guest" / "guest.py"
spec = importlib.util.spec_from_file_location("guest", PATH)
guest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guest)

MS = 1_000_000


class SmallDisk:
    """The twin of os.write on a disk with room for so many bytes: the last write is cut short, the next refused."""

    def __init__(self, room):
        self.room = room

    def write(self, descriptor, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = data[: self.room]
        self.room -= len(taken)
        return os.write(descriptor, taken)


def journal_on(disk, tmp_path):
    return guest.Journal(str(tmp_path / "journal.jsonl"), write=disk.write)


def whole_lines(tmp_path):
    """The records of the journal's lines that are whole; a torn one is a line of its own."""
    records = []
    for line in (tmp_path / "journal.jsonl").read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            assert line.count("{") == 1, "a line was begun inside a torn one"
    return records


class TestJournal:
    def test_lines_are_counted_from_one(self, tmp_path):
        journal = journal_on(SmallDisk(10_000), tmp_path)

        for _ in range(3):
            journal.append({"vm": "m"})

        assert whole_lines(tmp_path) == [{"vm": "m", "count": count} for count in (1, 2, 3)]
        assert journal.disk == "ok"

    @pytest.mark.parametrize("room", range(0, 70))
    def test_full_disk_stops_nothing_and_tears_at_most_one_line(self, tmp_path, room):
        disk = SmallDisk(room)
        journal = journal_on(disk, tmp_path)

        before = [journal.append({"vm": "m"}) for _ in range(5)]
        told = journal.disk
        disk.room = 1  # just enough to close a torn line
        journal.append({"vm": "m"})
        disk.room = 10_000
        after = [journal.append({"vm": "m"}) for _ in range(2)]

        assert told == "full"
        assert after == [True, True]
        assert journal.disk == "ok"
        assert [record["count"] for record in whole_lines(tmp_path)] == list(range(1, sum(before) + 3))

    def test_line_torn_by_an_earlier_boot_is_closed_first(self, tmp_path):
        (tmp_path / "journal.jsonl").write_text('{"vm": "m", "count": 1}\n{"mach')
        journal = journal_on(SmallDisk(10_000), tmp_path)

        journal.append({"vm": "m"})

        assert (tmp_path / "journal.jsonl").read_text().splitlines()[1:] == ['{"mach', '{"vm": "m", "count": 1}']

    def test_journal_of_an_earlier_boot_is_continued(self, tmp_path):
        (tmp_path / "journal.jsonl").write_text('{"boot": "a", "count": 1}\n')
        journal = journal_on(SmallDisk(10_000), tmp_path)

        journal.append({"boot": "b"})

        assert [record["boot"] for record in whole_lines(tmp_path)] == ["a", "b"]

    def test_disk_that_is_not_there_yet_is_named_and_tried_again(self, tmp_path):
        journal = guest.Journal(str(tmp_path / "disk" / "journal.jsonl"))

        first = journal.append({})
        told = journal.disk
        (tmp_path / "disk").mkdir()

        assert not first
        assert told == "ENOENT"
        assert journal.append({})


    def test_journal_that_has_its_size_is_renamed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(guest, "MAX_JOURNAL_BYTES", 2000)
        journal = journal_on(SmallDisk(1_000_000), tmp_path)

        for _ in range(1000):
            assert journal.append({"vm": "m"})

        old = (tmp_path / "journal.old.jsonl").read_text().splitlines()
        assert [json.loads(line)["count"] for line in old][-1] + 1 == whole_lines(tmp_path)[0]["count"]
        assert whole_lines(tmp_path)[-1]["count"] == 1000
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3 * 2000 + 128 * 30

    def test_instance_follows_a_journal_that_another_has_renamed(self, tmp_path, monkeypatch):
        """Two that run at one time go on writing to one file, where their lines interleave."""
        monkeypatch.setattr(guest, "MAX_JOURNAL_BYTES", 2000)
        journals = [journal_on(SmallDisk(1_000_000), tmp_path) for _ in range(2)]

        for _ in range(500):
            for boot, journal in enumerate(journals):
                assert journal.append({"boot": boot})

        boots = [record["boot"] for record in whole_lines(tmp_path)]
        assert len(set(boots[-4:])) == 2

    def test_boot_of_two_lines_renames_a_full_journal(self, tmp_path, monkeypatch):
        monkeypatch.setattr(guest, "MAX_JOURNAL_BYTES", 2000)
        (tmp_path / "journal.jsonl").write_text('{"boot": "a", "count": 1}\n' * 100)
        journal = journal_on(SmallDisk(10_000), tmp_path)

        for _ in range(2):
            journal.append({"boot": "b"})

        assert [record["boot"] for record in whole_lines(tmp_path)] == ["b"]


class TestBeat:
    def test_beats_stay_on_the_grid(self):
        assert guest.next_beat(1000 * MS, 1003 * MS) == 1100 * MS

    @pytest.mark.parametrize("frozen_ms", [100, 101, 5000])
    def test_beats_missed_in_a_freeze_are_not_made_up_for(self, frozen_ms):
        thaw = (1000 + frozen_ms) * MS

        assert guest.next_beat(1000 * MS, thaw) == thaw + 100 * MS


def ask(front, poll, request, port):
    """Send a request, let the front work on what the poll reports, and return what came back."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
        client.sendall(request)
        for _ in range(2):  # accept, then read
            for descriptor, _ in poll.poll(2000):
                front.ready(descriptor, 0, lambda: b"body")
        return client.recv(4096)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestFront:
    def front(self, address="127.0.0.1"):
        poll, port = select.poll(), free_port()
        return guest.Front(address=address, port=port, poll=poll), poll, port

    def close(self, front):
        front._listener.close()

    def test_get_is_answered(self):
        front, poll, port = self.front()
        front.tend(0)

        response = ask(front, poll, b"GET /any HTTP/1.1\r\nHost: x\r\n\r\n", port)

        assert response.startswith(b"HTTP/1.1 200 OK\r\n")
        assert response.endswith(b"Content-Length: 4\r\nConnection: close\r\n\r\nbody")
        self.close(front)

    @pytest.mark.parametrize(
        ("request_head", "start", "has_body"),
        [(b"HEAD / HTTP/1.1", b"HTTP/1.1 200", False), (b"POST / HTTP/1.1", b"HTTP/1.1 405", True)],
    )
    def test_other_methods_get_what_is_theirs(self, request_head, start, has_body):
        response = guest.answer(request_head, b"body")

        assert response.startswith(start)
        assert response.endswith(b"body") is has_body

    def test_address_that_is_not_there_yet_is_tried_again(self, capsys):
        front, poll, port = self.front()
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
            front.tend(0)
            front.tend(100 * MS)
        complaints = capsys.readouterr().err.count("cannot listen")

        front.tend(200 * MS)

        assert complaints == 1
        assert ask(front, poll, b"GET / HTTP/1.0\r\n\r\n", port).startswith(b"HTTP/1.1 200")
        self.close(front)

    def test_client_that_says_nothing_is_dropped(self):
        front, poll, port = self.front()
        front.tend(0)
        with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            for descriptor, _ in poll.poll(2000):
                front.ready(descriptor, 0, lambda: b"")

            front.tend(guest.REQUEST_TIME_LIMIT)

            assert client.recv(1) == b""
        self.close(front)

    def test_clients_that_hold_on_do_not_silence_the_vm(self):
        front, poll, port = self.front()
        front.tend(0)
        holding = []
        for _ in range(guest.CLIENTS_LIMIT + 5):
            holding.append(socket.create_connection(("127.0.0.1", port), timeout=2))
            for descriptor, _ in poll.poll(2000):
                front.ready(descriptor, 0, lambda: b"")

        response = ask(front, poll, b"GET / HTTP/1.0\r\n\r\n", port)

        assert response.startswith(b"HTTP/1.1 200")
        for client in holding:
            client.close()
        front.tend(guest.REQUEST_TIME_LIMIT)
        self.close(front)

    def test_vm_without_an_address_serves_nobody(self):
        front, _, _ = self.front(address="")

        front.tend(0)

        assert front._listener is None
