"""The server that the conformance runner examines, on the Python SDK 2.x and in both eras."""

import json
from typing import Any

import events
import exam_fixtures
import fixtures
from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer, RequestStateSecurity
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    EmptyResult,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

STATE_KEY = b"a fixed key, long enough for the tests"

Answer = str | InputRequiredResult


def elicitation(message: str, name: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(question: str) -> CreateMessageRequest:
    messages = [SamplingMessage(role="user", content=exam_fixtures.text(question))]
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=messages, max_tokens=100))


def ask(state: str | None = None, **requests: Any) -> InputRequiredResult:
    return InputRequiredResult(input_requests=requests, request_state=state)


def field_of(answer: Any, name: str) -> Any:
    content = getattr(answer, "content", None)
    return content.get(name) if isinstance(content, dict) else None


def register_input_required(mcp: MCPServer) -> None:
    @mcp.tool()
    async def test_input_required_result_elicitation(ctx: Context) -> Answer:
        """Elicitation."""
        answers = ctx.input_responses or {}
        if "user_name" in answers:
            return f"Hello, {field_of(answers['user_name'], 'name')}!"
        return ask(user_name=elicitation("What is your name?", "name"))

    @mcp.tool()
    async def test_input_required_result_sampling(ctx: Context) -> Answer:
        """Sampling."""
        answers = ctx.input_responses or {}
        if "capital_question" in answers:
            return f"Model said: {answers['capital_question'].content.text}"
        return ask(capital_question=sampling("What is the capital of France?"))

    @mcp.tool()
    async def test_input_required_result_list_roots(ctx: Context) -> Answer:
        """List roots."""
        answers = ctx.input_responses or {}
        if "client_roots" in answers:
            return f"Client exposed {len(answers['client_roots'].roots)} root(s)."
        return ask(client_roots=ListRootsRequest())

    @mcp.tool()
    async def test_input_required_result_request_state(ctx: Context) -> Answer:
        """Request state."""
        if "confirm" in (ctx.input_responses or {}) and ctx.request_state == "nonce":
            return "state-ok: confirmation received"
        return ask("nonce", confirm=elicitation("Please confirm", "ok", "boolean"))

    @mcp.tool()
    async def test_input_required_result_multiple_inputs(ctx: Context) -> Answer:
        """Multiple inputs."""
        wanted = {
            "user_name": elicitation("What is your name?", "name"),
            "greeting": sampling("Generate a greeting"),
            "client_roots": ListRootsRequest(),
        }
        if wanted.keys() <= (ctx.input_responses or {}).keys():
            return "All inputs received."
        return ask("multiple-inputs", **wanted)

    @mcp.tool()
    async def test_input_required_result_multi_round(ctx: Context) -> Answer:
        """Multi round."""
        state = json.loads(ctx.request_state) if ctx.request_state else {}
        answers = ctx.input_responses or {}
        if state.get("round") == 1 and "step1" in answers:
            next_state = json.dumps({"round": 2, "name": field_of(answers["step1"], "name")})
            return ask(next_state, step2=elicitation("Step 2: What is your favorite color?", "color"))
        if state.get("round") == 2 and "step2" in answers:
            return f"{state['name']} likes {field_of(answers['step2'], 'color')}."
        return ask(json.dumps({"round": 1}), step1=elicitation("Step 1: What is your name?", "name"))

    @mcp.tool()
    async def test_input_required_result_tampered_state(ctx: Context) -> Answer:
        """Tampered state."""
        if ctx.request_state is None:
            return ask("round-1", confirm=elicitation("Please confirm", "ok", "boolean"))
        return f"state-ok: {ctx.request_state}"

    @mcp.tool()
    async def test_input_required_result_capabilities(ctx: Context) -> InputRequiredResult:
        """Capabilities."""
        capabilities = ctx.client_capabilities
        wanted: dict[str, Any] = {}
        if capabilities is None or capabilities.sampling is not None:
            wanted["sample"] = sampling("Say hello")
        if capabilities is None or capabilities.elicitation is not None:
            wanted["ask"] = elicitation("What is your name?", "name")
        return ask("capability-gated", **wanted)

    @mcp.prompt()
    async def test_input_required_result_prompt(ctx: Context) -> list[UserMessage] | InputRequiredResult:
        """Prompt."""
        answers = ctx.input_responses or {}
        if "user_context" in answers:
            context = field_of(answers["user_context"], "context")
            return [UserMessage(content=exam_fixtures.text(f"Use the following context: {context}"))]
        return ask(user_context=elicitation("What context should the prompt use?", "context"))


def register_modern(mcp: MCPServer) -> None:
    @mcp.tool()
    async def test_missing_capability(ctx: Context) -> str:
        """Missing capability."""
        capabilities = ctx.session.client_capabilities
        if capabilities is None or capabilities.sampling is None:
            needed = {"requiredCapabilities": {"sampling": {}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "sampling is needed", needed)
        return "sampling was declared"

    @mcp.tool()
    async def test_trigger_tool_change(ctx: Context) -> str:
        """Trigger tool change."""
        mcp.add_tool(lambda: "dynamic", name="test_dynamic_tool")
        mcp.remove_tool("test_dynamic_tool")
        await ctx.notify_tools_changed()
        return "tool list changed"

    @mcp.tool()
    async def test_trigger_prompt_change(ctx: Context) -> str:
        """Trigger prompt change."""
        mcp.add_prompt(Prompt.from_function(lambda: "dynamic", name="test_dynamic_prompt"))
        mcp.remove_prompt("test_dynamic_prompt")
        await ctx.notify_prompts_changed()
        return "prompt list changed"


def register_legacy(mcp: MCPServer) -> None:
    async def nothing(_: Any, __: Any) -> EmptyResult:
        return EmptyResult()

    # MCPServer offers no public way to these three.
    low_level = mcp._lowlevel_server
    low_level.add_request_handler("logging/setLevel", SetLevelRequestParams, nothing)
    low_level.add_request_handler("resources/subscribe", SubscribeRequestParams, nothing)
    low_level.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, nothing)


if __name__ == "__main__":
    server = MCPServer(
        "e2e-examinee-py2",
        version="1",
        request_state_security=RequestStateSecurity(keys=[STATE_KEY]),
        log_level="WARNING",
    )
    exam_fixtures.register(server, Context, UserMessage, Completion)
    register_input_required(server)
    register_modern(server)
    register_legacy(server)
    app = server.streamable_http_app(event_store=events.MemoryEvents(), retry_interval=100)
    fixtures.run([app], [server.session_manager.run])
