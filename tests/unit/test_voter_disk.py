"""The voter's disk as PID 1 looks after it: a file that does not load, a full disk, last words."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "images" / "hypervisor"))
voter_disk = importlib.import_module("voter_disk")

ARGV = ("redis-server", "/etc/blackstart/voter.conf")
TORN = "1:M # Unexpected end of file reading the append only file appendonly.aof.1.incr.aof. You can: 1) Make a backup"


def disk(directory: str = "/data", free: int | None = 1 << 30) -> Any:
    return voter_disk.VoterDisk(directory, lambda _: free)


@pytest.mark.parametrize(
    "line",
    [
        TORN,
        "1:M # Bad file format reading the append only file appendonly.aof.1.base.rdb: make a backup",
        "1:M # Invalid AOF manifest file format",
        "1:M # Found an empty AOF manifest",
        "1:M # Unable to obtain the AOF file appendonly.aof.1.incr.aof length. stat: No such file or directory",
        "1:M # Internal error in RDB reading offset 0, function at rdb.c:3249 -> Unexpected EOF reading RDB file",
    ],
)
def test_a_file_that_does_not_load_is_put_aside_once_before_the_next_start(line: str) -> None:
    voter = disk()
    voter.heard(line)

    command, told = voter.before_start(ARGV)
    again, quiet = voter.before_start(ARGV)

    assert command[:2] == ("sh", "-c")
    assert command[-2:] == ARGV
    assert told.event == "voter-file-unloadable"
    assert line in told.message
    assert (again, quiet) == (ARGV, None)


@pytest.mark.parametrize("line", ["1:M * Ready to accept connections", "1:M # Error writing to AOF: No space left"])
def test_any_other_word_of_the_voter_touches_no_file(line: str) -> None:
    voter = disk()
    voter.heard(line)

    assert voter.before_start(ARGV) == (ARGV, None)


def test_what_is_put_aside_keeps_its_content_and_the_program_follows(tmp_path: Path) -> None:
    files, older = tmp_path / "appendonlydir", tmp_path / "unloadable"
    for directory in (files, older):
        directory.mkdir()
    (files / "torn.aof").write_text("torn")
    voter = disk(str(tmp_path))
    voter.heard(TORN)
    command, _ = voter.before_start(("echo", "started"))

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "started\n"
    assert not files.exists()
    assert (older / "torn.aof").read_text() == "torn"


def test_a_full_disk_is_told_as_such() -> None:
    voter = disk(free=4096)
    voter.heard("1:M # Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting...")

    told = voter.ended()

    assert told.event == "voter-disk-full"
    assert told.fields["free_bytes"] == 4096


def test_otherwise_its_last_words_are_told() -> None:
    voter = disk()
    voter.heard("1:M # Fatal error, can't open config file")

    told = voter.ended()

    assert told.event == "voter-down"
    assert "can't open config file" in told.message
