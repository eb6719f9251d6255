"""Server on the Python SDK 2.x: both eras at one URL; SSE answers at /mcp, JSON answers at /json."""

import json
from collections.abc import Mapping
from typing import Annotated

import events
import fixtures
from mcp.server.caching import CacheHint
from mcp.server.mcpserver import Context, MCPServer, RequestStateSecurity
from mcp.types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel, Field

MODERN = "2026-07-28"
STATE_KEY = b"a fixed key, long enough for the tests"


class Favourite(BaseModel):
    colour: str


def headers_of(ctx: Context) -> Mapping[str, str]:
    assert ctx.headers is not None
    return ctx.headers


def question_of(prompt: str) -> list[SamplingMessage]:
    return [SamplingMessage(role="user", content=TextContent(type="text", text=prompt))]


def elicitation(message: str, name: str = "colour") -> ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def build() -> MCPServer:
    mcp = MCPServer(
        "e2e-py2",
        version="1",
        request_state_security=RequestStateSecurity(keys=[STATE_KEY]),
        # Zero: the client's own cache must not answer in place of the wire.
        cache_hints={"tools/list": CacheHint(ttl_ms=0, scope="public")},
        log_level="WARNING",
    )
    fixtures.register(mcp, Context, headers_of)

    @mcp.tool()
    async def ask_model(prompt: str, ctx: Context) -> str | InputRequiredResult:
        """Asks the client's model: by a request in the legacy era, by an input_required result in the modern one."""
        if ctx.protocol_version == MODERN:
            answer = (ctx.input_responses or {}).get("model")
            if answer is None:
                params = CreateMessageRequestParams(messages=question_of(prompt), max_tokens=50)
                return InputRequiredResult(input_requests={"model": CreateMessageRequest(params=params)})
        else:
            answer = await ctx.session.create_message(
                question_of(prompt), max_tokens=50, related_request_id=ctx.request_id
            )
        assert isinstance(answer, CreateMessageResult) and isinstance(answer.content, TextContent)
        return f"model {answer.model} said: {answer.content.text}"

    @mcp.tool()
    async def ask_user(question: str, ctx: Context) -> str | InputRequiredResult:
        """Asks the client's user, in the way of the era."""
        if ctx.protocol_version != MODERN:
            elicited = await ctx.elicit(question, Favourite)
            return f"user said: {elicited.action}" + (f" {elicited.data.colour}" if elicited.action == "accept" else "")
        answer = (ctx.input_responses or {}).get("user")
        if answer is None:
            return InputRequiredResult(input_requests={"user": elicitation(question)})
        assert isinstance(answer, ElicitResult)
        return f"user said: {answer.action}" + (f" {answer.content['colour']}" if answer.content else "")

    @mcp.tool()
    async def two_rounds(ctx: Context) -> str | InputRequiredResult:
        """Two questions one after the other; the first answer travels in requestState (modern era only)."""
        responses = ctx.input_responses or {}
        if "second" in responses:
            first = json.loads(ctx.request_state or "{}")["first"]
            return f"{first} and {responses['second'].content['colour']}"
        if "first" in responses:
            state = json.dumps({"first": responses["first"].content["colour"]})
            return InputRequiredResult(input_requests={"second": elicitation("second colour?")}, request_state=state)
        return InputRequiredResult(input_requests={"first": elicitation("first colour?")})

    @mcp.tool()
    def mirrored(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})], ctx: Context) -> str:
        """Its argument is mirrored into a header; gives back both."""
        return json.dumps({"argument": region, "header": headers_of(ctx).get("mcp-param-region")})

    return mcp


if __name__ == "__main__":
    streaming, answering = build(), build()
    fixtures.run(
        [
            streaming.streamable_http_app(event_store=events.MemoryEvents(), retry_interval=50),
            answering.streamable_http_app(streamable_http_path="/json", json_response=True),
        ],
        [streaming.session_manager.run, answering.session_manager.run],
    )
