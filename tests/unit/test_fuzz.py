"""A short run of the fuzzer over every surface, and the fuzzer itself: it finds, shrinks and repeats."""

import random
from pathlib import Path

import pytest

from chaos.history.records import LogLine
from chaos.report.run_record import read_journal
from chaos.search.replay import read_past_run
from fuzz.finding import Finding
from fuzz.journals import sample_journals
from fuzz.mutation import mutated_bytes, mutated_text, mutated_values
from fuzz.run import Fuzzing, drawn, judged, main
from fuzz.shrinking import shrunk
from fuzz.surfaces import NAME, TextSurface, surfaces, wrong_refusal
from harness.errors import UsageError
from harness.wire import FrameDecoder, FrameError

SEED = 20_261_201


def test_no_document_of_a_short_run_is_a_finding(tmp_path: Path) -> None:
    fuzzing = Fuzzing(seed=SEED, out=tmp_path / "out")

    fuzzing.run(surfaces(tmp_path), documents=210, seconds=250)

    assert not fuzzing.findings, [path.with_suffix(".txt").read_text() for path in fuzzing.findings.values()]
    assert len(fuzzing.judged) == 7
    assert sum(fuzzing.judged.values()) == 210


def test_documents_of_all_surfaces_are_right_before_they_are_mutated(tmp_path: Path) -> None:
    """Else every mutation would end at the first refusal."""
    for surface in surfaces(tmp_path):
        if isinstance(surface, TextSurface):
            for seed in surface.seeds:
                assert surface.read(seed) is None


def reads(text: str) -> Finding | None:
    if "bad" in text:
        raise KeyError(text)
    raise UsageError(f"{NAME}:1: no, expected yes")


def test_escaped_exception_is_found_shrunk_and_written(tmp_path: Path) -> None:
    surface = TextSurface(name="trial", seeds=["a: bad\nb: [1, 2, 3]\nc: some more\n"], read=reads, by_values=0)
    fuzzing = Fuzzing(seed=0, out=tmp_path)

    fuzzing.run([surface], documents=20, seconds=60)

    ((kind, place),) = ((kind, place) for (_, kind), place in fuzzing.findings.items())
    assert kind.startswith("KeyError")
    assert place.read_bytes() == b"bad"
    assert "KeyError" in place.with_suffix(".txt").read_text()
    assert fuzzing.repeated > 0


def test_document_that_takes_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(_text: str) -> None:
        while True:
            pass

    monkeypatch.setattr("fuzz.run.MAX_CPU_S", 0.05)

    finding = judged(TextSurface(name="trial", seeds=["a"], read=forever), b"a")

    assert finding is not None
    assert finding.kind == "TooSlow"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"{NAME}:1: a\x1b[2J, expected b", "refusal with control characters"),
        ("a, expected b", "refusal without file and line"),
        (f"{NAME}:x: a, expected b", "refusal without file and line"),
        (f"{NAME}:1: a, expected b\nblackstart: forged, expected b", "refusal without file and line"),
        (f"{NAME}:1: a", "refusal without an expected form"),
        ("\n".join([f"{NAME}:1: a, expected b"] * 40), "too many refusals"),
        (f"{NAME}:1: {'a' * 3000}, expected b", "refusal of more than a screen"),
    ],
)
def test_refusals_are_judged(text: str, kind: str) -> None:
    finding = wrong_refusal(text, with_lines=True)

    assert finding is not None
    assert finding.kind == kind
    assert wrong_refusal(f"{NAME}:1: a, expected b", with_lines=True) is None


def test_document_depends_on_seed_surface_and_number_alone(tmp_path: Path) -> None:
    once, again = ([drawn(surface, 5, number) for surface in surfaces(tmp_path) for number in (3, 1)] for _ in range(2))

    assert once == again
    assert len(set(once)) == len(once)


def test_one_document_can_be_written_again(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    assert main(["--seed", "5", "--surface", "schedule", "--number", "3"]) == 0

    (schedules,) = (surface for surface in surfaces(tmp_path) if surface.name == "schedule")
    assert capfdbinary.readouterr().out == drawn(schedules, 5, 3)


def test_mutations_keep_to_their_size() -> None:
    for number in range(200):
        rng = random.Random(number)
        assert len(mutated_text(rng, "a: [1]\n" * 5000, ["b: 2"])) <= 60_000
        assert len(mutated_values(rng, "a: [1, {b: c}]\n", ["b: 2"])) <= 60_000
        assert len(mutated_bytes(rng, b"a" * 1000, [b"b"])) <= 240_000


def test_shrinking_leaves_the_bytes_that_matter() -> None:
    assert shrunk(b"xx a yyyyyyyyy b zzzz", lambda trial: b"a" in trial and b"b" in trial) == b"ab"


# Found by the fuzzer, or beside it.


@pytest.mark.parametrize("body", [b'{"a": ' + b"[" * 20_000, b'{"a": ' * 20_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_frame_nested_too_deeply_is_no_frame(body: bytes) -> None:
    with pytest.raises(FrameError, match="frame is not JSON"):
        FrameDecoder().feed(len(body).to_bytes(4, "big") + body)


def test_refusal_of_a_journal_is_short_and_printable(tmp_path: Path) -> None:
    (document, *_), _ = sample_journals()
    file = tmp_path / "journal.json"
    file.write_text(document.replace('"kind": "broken"', '"kind": "' + "../x\\n" * 2000 + '"'))

    with pytest.raises(UsageError) as caught:
        read_journal(file)

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("seed", ["1e400", "NaN", "[" * 20_000, "9" * 5000, '{"a": ' * 20_000, "null"])
def test_journal_without_a_seed_is_not_replayed(seed: str) -> None:
    (document, *_), _ = sample_journals()

    with pytest.raises(UsageError, match="no whole journal of a run"):
        read_past_run(document.replace('"seed": 3', f'"seed": {seed}'), name=NAME)


@pytest.mark.parametrize("number", ["1e400", "NaN", "[" * 20_000, "9" * 5000, str(1 << 63)])
def test_journal_with_numbers_of_no_journal_is_refused(number: str, tmp_path: Path) -> None:
    (document, *_), _ = sample_journals()
    file = tmp_path / "journal.json"
    file.write_text(document.replace('"began_ns": 1700000000000000000', f'"began_ns": {number}'))

    with pytest.raises(UsageError, match=r"expected the journal\.json of a run"):
        read_journal(file)


def test_sample_journals_have_every_kind_of_record(tmp_path: Path) -> None:
    documents, lines = sample_journals()
    for text in (*documents, lines[1]):
        file = tmp_path / "journal"
        file.write_text(text)
        run = read_journal(file)
        assert run.left_out == 0
        assert run.history.of(LogLine)
