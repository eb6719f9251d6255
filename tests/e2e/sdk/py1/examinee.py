"""The server that the conformance runner examines, on the Python SDK 1.x."""

import events
import exam_fixtures
import fixtures
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.fastmcp.prompts.base import UserMessage
from mcp.types import Completion
from pydantic import AnyUrl


def build() -> FastMCP:
    mcp = FastMCP("e2e-examinee-py1", event_store=events.MemoryEvents(), retry_interval=100, log_level="WARNING")
    exam_fixtures.register(mcp, Context, UserMessage, Completion)
    # FastMCP offers no public way to these three.
    low_level = mcp._mcp_server

    @low_level.set_logging_level()
    async def set_logging_level(level: str) -> None:
        """Every level is welcome."""

    @low_level.subscribe_resource()
    async def subscribe(uri: AnyUrl) -> None:
        """Nothing ever changes."""

    @low_level.unsubscribe_resource()
    async def unsubscribe(uri: AnyUrl) -> None:
        """Nothing ever changed."""

    return mcp


if __name__ == "__main__":
    server = build()
    fixtures.run([server.streamable_http_app()], [server.session_manager.run])
