"""Tools, resources and prompts that every Python server offers; the JavaScript twin is fixtures.mjs.

`Context` is the SDK's own context class (the decorators look at annotations); `key_of` reads the job's key from the
request headers the SDK hands to a handler.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import events
import switchboard

SEPARATORS = "line\u2028paragraph\u2029next\u0085end \U0001f9ea"
KEY_HEADER = "x-e2e-key"
SHOWN_HEADERS = ("accept", "content-type", "mcp-protocol-version", "mcp-method", "mcp-name", "x-e2e-trace")


def register(mcp: Any, Context: type, headers_of: Callable[[Any], Mapping[str, str]]) -> None:
    def key_of(ctx: Any) -> str:
        return headers_of(ctx)[KEY_HEADER]

    @mcp.tool()
    def echo(text: str) -> str:
        """Gives back its argument."""
        return text

    @mcp.tool()
    def add(a: int, b: int) -> int:
        """A sum, as structured content."""
        return a + b

    @mcp.tool()
    def fail() -> str:
        """Ends in a tool error."""
        raise RuntimeError("this tool always fails")

    @mcp.tool()
    def big(bytes: int) -> str:
        """A text of the given size in which every line differs."""
        return big_text(bytes)

    @mcp.tool()
    async def steps(count: int, ctx: Context) -> str:
        """Reports progress and goes on only after the client has recorded that it saw the report."""
        for step in range(1, count + 1):
            # Recorded first: once it is sent, the client may be quicker than we are.
            await switchboard.record(key_of(ctx), f"sent {step}")
            await ctx.report_progress(step, count, f"step {step}")
            await switchboard.wait(key_of(ctx), f"got {step}", seconds=5)
        return "all steps seen"

    @mcp.tool()
    async def separators(ctx: Context) -> str:
        """Sends U+2028 and its relatives unescaped, in a notification and in the result."""
        await ctx.report_progress(1, 1, SEPARATORS)
        return SEPARATORS

    @mcp.tool()
    async def hold(ctx: Context) -> str:
        """Stays until cancelled or released; its progress message is the request's id."""
        await ctx.report_progress(1, 2, str(ctx.request_id))
        try:
            await switchboard.wait(key_of(ctx), "release", seconds=15)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await switchboard.record(key_of(ctx), "handler cancelled")
            raise
        return "released"

    @mcp.tool()
    async def meet(count: int, name: str, ctx: Context) -> str:
        """Returns when `count` calls are inside at once."""
        await switchboard.record(key_of(ctx), "inside")
        await switchboard.wait(key_of(ctx), "inside", count=count)
        return f"met {name}"

    @mcp.tool()
    async def interrupted(close: bool, ctx: Context) -> str:
        """Says something while its stream is broken: by itself (`close`) or by the network."""
        await ctx.report_progress(1, 2, "before")
        if close:
            await ctx.close_sse_stream()
        else:
            await switchboard.wait(key_of(ctx), "backend gone POST tools/call")
        await ctx.report_progress(2, 2, "missed")
        return "finished"

    @mcp.tool()
    async def announce(ctx: Context) -> str:
        """Sends resources/list_changed outside this request."""
        await announce_change(ctx)
        return "announced"

    @mcp.tool()
    def headers(ctx: Context) -> str:
        """The request headers that reached the server."""
        seen = headers_of(ctx)
        return json.dumps({name: seen[name] for name in SHOWN_HEADERS if name in seen}, sort_keys=True)

    @mcp.resource("e2e://note", mime_type="text/plain")
    def note() -> str:
        """A text."""
        return "a note\nof two lines"

    @mcp.resource("e2e://blob", mime_type="application/octet-stream")
    def blob() -> bytes:
        """Every byte there is."""
        return bytes(range(256))

    @mcp.resource("e2e://item/{name}", mime_type="text/plain")
    def item(name: str) -> str:
        """A template."""
        return f"item {name}"

    @mcp.prompt()
    def greet(name: str) -> str:
        """A prompt with an argument."""
        return f"Say hello to {name}."


async def announce_change(ctx: Any) -> None:
    """Both eras: the session's own stream where there is one, otherwise the listen streams."""
    modern = getattr(ctx, "protocol_version", None) == "2026-07-28"
    await (ctx.notify_resources_changed() if modern else ctx.session.send_resource_list_changed())


def big_text(size: int) -> str:
    lines = (f"{index:08d} the quick brown fox\n" for index in range(size // 29 + 1))
    return "".join(lines)[:size]


async def serve(apps: list[Any], lifespans: list[Any]) -> None:
    """Serves the apps' routes on a free port and prints it, once listening, as a line of JSON."""
    import contextlib
    import socket
    from collections.abc import AsyncIterator

    import uvicorn
    from starlette.applications import Starlette

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for enter in lifespans:
                await stack.enter_async_context(enter())
            yield

    app = Starlette(routes=[route for inner in apps for route in inner.routes], lifespan=lifespan)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    # The default of 5 s would close idle connections in the middle of a run.
    config = uvicorn.Config(with_job(app), log_level="warning", timeout_keep_alive=120, timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listener])


def with_job(app: Any) -> Any:
    """Tells the event store which job a request belongs to."""

    async def serve_one(scope: Any, receive: Any, send: Any) -> None:
        key = dict(scope.get("headers", [])).get(KEY_HEADER.encode(), b"")
        events.job.set(key.decode())
        await app(scope, receive, send)

    return serve_one


def run(apps: list[Any], lifespans: list[Any]) -> None:
    asyncio.run(serve(apps, lifespans))
