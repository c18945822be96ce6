"""Evidence that hostile guests wrote: bounded, each by itself, and fit to be shown.

The engine is a fake that answers the archive call with an archive of the file that the test asks for.
"""

import base64
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from chaos.arena.docker.artifacts import MAX_JOURNAL_BYTES, collect_evidence, read_journals
from chaos.checkers import one_instance_by_journals
from chaos.history.guest_journal import MAX_RUNS, read_guest_journal
from chaos.history.records import ContainerRole, EngineEventSeen, GuestJournal, History, to_plain
from chaos.history.verdict import Ruling
from harness.errors import EngineError, HarnessError
from harness.model import labels
from harness.rig.engine.archive_file import read_file

GOOD = b'{"boot": "a", "node": "node1", "boottime": 1}\n{"boot": "a", "node": "node1", "boottime": 2}\n'
FIFO, LINK, DIRECTORY, REGULAR = (1 << 25) | 0o644, (1 << 27) | 0o777, (1 << 31) | 0o755, 0o644


class Response:
    """One open answer of the engine; counts the bytes that were taken from it."""

    def __init__(self, parts: Iterator[bytes], *, mode: int, size: int) -> None:
        stat = json.dumps({"name": "journal.jsonl", "size": size, "mode": mode, "linkTarget": ""})
        self.headers = {"X-Docker-Container-Path-Stat": base64.b64encode(stat.encode()).decode()}
        self.closed = False
        self.taken = 0
        self._parts = parts

    def iter_content(self, _size: int) -> Iterator[bytes]:
        for part in self._parts:
            self.taken += len(part)
            yield part

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """Answers for the journals of VMs by name: bytes, or what makes a response."""

    base_url, api_version, timeout = "http+docker://localhost", "1.41", 60

    def __init__(self, journals: dict[str, bytes | Callable[[], Response]]) -> None:
        self._journals = journals
        self.responses: list[Response] = []
        self.api = self

    def get(self, _url: str, *, params: dict[str, str], stream: bool, timeout: int) -> Response:
        assert stream
        assert timeout
        _, _, vm, _, file = params["path"].split("/")
        journal = self._journals.get(vm if file == "journal.jsonl" else f"old {vm}")
        if journal is None:
            raise docker.errors.NotFound("no such file")
        response = regular(journal) if isinstance(journal, bytes) else journal()
        self.responses.append(response)
        return response

    def _raise_for_status(self, response: Response) -> None:
        pass

    def containers(self, **_: Any) -> list[Any]:
        return [{"Id": "c" * 64, "Names": ["/rig-node1"], "Labels": {labels.ROLE: "node"}}]

    def logs(self, _container: str, **_: Any) -> bytes:
        return b"\x1b[2J\x1b]0;owned\x07\xff\n"

    def inspect_container(self, container: str) -> Any:
        return {"Id": container, "Config": {"Labels": {}}}


def regular(content: bytes) -> Response:
    return Response(iter([archive(content)]), mode=REGULAR, size=len(content))


