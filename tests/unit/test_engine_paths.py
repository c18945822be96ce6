"""Names in the engine's API paths: one that leaves its place is never sent."""

import asyncio

import docker
import pytest

from harness.document.image_reference import is_image_reference
from harness.errors import EngineError
from harness.live.docker_engine import DockerEngine
from harness.live.engine_paths import guard_paths


@pytest.mark.parametrize(
    "name", ["../containers/x", "a/../../containers/x", "..", ".", "", "a//b", "/a", "a/", "./a"]
)
def test_image_name_that_leaves_its_path_is_never_sent(name: str) -> None:
    client = docker.APIClient(base_url="unix:///nowhere", version="1.41")
    guard_paths(client)

    with pytest.raises(EngineError, match="not sent"):
        client._url("/images/{0}/json", name)


@pytest.mark.parametrize("name", ["a/b", "..", "", "a/../b"])
def test_container_name_has_no_slash(name: str) -> None:
    client = docker.APIClient(base_url="unix:///nowhere", version="1.41")
    guard_paths(client)

    with pytest.raises(EngineError, match="not sent"):
        client._url("/containers/{0}/json", name)


def test_names_that_stay_are_sent_quoted() -> None:
    client = docker.APIClient(base_url="unix:///nowhere", version="1.41")
    guard_paths(client)

    assert client._url("/images/{0}/json", "localhost:5000/shop/database:15").endswith(
        "/v1.41/images/localhost:5000/shop/database:15/json"
    )
    assert client._url("/containers/{0}/json", "a?b#c%").endswith("/v1.41/containers/a%3Fb%23c%25/json")


def test_engine_of_a_node_refuses_a_path_as_a_container() -> None:
    async def inspect() -> None:
        engine = DockerEngine(socket="/nowhere")
        try:
            await engine.inspect("../images/x")
        finally:
            engine.close()

    with pytest.raises(EngineError, match="not sent"):
        asyncio.run(inspect())


@pytest.mark.parametrize(
    "text",
    ["a", "shop/database:15", "localhost:5000/a/b:1", f"example.com/x@sha256:{'a' * 64}", "[::1]:80/x", "a__b--c.d"],
)
def test_image_references_of_the_grammar_are_taken(text: str) -> None:
    assert is_image_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "A", "..", "a/../b", "a//b", "/a", "a/", "a:", "a:b:c", "a b", "a\n", "a?b", "a%2e", "-a", "a-", "a..b"),
        *("é", "a" * 256, "a@sha256:abc", "https://a/b"),
    ],
)
def test_other_texts_are_no_image_reference(text: str) -> None:
    assert not is_image_reference(text)
