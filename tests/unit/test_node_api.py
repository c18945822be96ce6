"""The node API's server over a real loopback socket: what it answers, what it refuses, what it withstands."""

import asyncio
import random
import time
from importlib import metadata
from typing import Any

import pytest
from node_api_harness import AUTHORIZED, LIMIT_S, SNAPSHOT, TOKEN, Bench, answer, serve

from harness.live.node_api import Limits


class TestWhatItAnswers:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/snapshot", SNAPSHOT),
            ("/v1/groups", {"groups": SNAPSHOT["groups"]}),
            ("/v1/groups/web", SNAPSHOT["groups"][0]),
            ("/v1/resources/web-vm", {"name": "web-vm", "state": "Online", "group": "web", "owner": "node1"}),
            ("/v1/nodes", {"nodes": SNAPSHOT["nodes"]}),
            ("/v1/nodes/node1", SNAPSHOT["nodes"][0]),
        ],
    )
    def test_looks_are_parts_of_the_snapshot(self, path: str, body: Any) -> None:
        async def scenario(bench: Bench) -> None:
            reply = await bench.get(path)

            assert (reply.status, reply.json) == (200, body)
            assert reply.headers["content-type"] == "application/json"
            assert bench.service.asked == []

        serve(scenario)

    def test_version_is_that_of_the_api_and_of_the_package(self) -> None:
        async def scenario(bench: Bench) -> None:
            told = (await bench.get("/v1/version")).json

            assert told["api"] == 1
            assert told["node"] == "node1"
            assert told["blackstart"] == metadata.version("blackstart")

        serve(scenario)

    @pytest.mark.parametrize(
        ("path", "body", "call", "arguments"),
        [
            ("groups/web/online", "", "group.online", {"group": "web"}),
            ("groups/web/offline", "{}", "group.offline", {"group": "web"}),
            ("groups/web/move", "", "group.move", {"group": "web"}),
            ("groups/web/move", '{"target": "node2"}', "group.move", {"group": "web", "target": "node2"}),
            ("resources/web-vm/online", "", "resource.online", {"resource": "web-vm"}),
            ("resources/web-vm/offline", "", "resource.offline", {"resource": "web-vm"}),
            ("resources/web-vm/fail", "", "resource.fail", {"resource": "web-vm"}),
            ("nodes/node1/pause", "", "node.pause", {"node": "node1"}),
            ("nodes/node1/pause", '{"drain": true}', "node.pause", {"node": "node1", "drain": True}),
            ("nodes/node1/resume", '{"failback": "policy"}', "node.resume", {"node": "node1", "failback": "policy"}),
        ],
    )
    def test_every_verb_becomes_one_call(self, path: str, body: str, call: str, arguments: dict[str, Any]) -> None:
        async def scenario(bench: Bench) -> None:
            reply = await bench.post(f"/v1/{path}", body)

            assert bench.service.asked == [(call, arguments)]
            assert (reply.status, reply.json) == (200, {"code": "done", "message": "so be it", "result": {}})

        serve(scenario)

    def test_quorum_is_a_look_that_the_service_answers(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.service.answer = answer(votes=3)

            reply = await bench.get("/v1/quorum")

            assert (reply.status, reply.json["result"]) == (200, {"votes": 3})
            assert bench.service.asked == [("quorum.show", {})]

        serve(scenario)

    @pytest.mark.parametrize(
        ("code", "status"),
        [("not-owner", 421), ("refused", 409), ("no-such", 404), ("no-quorum", 503), ("unknown", 504), ("?", 500)],
    )
    def test_every_refusal_has_its_status_and_says_why(self, code: str, status: int) -> None:
        async def scenario(bench: Bench) -> None:
            bench.service.answer = answer(code, "because", owner="node2")

            reply = await bench.post("/v1/groups/web/online")

            assert reply.status == status
            assert reply.json == {"code": code, "message": "because", "owner": "node2"}

        serve(scenario)

    def test_before_the_service_has_begun_it_says_so(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.service.snapshot_now = None

            assert (await bench.get("/v1/snapshot")).json["code"] == "starting"
            assert (await bench.post("/v1/groups/web/online")).status == 503
            assert bench.service.asked == []

        serve(scenario)

    def test_one_connection_serves_many_requests_also_when_they_come_at_once(self) -> None:
        async def scenario(bench: Bench) -> None:
            client = await bench.client()
            client.send(f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}\r\n" * 3)

            assert [(await client.reply()).status for _ in range(3)] == [200] * 3

        serve(scenario)

    def test_client_that_waits_for_leave_to_send_its_body_gets_it(self) -> None:
        async def scenario(bench: Bench) -> None:
            client = await bench.client()
            client.send(
                f"POST /v1/nodes/node1/pause HTTP/1.1\r\n{AUTHORIZED}Content-Type: application/json\r\n"
                "Content-Length: 15\r\nExpect: 100-continue\r\n\r\n"
            )

            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
            client.send('{"drain": true}')
            assert (await client.reply()).status == 200

        serve(scenario)


LONG = "x" * 9000
BOTH = "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"
REFUSED: dict[str, tuple[str, int]] = {
    "no such path": (f"GET /v1/secrets HTTP/1.1\r\n{AUTHORIZED}\r\n", 404),
    "no such version": (f"GET /v2/snapshot HTTP/1.1\r\n{AUTHORIZED}\r\n", 404),
    "slash at the end": (f"GET /v1/groups/ HTTP/1.1\r\n{AUTHORIZED}\r\n", 404),
    "climbing out": (f"GET /v1/groups/../snapshot HTTP/1.1\r\n{AUTHORIZED}\r\n", 404),
    "escaped name": (f"GET /v1/groups/%77eb HTTP/1.1\r\n{AUTHORIZED}\r\n", 404),
    "no such name": (f"GET /v1/groups/nosuch HTTP/1.1\r\n{AUTHORIZED}\r\n", 404),
    "query": (f"GET /v1/snapshot?x=1 HTTP/1.1\r\n{AUTHORIZED}\r\n", 400),
    "whole address": (f"GET http://127.0.0.1/v1/snapshot HTTP/1.1\r\n{AUTHORIZED}\r\n", 400),
    "POST on a look": (f"POST /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}\r\n", 405),
    "GET on a verb": (f"GET /v1/groups/web/online HTTP/1.1\r\n{AUTHORIZED}\r\n", 405),
    "DELETE": (f"DELETE /v1/groups/web HTTP/1.1\r\n{AUTHORIZED}\r\n", 405),
    "CONNECT": (f"CONNECT 127.0.0.1:1 HTTP/1.1\r\n{AUTHORIZED}\r\n", 400),
    "body on a look": (f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}Content-Length: 2\r\n\r\n{{}}", 400),
    "chunks": (f"POST /v1/groups/web/online HTTP/1.1\r\n{AUTHORIZED}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    "two lengths": (f"POST /v1/groups/web/online HTTP/1.1\r\n{AUTHORIZED}{BOTH}\r\n0\r\n\r\n", 400),
    "lengths that differ": (
        f"POST /v1/groups/web/online HTTP/1.1\r\n{AUTHORIZED}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}",
        400,
    ),
    "negative length": (f"POST /v1/groups/web/online HTTP/1.1\r\n{AUTHORIZED}Content-Length: -1\r\n\r\n", 400),
    "large body": (f"POST /v1/groups/web/online HTTP/1.1\r\n{AUTHORIZED}Content-Length: 65537\r\n\r\n", 413),
    "huge body": (f"POST /v1/groups/web/online HTTP/1.1\r\n{AUTHORIZED}Content-Length: {10**18}\r\n\r\n", 413),
    "long header": (f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}X: {LONG}\r\n\r\n", 431),
    "endless header": (f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}X: {LONG}{LONG}", 431),
    "long path": (f"GET /v1/{'x' * 2000} HTTP/1.1\r\n{AUTHORIZED}\r\n", 414),
    "endless path": (f"GET /{LONG}{LONG}", 431),
    "strange host": (AUTHORIZED.replace("127.0.0.1", "evil.example").join(["GET / HTTP/1.1\r\n", "\r\n"]), 403),
    "strange address": (AUTHORIZED.replace("127.0.0.1", "10.1.2.3:80").join(["GET / HTTP/1.1\r\n", "\r\n"]), 403),
    "host that only begins right": (
        AUTHORIZED.replace("127.0.0.1", "127.0.0.1.evil.example").join(["GET / HTTP/1.1\r\n", "\r\n"]),
        403,
    ),
    "no host": (f"GET /v1/snapshot HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n", 400),
    "no host, old": (f"GET /v1/snapshot HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n", 403),
    "two hosts": (f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}Host: localhost\r\n\r\n", 400),
    "no HTTP": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "space in a header's name": (f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}Content-Length : 3\r\n\r\n", 400),
    "header in two lines of another kind": (f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}X: a\rb\r\n\r\n", 400),
}


class TestWhatItRefuses:
    @pytest.mark.parametrize("name", REFUSED)
    def test_malformed_request_gets_an_object_that_says_why(self, name: str) -> None:
        text, status = REFUSED[name]

        async def scenario(bench: Bench) -> None:
            reply = await bench.ask(text)

            assert reply.status == status, reply.json
            assert set(reply.json) == {"code", "message"}
            assert bench.service.asked == []
            assert (await bench.get("/v1/snapshot")).status == 200

        serve(scenario)

    @pytest.mark.parametrize(
        "body",
        [
            "nonsense",
            "[]",
            "null",
            '{"target": 3}',
            '{"target": null}',
            '{"target": "Not A Name"}',
            '{"target": "node2", "target": "node3"}',
            '{"target": "node2", "force": true}',
            '{"group": "other"}',
            "[" * 60000,
            '{"target": "node2"} {}',
        ],
    )
    def test_body_that_is_not_what_the_verb_takes_is_refused(self, body: str) -> None:
        async def scenario(bench: Bench) -> None:
            reply = await bench.post("/v1/groups/web/move", body)

            assert (reply.status, reply.json["code"]) == (400, "malformed")
            assert bench.service.asked == []

        serve(scenario)

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("nodes/node1/pause", '{"drain": "yes"}'),
            ("nodes/node1/pause", '{"drain": 1}'),
            ("nodes/node1/resume", '{"failback": "maybe"}'),
            ("nodes/node1/resume", '{"failback": true}'),
        ],
    )
    def test_argument_of_a_wrong_type_is_refused_with_the_expected_form(self, path: str, body: str) -> None:
        async def scenario(bench: Bench) -> None:
            reply = await bench.post(f"/v1/{path}", body)

            assert reply.status == 400
            assert "expected is {" in reply.json["message"]

        serve(scenario)

    def test_body_that_does_not_say_that_it_is_json_is_refused(self) -> None:
        async def scenario(bench: Bench) -> None:
            reply = await bench.post("/v1/groups/web/move", "{}", headers="Content-Type: text/plain\r\n")

            assert reply.status == 415

        serve(scenario)

    def test_wrong_method_names_the_right_one(self) -> None:
        async def scenario(bench: Bench) -> None:
            assert (await bench.get("/v1/groups/web/move")).headers["allow"] == "POST"
            assert (await bench.post("/v1/groups")).headers["allow"] == "GET"

        serve(scenario)

    def test_question_for_the_head_alone_gets_no_body(self) -> None:
        async def scenario(bench: Bench) -> None:
            client = await bench.client()
            client.send(f"HEAD /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}\r\n")

            assert (await client.reply(without_body=True)).status == 405
            assert await client.ended()

        serve(scenario)

    def test_request_that_comes_after_its_time_is_not_carried_out(self) -> None:
        async def scenario(bench: Bench) -> None:
            late = await bench.post("/v1/groups/web/online", headers=f"Blackstart-Not-After: {time.time() - 1}\r\n")
            odd = await bench.post("/v1/groups/web/online", headers="Blackstart-Not-After: soon\r\n")
            never = await bench.post("/v1/groups/web/online", headers="Blackstart-Not-After: nan\r\n")

            assert (late.status, late.json["code"]) == (408, "expired")
            assert odd.status == 400
            assert never.status == 408
            assert bench.service.asked == []

            in_time = f"Blackstart-Not-After: {time.time() + 60}\r\n"
            assert (await bench.post("/v1/groups/web/online", headers=in_time)).status == 200

        serve(scenario)

    @pytest.mark.parametrize("seed", range(20))
    def test_bytes_without_sense_are_refused_or_cut_off_and_never_carried_out(self, seed: int) -> None:
        chance = random.Random(seed)
        good = f"POST /v1/groups/web/move HTTP/1.1\r\n{AUTHORIZED}Content-Length: 2\r\n\r\n{{}}".encode()

        def spoiled() -> bytes:
            made = bytearray(good)
            for _ in range(chance.randint(1, 6)):
                made[chance.randrange(len(made))] = chance.randrange(256)
            return bytes(made[: chance.randint(1, len(made))])

        async def scenario(bench: Bench) -> None:
            for _ in range(20):
                client = await bench.client()
                client.send(spoiled())
                client.writer.write_eof()
                heard = await asyncio.wait_for(client.reader.read(), LIMIT_S)
                assert heard == b"" or heard.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")) or b'"code":"done"' in heard
            assert (await bench.get("/v1/snapshot")).status == 200
            assert not [event for event, _ in bench.said if event == "api-defect"]
            assert all(call == "group.move" for call, _ in bench.service.asked)

        serve(scenario)


class TestTheToken:
    @pytest.mark.parametrize(
        "header",
        [
            "",
            "Authorization: Bearer wrong\r\n",
            f"Authorization: Bearer {TOKEN}x\r\n",
            f"Authorization: Basic {TOKEN}\r\n",
            f"Authorization: {TOKEN}\r\n",
            "Authorization: Bearer\r\n",
            f"Authorization: Bearer wrong\r\nAuthorization: Bearer {TOKEN}\r\n",
            f"Cookie: token={TOKEN}\r\n",
        ],
    )
    def test_whoever_does_not_show_it_is_told_nothing_and_the_body_is_not_waited_for(self, header: str) -> None:
        async def scenario(bench: Bench) -> None:
            client = await bench.client()
            client.send(f"POST /v1/no/such/path HTTP/1.1\r\nHost: localhost:80\r\n{header}Content-Length: 100\r\n\r\n")

            reply = await client.reply()

            assert (reply.status, reply.json["code"]) == (401, "unauthorized")
            assert reply.headers["www-authenticate"] == "Bearer"
            assert await client.ended()
            assert bench.service.asked == []

        serve(scenario)

    def test_failures_are_told_without_the_token_and_not_once_each(self) -> None:
        async def scenario(bench: Bench) -> None:
            for _ in range(30):
                await bench.ask(f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN[:-1]}\r\n\r\n")

            assert len(bench.said) == 1
            assert bench.said[0][0] == "api-authentication-failed"
            assert "127.0.0.1" in bench.said[0][1]
            assert TOKEN[:-1] not in str(bench.said)

        serve(scenario)

    def test_token_is_not_kept_by_the_server(self) -> None:
        async def scenario(bench: Bench) -> None:
            assert TOKEN not in str(vars(bench.api))

        serve(scenario)


class TestWhatItWithstands:
    def test_client_that_sends_slowly_is_cut_off_at_the_limit(self) -> None:
        async def scenario(bench: Bench) -> None:
            client = await bench.client()
            client.send("GET /v1/snapshot HTTP/1.1\r\n")

            assert (await client.reply()).status == 408
            assert await client.ended()

        serve(scenario, Limits(request_s=0.05))

    def test_body_that_never_ends_is_cut_off_at_the_limit(self) -> None:
        async def scenario(bench: Bench) -> None:
            client = await bench.client()
            client.send(f"POST /v1/groups/web/move HTTP/1.1\r\n{AUTHORIZED}Content-Length: 100\r\n\r\n{{")

            assert (await client.reply()).status == 408
            assert bench.service.asked == []

        serve(scenario, Limits(request_s=0.05))

    def test_connection_that_says_nothing_is_closed(self) -> None:
        async def scenario(bench: Bench) -> None:
            assert await (await bench.client()).ended()

        serve(scenario, Limits(idle_s=0.05))

    def test_request_that_is_never_answered_ends_as_unknown(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.service.gate.clear()

            reply = await bench.post("/v1/groups/web/online")

            assert (reply.status, reply.json["code"]) == (504, "unknown")

        serve(scenario, Limits(answer_s=0.05))

    def test_oldest_idle_connection_gives_way_and_one_that_is_being_answered_does_not(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.service.gate.clear()
            answered, idle, fresh = [await bench.client() for _ in range(3)]
            answered.send(f"POST /v1/groups/web/online HTTP/1.1\r\n{AUTHORIZED}\r\n")
            for client in (idle, fresh):
                client.send(f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}\r\n")
                assert (await client.reply()).status == 200

            assert (await bench.get("/v1/snapshot")).status == 200

            assert await idle.ended()
            bench.service.gate.set()
            assert (await answered.reply()).status == 200
            fresh.send(f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}\r\n")
            assert (await fresh.reply()).status == 200

        serve(scenario, Limits(connections=3))

    def test_slow_strangers_on_every_connection_do_not_keep_a_client_out(self) -> None:
        async def scenario(bench: Bench) -> None:
            for _ in range(200):
                (await bench.client()).send("GET /v1/snapshot HTTP/1.1\r\nX: ")

            assert (await bench.get("/v1/snapshot")).status == 200

        serve(scenario)

    def test_a_client_that_has_just_come_is_not_closed_in_the_place_of_a_slow_stranger(self) -> None:
        async def scenario(bench: Bench) -> None:
            stranger = await bench.client()
            stranger.send("GET /v1/snapshot HTTP/1.1\r\nX: ")
            for _ in range(10):
                await asyncio.sleep(0)

            fresh = await bench.client()
            await bench.client()
            for _ in range(10):
                await asyncio.sleep(0)
            fresh.send(f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}\r\n")

            assert (await fresh.reply()).status == 200
            assert await stranger.ended()

        serve(scenario, Limits(connections=2))

    def test_when_every_connection_is_being_answered_a_newer_one_is_closed(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.service.gate.clear()
            busy = [await bench.client() for _ in range(2)]
            for client in busy:
                client.send(f"POST /v1/groups/web/online HTTP/1.1\r\n{AUTHORIZED}\r\n")
            while len(bench.service.asked) < 2:
                await asyncio.sleep(0)

            assert await (await bench.client()).ended()

            bench.service.gate.set()
            assert [(await client.reply()).status for client in busy] == [200, 200]

        serve(scenario, Limits(connections=2))

    def test_loop_gets_its_turn_after_each_request_of_a_client_that_never_pauses(self) -> None:
        requests = 300

        async def scenario(bench: Bench) -> None:
            turns = 0

            async def beat() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            client = await bench.client()
            client.send(f"GET /v1/snapshot HTTP/1.1\r\n{AUTHORIZED}\r\n" * requests)
            beats = asyncio.create_task(beat())
            for _ in range(requests):
                assert (await client.reply()).status == 200
            beats.cancel()

            assert turns >= requests

        serve(scenario)

    def test_client_that_leaves_at_any_point_leaves_nothing_behind(self) -> None:
        whole = f"POST /v1/groups/web/move HTTP/1.1\r\n{AUTHORIZED}Content-Length: 2\r\n\r\n{{}}"

        async def scenario(bench: Bench) -> None:
            for length in range(0, len(whole), 7):
                client = await bench.client()
                client.send(whole[:length])
                await client.writer.drain()
                client.writer.transport.abort()
            assert (await bench.get("/v1/snapshot")).status == 200
            assert bench.said == []

        serve(scenario)

    def test_defect_of_the_service_is_told_and_ends_one_request_only(self) -> None:
        async def scenario(bench: Bench) -> None:
            bench.service.answer = ZeroDivisionError("a defect")

            assert (await bench.post("/v1/groups/web/online")).status == 500
            assert [event for event, _ in bench.said] == ["api-defect"]
            assert (await bench.get("/v1/snapshot")).status == 200

        serve(scenario)