def archive(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("journal.jsonl")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(1 << 16)


def journals(engine: Any, *vms: str, **options: Any) -> dict[str, GuestJournal]:
    found = read_journals(engine, nodes=["node"], vms=vms, at_ns=1, **options)
    return {journal.vm: journal for journal in found}


def ran(*vms: str) -> History:
    history = History()
    for number, vm in enumerate(vms):
        history.append(
            EngineEventSeen(at_ns=number, action="start", container=vm, role=ContainerRole.VM, node="n", vm=vm)
        )
    return history


def check(*records: GuestJournal) -> Any:
    history = ran(*(record.vm for record in records))
    for record in records:
        history.append(record)
    return one_instance_by_journals.check(history)


HOSTILE: dict[str, bytes | Callable[[], Response]] = {
    "deep": b"[" * 100_000 + b"\n" + b'{"boot":' * 50_000 + b"\n",
    "nested": b"[" * 3000 + b"\n",
    "surrogates": b'{"boot": "a\\ud800", "node": "\\ud800", "boottime": 1}\n',
    "integers": b'{"boot": "a", "boottime": ' + b"9" * 4000 + b"}\n",
    "long integers": b'{"boot": "a", "boottime": ' + b"9" * 100_000 + b"}\n",
    "not a number": b'{"boot": "a", "boottime": NaN}\n{"boot": "a", "boottime": -1e400}\n',
    "twin keys": b'{"boot": "a", "boot": "b", "boottime": 1}\n',
    "wrong types": b'{"boot": 1}\n{"boot": "a", "node": [], "boottime": 1}\n{"boot": "a", "boottime": true}\n[]\n',
    "not UTF-8": b"\xff\xfe\x80\n",
    "fifo": lambda: Response(iter([b""]), mode=FIFO, size=0),
    "link": lambda: Response(iter([b""]), mode=LINK, size=20),
    "directory": lambda: Response(endless(), mode=DIRECTORY, size=4096),
    "sparse": lambda: Response(endless(), mode=REGULAR, size=300 << 20),
    "growing": lambda: Response(endless(), mode=REGULAR, size=100),
    "no archive": lambda: Response(iter([b"no archive"]), mode=REGULAR, size=10),
    "no stat": lambda: Response(iter([b""]), mode=REGULAR, size="many"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_journal_hides_no_other(name: str) -> None:
    engine = FakeEngine({"evil": HOSTILE[name], "good": GOOD})

    found = journals(engine, "evil", "good")

    assert found["good"].lines == 2
    verdict = check(*found.values())
    json.dumps([to_plain(record) for record in found.values()], allow_nan=False).encode()
    "; ".join((*verdict.reasons, *verdict.notes)).encode()
    if name != "surrogates":
        assert verdict.ruling is Ruling.INCONCLUSIVE
        assert len(verdict.reasons) == 1
        assert "evil" in verdict.reasons[0]
    assert all(response.closed for response in engine.responses)


def test_violation_of_another_guest_counts_beside_hostile_one() -> None:
    twice = b"".join(b'{"boot": "%s", "node": "n"}\n' % boot for boot in (b"a", b"b", b"a"))
    engine = FakeEngine({"evil": HOSTILE["deep"], "broken": twice})

    verdict = check(*journals(engine, "evil", "broken").values())

    assert verdict.ruling is Ruling.BROKEN
    assert verdict.reasons[0].startswith("broken ran twice")
    assert any("evil" in note for note in verdict.notes)


def test_previous_file_of_a_journal_comes_first() -> None:
    engine = FakeEngine({"vm": b'{"boot": "b"}\n{"boot": "c"}\n', "old vm": b'{"boot": "a"}\n{"boot": "b"}\n{"bo'})

    read = journals(engine, "vm")["vm"]

    assert [run.boot for run in read.runs] == ["a", "b", "c"]
    assert (read.lines, read.unreadable_lines) == (4, 1)


def test_oversized_file_is_refused_before_its_content_is_read() -> None:
    engine = FakeEngine({"evil": HOSTILE["sparse"]})

    found = journals(engine, "evil")["evil"]

    assert "314572800 bytes" in found.error
    assert engine.responses[0].taken == 0
    assert engine.responses[0].closed


def test_file_that_grows_is_given_up_at_the_limit() -> None:
    engine = FakeEngine({"evil": HOSTILE["growing"]})

    assert f"more than {MAX_JOURNAL_BYTES} bytes" in journals(engine, "evil")["evil"].error
    assert engine.responses[0].taken < MAX_JOURNAL_BYTES + (1 << 20)
    assert engine.responses[0].closed


def test_slow_file_is_given_up_at_its_time_limit() -> None:
    engine: Any = FakeEngine({"evil": lambda: Response(iter([b"x"] * 3), mode=REGULAR, size=3)})

    with pytest.raises(EngineError, match="and no end"):
        read_file(engine, ["node"], "/csv/evil/disk/journal.jsonl", limit_bytes=100, limit_s=-1)

    assert engine.responses[0].closed


def test_signal_ends_the_reading_of_journals() -> None:
    engine = FakeEngine({"evil": HOSTILE["growing"], "good": GOOD})
    asked = iter([False, False, True, True])

    found = journals(engine, "evil", "good", stopped=lambda: next(asked))

    assert all("asked to stop" in journal.error for journal in found.values())
    assert engine.responses[0].taken <= 2 << 16


def test_signal_ends_the_parsing_of_a_journal() -> None:
    def stop() -> None:
        raise HarnessError("stop")

    with pytest.raises(HarnessError):
        read_guest_journal('{"boot": "a"}\n' * 5000, vm="vm", at_ns=1, check=stop)


def test_two_hundred_thousand_boots_are_ruled_on_at_once() -> None:
    text = "".join(f'{{"boot":"{boot:x}","node":"n","boottime":{boot * 10}}}\n' for boot in range(200_000))
    began = time.monotonic()

    read = read_guest_journal(text, vm="evil", at_ns=1)
    verdict = check(read)

    assert time.monotonic() - began < 5
    assert len(read.runs) == MAX_RUNS
    assert verdict.ruling is Ruling.INCONCLUSIVE
    assert "the journal of evil" in verdict.reasons[0]


def test_forged_violations_are_summed_up() -> None:
    text = "".join(f'{{"boot":"{"ab"[line % 2]}"}}\n' for line in range(5000))

    verdict = check(read_guest_journal(text, vm="evil", at_ns=1))

    assert verdict.ruling is Ruling.BROKEN
    assert verdict.reasons[-1] == "evil: 4993 more like these"


def test_names_in_a_journal_are_made_visible() -> None:
    text = json.dumps({"boot": "a\x1b[2J", "node": "n\u202e\x07"}) + "\n"

    run = read_guest_journal(text, vm="evil", at_ns=1).runs[0]

    assert (run.boot, run.node) == ("a\\u001b[2J", "n\\u202e\\u0007")


def test_written_evidence_commands_no_terminal(tmp_path: Path) -> None:
    escapes = b"\x1b[2J\x1b]0;owned\x07\xc2\x85\xe2\x80\xae\n"
    engine: Any = FakeEngine({"evil": escapes, "fifo": HOSTILE["fifo"], "good": GOOD})

    collect_evidence(engine, rig="rig", directory=tmp_path, events=[], journals=["evil", "fifo", "good"])

    written = (tmp_path / "evil.journal.jsonl").read_text(encoding="utf-8")
    written += (tmp_path / "rig-node1.log").read_text(encoding="utf-8")
    assert not any(letter in written for letter in "\x1b\x07\x85\u202e")
    assert "FIFO" in (tmp_path / "fifo.journal.jsonl").read_text(encoding="utf-8")
    assert (tmp_path / "good.journal.jsonl").read_bytes() == GOOD
