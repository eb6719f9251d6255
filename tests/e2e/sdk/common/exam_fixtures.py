"""What the official conformance runner expects of a server under test, in the way both Python SDKs share.

Names, texts and schemas are the runner's, not ours.
"""

import asyncio
import base64
import json
from typing import Annotated, Any

from mcp.types import AudioContent, EmbeddedResource, ImageContent, SamplingMessage, TextContent
from pydantic import BaseModel, Field

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
BETWEEN_NOTIFICATIONS_SECONDS = 0.05
RECONNECT_SECONDS = 0.2

SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


class UserResponse(BaseModel):
    response: str = Field(description="User's response")


class Defaults(BaseModel):
    name: str = Field(default="John Doe")
    age: int = Field(default=30)
    score: float = Field(default=95.5)
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = Field(default=True)


def _titled(**titles: str) -> list[dict[str, str]]:
    return [{"const": const, "title": title} for const, title in titles.items()]


class Enums(BaseModel):
    untitledSingle: str = Field(json_schema_extra={"enum": ["active", "inactive", "pending"]})
    titledSingle: str = Field(json_schema_extra={"oneOf": _titled(low="Low", medium="Medium", high="High")})
    untitledMulti: list[str] = Field(
        json_schema_extra={"items": {"type": "string", "enum": ["read", "write", "execute"]}}
    )
    titledMulti: list[str] = Field(
        json_schema_extra={"items": {"anyOf": _titled(feature="New Feature", bug="Bug Fix", docs="Documentation")}}
    )
    legacyEnum: str = Field(
        json_schema_extra={
            "enum": ["small", "medium", "large"],
            "enumNames": ["Small Size", "Medium Size", "Large Size"],
        }
    )


def image() -> ImageContent:
    return ImageContent.model_validate({"type": "image", "data": PNG, "mimeType": "image/png"})


def embedded(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    return EmbeddedResource.model_validate(
        {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": text}}
    )


def text(value: str) -> TextContent:
    return TextContent(type="text", text=value)


def register(mcp: Any, Context: type, UserMessage: type, Completion: type) -> None:
    _register_contents(mcp)
    _register_conversations(mcp, Context)
    _register_resources(mcp)
    _register_prompts(mcp, UserMessage)

    @mcp.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> Any:
        return Completion(values=[], total=0)


def _register_contents(mcp: Any) -> None:
    @mcp.tool()
    def test_simple_text() -> str:
        """Simple text."""
        return "This is a simple text response for testing."

    @mcp.tool()
    def test_image_content() -> list[ImageContent]:
        """Image content."""
        return [image()]

    @mcp.tool()
    def test_audio_content() -> list[AudioContent]:
        """Audio content."""
        return [AudioContent.model_validate({"type": "audio", "data": WAV, "mimeType": "audio/wav"})]

    @mcp.tool()
    def test_embedded_resource() -> list[EmbeddedResource]:
        """Embedded resource."""
        return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]

    @mcp.tool()
    def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
        """Multiple content types."""
        mixed = embedded("test://mixed-content-resource", "application/json", '{"test": "data", "value": 123}')
        return [text("Multiple content types test:"), image(), mixed]

    @mcp.tool()
    def test_error_handling() -> str:
        """Error handling."""
        raise RuntimeError("This tool intentionally returns an error for testing")

    @mcp.tool()
    def json_schema_2020_12_tool() -> str:
        """Schema 2020 12 tool."""
        return "json_schema_2020_12_tool"

    # Neither generation lets a tool bring its own input schema.
    mcp._tool_manager._tools["json_schema_2020_12_tool"].parameters = SCHEMA_2020_12


def _register_conversations(mcp: Any, Context: type) -> None:
    @mcp.tool()
    async def test_tool_with_logging(ctx: Context) -> str:
        """Tool with logging."""
        for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.info(line)
            await asyncio.sleep(BETWEEN_NOTIFICATIONS_SECONDS)
        return "Tool with logging executed successfully"

    @mcp.tool()
    async def test_tool_with_progress(ctx: Context) -> str:
        """Tool with progress."""
        for step in (0, 50, 100):
            await ctx.report_progress(step, 100, f"Completed step {step} of 100")
            await asyncio.sleep(BETWEEN_NOTIFICATIONS_SECONDS)
        return "done"

    @mcp.tool()
    async def test_sampling(prompt: str, ctx: Context) -> str:
        """Sampling."""
        answer = await ctx.session.create_message(
            [SamplingMessage(role="user", content=text(prompt))], max_tokens=100, related_request_id=ctx.request_id
        )
        return f"LLM response: {answer.content.text}"

    async def elicited(ctx: Any, message: str, schema: type[BaseModel], opening: str) -> str:
        result = await ctx.elicit(message=message, schema=schema)
        content = result.data.model_dump_json() if result.action == "accept" else "{}"
        return f"{opening}: action={result.action}, content={content}"

    @mcp.tool()
    async def test_elicitation(message: str, ctx: Context) -> str:
        """Elicitation."""
        return await elicited(ctx, message, UserResponse, "User response")

    @mcp.tool()
    async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
        """Elicitation sep1034 defaults."""
        return await elicited(ctx, "Please provide user information", Defaults, "Elicitation result")

    @mcp.tool()
    async def test_elicitation_sep1330_enums(ctx: Context) -> str:
        """Elicitation sep1330 enums."""
        return await elicited(ctx, "Please select values", Enums, "Elicitation completed")

    @mcp.tool()
    async def test_reconnection(ctx: Context) -> str:
        """Reconnection."""
        await ctx.info("Before disconnect")
        await ctx.close_sse_stream()
        await asyncio.sleep(RECONNECT_SECONDS)
        await ctx.info("After reconnect")
        return "Reconnection test completed"

    @mcp.tool()
    def test_x_mcp_header(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "none") -> str:
        """X mcp header."""
        return f"region={region}"


def _register_resources(mcp: Any) -> None:
    @mcp.resource("test://static-text", description="A static text")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @mcp.resource("test://static-binary", description="A static image")
    def static_binary() -> bytes:
        return base64.b64decode(PNG)

    @mcp.resource("test://template/{id}/data", description="A template")
    def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @mcp.resource("test://watched-resource", description="One that can be subscribed to")
    def watched() -> str:
        return "Watched resource content"


def _register_prompts(mcp: Any, UserMessage: type) -> None:
    @mcp.prompt()
    def test_simple_prompt() -> list[UserMessage]:
        """Simple prompt."""
        return [UserMessage(content=text("This is a simple prompt for testing."))]

    @mcp.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
        """Prompt with arguments."""
        return [UserMessage(content=text(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))]

    @mcp.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        """Prompt with embedded resource."""
        resource = embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
        return [UserMessage(content=resource), UserMessage(content=text("Please process the embedded resource above."))]

    @mcp.prompt()
    def test_prompt_with_image() -> list[UserMessage]:
        """Prompt with image."""
        return [UserMessage(content=image()), UserMessage(content=text("Please analyze the image above."))]
