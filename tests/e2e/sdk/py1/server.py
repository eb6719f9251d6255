"""Server on the Python SDK 1.x: sessions, event store; SSE answers at /mcp, JSON answers at /json."""

from collections.abc import Mapping

import events
import fixtures
from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel


class Favourite(BaseModel):
    colour: str


def headers_of(ctx: Context) -> Mapping[str, str]:
    request = ctx.request_context.request
    assert request is not None
    return request.headers


def build(*, json_answers: bool) -> FastMCP:
    mcp = FastMCP(
        "e2e-py1",
        streamable_http_path="/json" if json_answers else "/mcp",
        json_response=json_answers,
        event_store=None if json_answers else events.MemoryEvents(),
        retry_interval=None if json_answers else 50,
        log_level="WARNING",
    )
    fixtures.register(mcp, Context, headers_of)

    @mcp.tool()
    async def ask_model(prompt: str, ctx: Context) -> str:
        """Asks the client's model."""
        answer = await ctx.session.create_message(
            [SamplingMessage(role="user", content=TextContent(type="text", text=prompt))],
            max_tokens=50,
            # Without it the request would go to the standalone stream.
            related_request_id=ctx.request_id,
        )
        assert isinstance(answer.content, TextContent)
        return f"model {answer.model} said: {answer.content.text}"

    @mcp.tool()
    async def ask_user(question: str, ctx: Context) -> str:
        """Asks the client's user."""
        answer = await ctx.elicit(question, Favourite)
        return f"user said: {answer.action}" + (f" {answer.data.colour}" if answer.action == "accept" else "")

    return mcp


if __name__ == "__main__":
    servers = [build(json_answers=False), build(json_answers=True)]
    fixtures.run(
        [server.streamable_http_app() for server in servers],
        [server.session_manager.run for server in servers],
    )
