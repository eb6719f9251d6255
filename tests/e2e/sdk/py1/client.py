"""Client on the Python SDK 1.x, which speaks the legacy era only."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import scenarios
import worker
from mcp import ClientSession, McpError, types
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl

Progress = Callable[[dict[str, Any]], Awaitable[None]]


def plain(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


class Session:
    error_type = McpError

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self._notifications: asyncio.Queue[Any] = asyncio.Queue()
        self._session: ClientSession
        self._session_id: Callable[[], str | None]
        self._close: Callable[[], Awaitable[None]]
        self._version = ""

    @contextlib.asynccontextmanager
    async def opened(self, job: worker.Job, farewell: bool) -> AsyncIterator["Session"]:
        async with contextlib.AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx.AsyncClient(headers=job.headers, timeout=30))
            read, write, self._session_id = await stack.enter_async_context(
                streamable_http_client(job.url, http_client=http, terminate_on_close=farewell)
            )
            self._session = await stack.enter_async_context(
                ClientSession(
                    read,
                    write,
                    sampling_callback=self._sample,
                    elicitation_callback=self._elicit,
                    message_handler=self._receive,
                )
            )
            self._version = str((await self._session.initialize()).protocolVersion)
            self._close = stack.aclose
            yield self

    async def _sample(self, _: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        self.asked.append(plain(params))
        answer = types.TextContent(type="text", text="42")
        return types.CreateMessageResult(role="assistant", content=answer, model="test-model")

    async def _elicit(self, _: Any, params: Any) -> types.ElicitResult:
        self.asked.append(plain(params))
        if "really" in params.message:
            return types.ElicitResult(action="decline")
        return types.ElicitResult(action="accept", content={"colour": "teal"})

    async def _receive(self, message: Any) -> None:
        if isinstance(message, types.ServerNotification):
            self._notifications.put_nowait(message.root.method)

    def era(self) -> str:
        return f"legacy {self._version}"

    def session_id(self) -> str | None:
        return self._session_id()

    async def notification(self) -> Any:
        return await self._notifications.get()

    async def list_tools(self) -> Any:
        return plain(await self._session.list_tools())["tools"]

    async def call(self, name: str, arguments: dict[str, Any], saw: Progress | None = None) -> Any:
        async def report(progress: float, total: float | None, message: str | None) -> None:
            assert saw is not None
            await saw({"progress": progress, "total": total, "message": message})

        return plain(await self._session.call_tool(name, arguments, progress_callback=report if saw else None))

    async def list_resources(self) -> Any:
        return plain(await self._session.list_resources())["resources"]

    async def list_templates(self) -> Any:
        return plain(await self._session.list_resource_templates())["resourceTemplates"]

    async def read(self, uri: str) -> Any:
        return plain(await self._session.read_resource(AnyUrl(uri)))["contents"]

    async def list_prompts(self) -> Any:
        return plain(await self._session.list_prompts())["prompts"]

    async def prompt(self, name: str, arguments: dict[str, str]) -> Any:
        return plain(await self._session.get_prompt(name, arguments))["messages"]

    async def cancel(self, call: asyncio.Task[Any], request_id: str) -> None:
        # This SDK leaves it to its user to tell the server.
        params = types.CancelledNotificationParams(requestId=int(request_id), reason="no longer wanted")
        await self._session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def terminate(self) -> None:
        """Leaving the transport's context sends the DELETE, and nothing else does."""

    @staticmethod
    def code_of(error: McpError) -> int:
        return error.error.code


class Peer:
    def __init__(self, job: worker.Job) -> None:
        self._job = job
        self.key = job.key

    def connect(self, farewell: bool = True) -> Any:
        return Session().opened(self._job, farewell)

    async def late_request(self, method: str, session_id: str) -> int:
        accept = "text/event-stream" if method == "GET" else "application/json, text/event-stream"
        headers = self._job.headers | {"mcp-session-id": session_id, "accept": accept}
        body = {"jsonrpc": "2.0", "id": 99, "method": "tools/list"} if method == "POST" else None
        async with httpx.AsyncClient(timeout=10) as http:
            return (await http.request(method, self._job.url, headers=headers, json=body)).status_code


if __name__ == "__main__":
    worker.run(scenarios.SCENARIOS, Peer)
