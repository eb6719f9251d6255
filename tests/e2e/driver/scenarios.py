"""Every scenario: what is asked of which SDKs, what must be true of its transcript on every way, what is compared.

A check is run on the direct transcript and on each proxied one, so an empty transcript fails everywhere.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .places import SDKS
from .transcript import Transcript, events_of, messages_of

Check = Callable[[Transcript], None]

LEGACY, MODERN = "legacy", "modern"
BOTH = (LEGACY, MODERN)
MODERN_SDKS = ("py2", "ts2")
LEGACY_ONLY_SDKS = ("py1", "ts1")
COMMON_TOOLS = {
    "echo", "add", "fail", "big", "steps", "separators", "hold", "meet", "interrupted", "announce", "headers",
    "ask_model", "ask_user",
}  # fmt: skip
CALL = "POST tools/call"
# A client's answer to a server's request. The server may use it before its 202 has arrived, and the client be gone.
ANSWER = "POST response"
SEPARATORS = "line\u2028paragraph\u2029next\u0085end \U0001f9ea"


@dataclass(frozen=True)
class Exclusion:
    """Why a scenario does not apply; what is None matches everything."""

    reason: str
    client: str | None = None
    server: str | None = None
    era: str | None = None

    def matches(self, era: str, client: str, server: str) -> bool:
        asked = ((self.era, era), (self.client, client), (self.server, server))
        return all(mine in (None, theirs) for mine, theirs in asked)


@dataclass(frozen=True)
class Scenario:
    """`left_out` are exchanges whose end is a race by design (a cancelled call, a stream open at the end)."""

    title: str
    check: Check
    eras: tuple[str, ...] = BOTH
    not_in_other_era: str = ""
    json_answers: bool = False
    left_out: frozenset[str] = frozenset()
    not_for: tuple[Exclusion, ...] = ()

    @property
    def endpoint_suffix(self) -> str:
        return "-json" if self.json_answers else ""


@dataclass(frozen=True)
class Task:
    """One scenario for one pair in one era."""

    name: str
    era: str
    client: str
    server: str
    scenario: Scenario

    @property
    def pair(self) -> str:
        return f"{self.client}>{self.server}"

    @property
    def label(self) -> str:
        return self.name if self.era == LEGACY else f"modern-{self.name}"

    @property
    def endpoint(self) -> str:
        return self.server + self.scenario.endpoint_suffix


def require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def equal(actual: Any, expected: Any, what: str) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}"[:1500])


def text_of(result: Mapping[str, Any]) -> str:
    return result["content"][0]["text"]


def is_modern(transcript: Transcript) -> bool:
    return any("mcp-method" in exchange.request_headers for exchange in transcript.client_side)


def lists_tools(transcript: Transcript) -> None:
    tools = {tool["name"]: tool for tool in transcript.seen["tools"]}
    require(tools.keys() >= COMMON_TOOLS, f"tools missing: {COMMON_TOOLS - tools.keys()}")
    equal(tools["echo"]["inputSchema"]["required"], ["text"], "echo's schema")
    require(bool(transcript.exchanges("POST tools/list")), "no tools/list on the wire")
    handshake = transcript.exchanges("POST initialize")
    if is_modern(transcript):
        equal(transcript.seen["era"], "modern 2026-07-28", "era")
        equal(handshake, [], "initialize in the modern era")
    else:
        equal(transcript.seen["era"], "legacy 2025-11-25", "era")
        require("mcp-session-id" in handshake[0].response_headers, "no session id")


def falls_back(transcript: Transcript) -> None:
    """A modern client asks a legacy server for server/discover, is refused, and goes on with initialize."""
    probe = transcript.exchanges("POST server/discover")
    equal(len(probe), 1, "number of probes")
    require(400 <= probe[0].status < 500, f"the probe got {probe[0].status}")
    equal(transcript.seen["era"], "legacy 2025-11-25", "era after the fallback")
    equal(len(transcript.exchanges("POST initialize")), 1, "number of initialize")
    require({tool["name"] for tool in transcript.seen["tools"]} >= COMMON_TOOLS, "tools missing")


def calls_tools(transcript: Transcript) -> None:
    seen = transcript.seen
    equal(text_of(seen["echo"]), 'hello \u00e9\u4e16\U0001f9ea "quoted" \\ \n', "echo")
    equal(seen["add"]["structuredContent"], {"result": 42}, "structured content")
    equal(seen["fail"].get("isError"), True, "isError of a failing tool")
    equal(len(transcript.backend_requests(CALL)), 3, "calls that reached the backend")


def reports_progress(transcript: Transcript) -> None:
    reports = transcript.seen["reports"]
    expected = [{"progress": step, "total": 5, "message": f"step {step}"} for step in range(1, 6)]
    equal(reports, expected, "progress reports")
    equal(text_of(transcript.seen["result"]), "all steps seen", "result")
    gates = [event for event in transcript.events if event.startswith(("sent ", "got "))]
    equal(gates, [f"{what} {step}" for step in range(1, 6) for what in ("sent", "got")], "order of sending and seeing")


def reads_resources(transcript: Transcript) -> None:
    seen = transcript.seen
    equal({entry["uri"] for entry in seen["resources"]}, {"e2e://note", "e2e://blob"}, "resources")
    equal([entry["uriTemplate"] for entry in seen["templates"]], ["e2e://item/{name}"], "templates")
    equal(seen["text"][0]["text"], "a note\nof two lines", "text resource")
    require(seen["blob"][0]["blob"].startswith("AAECAwQF"), "binary resource")
    equal(seen["item"][0]["text"], "item seven", "templated resource")


def gets_prompts(transcript: Transcript) -> None:
    equal([entry["name"] for entry in transcript.seen["prompts"]], ["greet"], "prompts")
    equal(transcript.seen["greet"][0]["content"]["text"], "Say hello to Ada.", "prompt")


def samples(transcript: Transcript) -> None:
    equal(text_of(transcript.seen["result"]), "model test-model said: 42", "result")
    equal(len(transcript.seen["asked"]), 1, "questions put to the model")
    asked_in_the_way_of_the_era(transcript, "sampling/createMessage", rounds=1)


def elicits(transcript: Transcript) -> None:
    equal(text_of(transcript.seen["accepted"]), "user said: accept teal", "accepted")
    equal(text_of(transcript.seen["declined"]), "user said: decline", "declined")
    equal([entry["message"] for entry in transcript.seen["asked"]], ["your colour?", "no, really?"], "questions")
    asked_in_the_way_of_the_era(transcript, "elicitation/create", rounds=2)


def asks_twice(transcript: Transcript) -> None:
    equal(text_of(transcript.seen["result"]), "teal and teal", "result")
    equal([entry["message"] for entry in transcript.seen["asked"]], ["first colour?", "second colour?"], "questions")
    params = [json.loads(exchange.request_body)["params"] for exchange in transcript.exchanges(CALL)]
    states = [each.get("requestState") for each in params]
    equal(len(states), 3, "calls of a tool that asks twice")
    require(states[0] is None and bool(states[2]), "requestState did not travel")


def asked_in_the_way_of_the_era(transcript: Transcript, method: str, rounds: int) -> None:
    # A legacy server may ask on the stream of the call or on the standalone one, which is what ts2 does.
    streams = [each for label in (CALL, "GET", "GET resuming") for each in transcript.exchanges(label)]
    sent = [message for exchange in streams for message in messages_of(exchange)]
    if is_modern(transcript):
        interim = [message for message in sent if message.get("result", {}).get("resultType") == "input_required"]
        equal(len(interim), rounds, "input_required results")
        equal(len(transcript.backend_requests(CALL)), 2 * rounds, "calls that reached the backend")
    else:
        equal(len([message for message in sent if message.get("method") == method]), rounds, f"{method} on the wire")
        equal(len(transcript.backend_requests(ANSWER)), rounds, "answers that reached the backend")


def hears_announcement(transcript: Transcript) -> None:
    equal(transcript.seen["notification"], "notifications/resources/list_changed", "notification")
    equal(text_of(transcript.seen["result"]), "announced", "result")
    streams = [*transcript.exchanges("GET"), *transcript.exchanges("GET resuming")]
    heard = [message["method"] for exchange in streams for message in messages_of(exchange)]
    equal(heard.count("notifications/resources/list_changed"), 1, "announcements on the standalone stream")


def hears_after_reopening(transcript: Transcript) -> None:
    hears_announcement(transcript)
    story = [event for event in transcript.events if event in ("backend open GET", "backend gone GET")]
    equal(story[:3], ["backend open GET", "backend gone GET", "backend open GET"], "the stream at the backend")


def resumes(transcript: Transcript) -> None:
    equal(transcript.seen["reports"], ["before", "missed"], "progress reports")
    equal(text_of(transcript.seen["result"]), "finished", "result")
    equal(len(transcript.backend_requests(CALL)), 1, "calls that reached the backend")
    resumed = transcript.exchanges("GET resuming")
    require(bool(resumed), "nothing was resumed by Last-Event-ID")
    missed = [message for exchange in resumed for message in messages_of(exchange)]
    require(any(message.get("params", {}).get("message") == "missed" for message in missed), "nothing was replayed")
    require(any("result" in message for message in missed), "the result did not come on the resumed stream")


def ends_session(transcript: Transcript) -> None:
    equal(transcript.seen["before"], "alive", "call before the end")
    require(transcript.exchanges("DELETE")[0].status in (200, 204), "DELETE was refused")
    equal(transcript.seen["late"], {"POST": 404, "GET": 404, "DELETE": 404}, "use after the end")


def leaves(transcript: Transcript) -> None:
    equal(transcript.seen, {"answered": False}, "the abandoned call")
    equal(transcript.events.count(f"backend gone {CALL}"), 1, "the leave as seen by the backend")
    equal(transcript.backend_requests("POST notifications/cancelled"), [], "cancellations nobody asked for")


def cancels(transcript: Transcript) -> None:
    equal(text_of(transcript.seen["alive after"]), "still here", "a call after the cancelled one")
    equal(transcript.events.count("handler cancelled"), 1, "cancellations as seen by the tool")
    notices = transcript.backend_requests("POST notifications/cancelled")
    if is_modern(transcript):
        equal(notices, [], "cancelled notifications in the modern era")
        require(f"backend gone {CALL}" in transcript.events, "the backend did not see the call's stream close")
    else:
        equal(len(notices), 1, "cancelled notifications that reached the backend")


@functools.cache
def big_text_digest(size: int) -> str:
    lines = (f"{index:08d} the quick brown fox\n" for index in range(size // 29 + 1))
    return hashlib.sha256("".join(lines)[:size].encode()).hexdigest()


def is_whole(transcript: Transcript) -> None:
    size = 5_000_000
    equal(transcript.seen, {"chars": size, "sha256": big_text_digest(size)}, "the 5 MB text")


def takes_big_argument(transcript: Transcript) -> None:
    equal(transcript.seen, {"sent": 1_000_000, "same": True}, "a 1 MB argument")


def all_at_once(transcript: Transcript) -> None:
    equal(transcript.seen["answers"], [f"met caller {index}" for index in range(20)], "answers of 20 calls")
    equal(len(transcript.backend_requests(CALL)), 20, "calls that reached the backend")


def primes(transcript: Transcript) -> None:
    equal(transcript.seen["echo"], "after a priming event", "result")
    (exchange,) = transcript.exchanges(CALL)
    first = dict(events_of(exchange)[0].fields)
    equal(sorted(first), ["data", "id", "retry"], "fields of the priming event")
    equal(first["data"], "", "data of the priming event")
    require(bool(first["id"]) and first["retry"] == "50", f"id and retry of the priming event: {first}")


def keeps_separators(transcript: Transcript) -> None:
    equal(transcript.seen["reports"], [SEPARATORS], "progress message")
    equal(transcript.seen["result"], SEPARATORS, "result")
    (exchange,) = transcript.exchanges(CALL)
    require("\u2028".encode() in exchange.response_body, "U+2028 was not on the wire unescaped")


def brings_headers(transcript: Transcript) -> None:
    headers = json.loads(transcript.seen["headers"])
    equal(headers.get("x-e2e-trace"), "one, two", "a header of the user's own")
    require("text/event-stream" in headers.get("accept", ""), "accept did not arrive")
    if is_modern(transcript):
        equal(headers.get("mcp-method"), "tools/call", "Mcp-Method")
        equal(headers.get("mcp-name"), "headers", "Mcp-Name")
        equal(headers.get("mcp-protocol-version"), "2026-07-28", "MCP-Protocol-Version")
    else:
        equal(headers.get("mcp-protocol-version"), "2025-11-25", "MCP-Protocol-Version")


def mirrors(transcript: Transcript) -> None:
    plain, encoded = (json.loads(transcript.seen[name]) for name in ("plain", "encoded"))
    equal(plain, {"argument": "eu-west-1", "header": "eu-west-1"}, "a plain mirrored argument")
    equal(encoded["argument"], " Z\u00fcrich", "an argument that needs encoding")
    equal(encoded["header"], "=?base64?IFrDvHJpY2g=?=", "its header")


def reports_errors(transcript: Transcript) -> None:
    seen = transcript.seen
    not_found = -32602 if is_modern(transcript) else seen["missing resource"]["code"]
    equal(seen["missing resource"]["code"], not_found, "code of a missing resource")
    require("code" in seen["missing prompt"], "a missing prompt is an error")
    for name in ("missing tool", "bad argument"):
        require(seen[name].get("isError") is True or "code" in seen[name], f"{name} passed")
    require(all(outcome["message"] for outcome in seen.values()), "an error without a message")


def answers_in_json(transcript: Transcript) -> None:
    require(set(transcript.seen["tools"]) >= COMMON_TOOLS, "tools missing")
    equal(text_of(transcript.seen["echo"]), "in one piece", "echo")
    equal(transcript.seen["note"][0]["text"], "a note\nof two lines", "resource")
    equal(transcript.seen["fail"].get("isError"), True, "isError of a failing tool")
    for exchange in transcript.exchanges(CALL):
        require(exchange.response_headers["content-type"].startswith("application/json"), "not a JSON answer")


def listens(transcript: Transcript) -> None:
    equal(transcript.seen["event"], "notifications/resources/list_changed", "event")
    (exchange,) = transcript.exchanges("POST subscriptions/listen")
    methods = [message.get("method") for message in messages_of(exchange)]
    equal(
        methods[:2],
        ["notifications/subscriptions/acknowledged", "notifications/resources/list_changed"],
        "messages on the listen stream",
    )


# A standalone stream opens whenever its client gets round to it and ends in the middle of something.
_STANDALONE = frozenset({"GET", "GET resuming"})

SCENARIOS: dict[str, Scenario] = {
    "list-tools": Scenario("list tools", lists_tools),
    "discover-fallback": Scenario(
        "`server/discover` refused by a legacy server, fallback to `initialize`",
        falls_back,
        eras=(LEGACY,),
        not_in_other_era="both sides are modern, there is nothing to fall back to",
        not_for=(
            *(Exclusion(f"{sdk} clients never probe", client=sdk) for sdk in LEGACY_ONLY_SDKS),
            *(Exclusion(f"{sdk} servers answer the probe", server=sdk) for sdk in MODERN_SDKS),
        ),
    ),
    "call-tool": Scenario("call tools: text, structured content, tool error", calls_tools),
    "progress": Scenario("progress in order, each report seen before the next is sent", reports_progress),
    "resources": Scenario("resources: list, read text and binary, templates", reads_resources),
    "prompts": Scenario("prompts: list, get", gets_prompts),
    "sampling": Scenario("sampling round trip", samples, left_out=frozenset({ANSWER})),
    "elicitation": Scenario("elicitation round trip, accepted and declined", elicits, left_out=frozenset({ANSWER})),
    "two-rounds": Scenario(
        "`input_required` twice, with `requestState`",
        asks_twice,
        eras=(MODERN,),
        not_in_other_era="legacy servers ask by requests: `sampling`, `elicitation`",
    ),
    "get-stream": Scenario(
        "notification on the standalone GET stream",
        hears_announcement,
        eras=(LEGACY,),
        not_in_other_era="no such stream; `listen` takes its place",
    ),
    "get-stream-reopened": Scenario(
        "the GET stream breaks, is let go of at the backend and opens again",
        hears_after_reopening,
        eras=(LEGACY,),
        not_in_other_era="no such stream; nothing is reopened",
    ),
    "resume-closed": Scenario(
        "the server closes a call's stream, `Last-Event-ID` resumes it",
        resumes,
        eras=(LEGACY,),
        not_in_other_era="no event ids: a broken stream loses its request",
    ),
    "resume-broken": Scenario(
        "the network breaks a call's stream, `Last-Event-ID` resumes it",
        resumes,
        eras=(LEGACY,),
        not_in_other_era="no event ids: a broken stream loses its request",
        left_out=frozenset({CALL}),
    ),
    "delete-session": Scenario(
        "DELETE ends a session, later use is 404", ends_session, eras=(LEGACY,), not_in_other_era="no sessions"
    ),
    "leave": Scenario(
        "the client leaves in mid-call and the backend sees it",
        leaves,
        eras=(LEGACY,),
        not_in_other_era="leaving is cancelling: `cancel`",
        left_out=frozenset({CALL}),
    ),
    "cancel": Scenario(
        "cancellation: by `notifications/cancelled` (legacy), by closing the stream (modern)",
        cancels,
        # SDKs send the notification without waiting for its 202; `cancels` sees that it arrived.
        left_out=frozenset({CALL, "POST notifications/cancelled"}),
    ),
    "big-result": Scenario("5 MB result in an event stream (modern: as the server chooses)", is_whole),
    "json-big-result": Scenario("5 MB result in a JSON answer", is_whole, json_answers=True),
    "big-argument": Scenario("1 MB argument", takes_big_argument),
    "concurrent": Scenario(
        "20 calls inside the server at once",
        all_at_once,
        # Python clients list the tools after a call of one they have not listed; how many do so at once is a race.
        left_out=frozenset({"POST tools/list"}),
    ),
    "priming": Scenario(
        "priming event: id, empty data, retry", primes, eras=(LEGACY,), not_in_other_era="no event ids"
    ),
    "separators": Scenario(
        "U+2028, U+2029, U+0085 unescaped in event data",
        keeps_separators,
        not_for=(Exclusion("py2's modern server escapes everything but ASCII", server="py2", era=MODERN),),
    ),
    "headers": Scenario("request headers reach the server", brings_headers),
    "mirrored": Scenario(
        "`Mcp-Param-*`, plain and Base64", mirrors, eras=(MODERN,), not_in_other_era="no mirrored headers"
    ),
    "errors": Scenario("error codes and messages", reports_errors),
    "json-answers": Scenario("answers as plain JSON", answers_in_json, json_answers=True),
    "listen": Scenario(
        "`subscriptions/listen`: acknowledged, event, closed by the client",
        listens,
        eras=(MODERN,),
        not_in_other_era="`get-stream` takes its place",
    ),
}


def why_not(name: str, era: str, client: str, server: str) -> str | None:
    """The reason a scenario does not apply to a pair in an era, or None if it does."""
    scenario = SCENARIOS[name]
    if era not in scenario.eras:
        return scenario.not_in_other_era
    if era == MODERN:
        for sdk in (client, server):
            if sdk not in MODERN_SDKS:
                return f"{sdk} speaks the legacy era only"
    return next((rule.reason for rule in scenario.not_for if rule.matches(era, client, server)), None)


def all_tasks() -> list[Task]:
    return [
        Task(name, era, client, server, scenario)
        for client in SDKS
        for server in SDKS
        for era in BOTH
        for name, scenario in SCENARIOS.items()
        if why_not(name, era, client, server) is None
    ]


def left_out_of(task: Task) -> frozenset[str]:
    return task.scenario.left_out | (_STANDALONE if task.era == LEGACY else frozenset())
