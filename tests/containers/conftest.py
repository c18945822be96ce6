"""What tests with real containers share: the engine, and rigs that are gone when the test is over, whatever happened.

Without an engine these tests fail; they do not skip. Whoever has none deselects them (`-m "not containers"`).
"""

import os
import secrets
from collections.abc import Callable, Iterator

import docker
import pytest

from harness.document.topology import read_topology
from harness.document.yaml_source import load
from harness.model.topology import Topology
from harness.rig.engine.connection import connect
from harness.rig.lifecycle.rig import Rig
from harness.rig.lifecycle.teardown import remove_rig

MakeRig = Callable[[str], Rig]


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The engine's client."""
    client = connect()
    yield client
    client.close()


@pytest.fixture(scope="session")
def rig_names(engine: docker.DockerClient) -> Iterator[Callable[[], str]]:
    """Makes names of rigs that nobody else has; at the end whatever carries one of them is removed."""
    made: list[str] = []

    def make() -> str:
        made.append(f"test-{os.getpid()}-{secrets.token_hex(2)}")
        return made[-1]

    yield make
    for name in made:
        remove_rig(engine, name, say=print)


@pytest.fixture(scope="session")
def make_rig(engine: docker.DockerClient, rig_names: Callable[[], str]) -> MakeRig:
    """`make_rig(TEXT)` makes the rig of a topology document and waits until it is Online."""

    def make(text: str) -> Rig:
        return Rig.up(topology(text, name=rig_names()), say=print, client=engine)

    return make


def topology(text: str, *, name: str) -> Topology:
    """The topology of a document's text."""
    return read_topology(load(text, name="rig.yaml"), rig=name)
