"""Client on the Python SDK 2.x: pinned to the era of the job, or negotiating where that is the scenario."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import scenarios
import worker
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import Subscription
from mcp.shared.subscriptions import event_to_notification

Progress = Callable[[dict[str, Any]], Awaitable[None]]


def plain(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


class Session:
    error_type = MCPError

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self._notifications: asyncio.Queue[str] = asyncio.Queue()
        self._client: Client
        self._http: httpx2.AsyncClient
        self._session_id: str | None = None
        self._modern = False

    @contextlib.asynccontextmanager
    async def opened(self, job: worker.Job, farewell: bool) -> AsyncIterator["Session"]:
        self._modern = job.era == "modern"
        # `auto` probes first: in the modern era and where the fallback is the point.
        mode = "auto" if self._modern or job.scenario == "discover-fallback" else "legacy"
        hooks = {"response": [self._keep_session_id]}
        async with httpx2.AsyncClient(headers=job.headers, timeout=30, event_hooks=hooks) as http:
            self._client = Client(
                # The default of 1 MiB an event would refuse the big results.
                streamable_http_client(job.url, http_client=http, terminate_on_close=farewell, max_sse_event_size=None),
                mode=mode,
                sampling_callback=self._sample,
                elicitation_callback=self._elicit,
                message_handler=self._receive,
            )
            async with self._client:
                yield self

    async def _keep_session_id(self, response: httpx2.Response) -> None:
        # The transport keeps the id to itself.
        self._session_id = response.headers.get("mcp-session-id", self._session_id)

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
        if isinstance(message, types.ResourceListChangedNotification):
            self._notifications.put_nowait(message.method)

    def era(self) -> str:
        return f"{'modern' if self._client.protocol_version >= '2026' else 'legacy'} {self._client.protocol_version}"

    def session_id(self) -> str | None:
        return self._session_id

    async def notification(self) -> Any:
        return await self._notifications.get()

    async def list_tools(self) -> Any:
        return plain(await self._client.list_tools())["tools"]

    async def call(self, name: str, arguments: dict[str, Any], saw: Progress | None = None) -> Any:
        async def report(progress: float, total: float | None, message: str | None) -> None:
            assert saw is not None
            await saw({"progress": progress, "total": total, "message": message})

        return plain(await self._client.call_tool(name, arguments, progress_callback=report if saw else None))

    async def list_resources(self) -> Any:
        return plain(await self._client.list_resources())["resources"]

    async def list_templates(self) -> Any:
        return plain(await self._client.list_resource_templates())["resourceTemplates"]

    async def read(self, uri: str) -> Any:
        return plain(await self._client.read_resource(uri))["contents"]

    async def list_prompts(self) -> Any:
        return plain(await self._client.list_prompts())["prompts"]

    async def prompt(self, name: str, arguments: dict[str, str]) -> Any:
        return plain(await self._client.get_prompt(name, arguments))["messages"]

    async def cancel(self, call: asyncio.Task[Any], _: str) -> None:
        # The SDK turns this into what the era prescribes.
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def terminate(self) -> None:
        """Leaving the transport's context sends the DELETE, and nothing else does."""

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator["Listening"]:
        async with self._client.listen(resources_list_changed=True) as subscription:
            yield Listening(subscription)

    @staticmethod
    def code_of(error: MCPError) -> int:
        return error.code


class Listening:
    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def next(self) -> str:
        return event_to_notification(await anext(self._subscription), {}).method


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
        async with httpx2.AsyncClient(timeout=10) as http:
            return (await http.request(method, self._job.url, headers=headers, json=body)).status_code


if __name__ == "__main__":
    worker.run(scenarios.SCENARIOS, Peer)
