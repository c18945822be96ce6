"""Loads an experiment from a file or a text. Everything that cannot be carried out is refused, all of it at once."""

from pathlib import Path

from chaos.experiment.document_reader import ExperimentReader
from chaos.experiment.records import Experiment
from harness.document.text_file import read_text_file

__all__ = ["load_experiment", "read_experiment"]

FILE_LIMIT_BYTES = 1 << 20
"""An experiment of that size is no experiment; reading it as one would take minutes."""


def load_experiment(path: Path, *, rig: str | None = None) -> Experiment:
    """The experiment in a file.

    `rig` is the rig's name and wins over the document's. Raises UsageError with everything that is wrong.
    """
    text = read_text_file(path, max_bytes=FILE_LIMIT_BYTES, expected="an experiment in YAML or JSON")
    return read_experiment(text, name=str(path), rig=rig)


def read_experiment(text: str, *, name: str, rig: str | None = None) -> Experiment:
    """The experiment in `text`; messages call the file `name`. Raises UsageError with everything that is wrong."""
    return ExperimentReader(text, name=name, rig=rig).read()
