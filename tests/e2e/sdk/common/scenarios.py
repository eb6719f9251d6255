"""What a client does in each scenario and what it saw; the JavaScript twin is scenarios.mjs.

`peer` hides the differences between the SDK generations (see client.py of each). Nothing is judged here: the driver
judges the transcripts, the same way for every SDK.
"""

import asyncio
import hashlib
from typing import Any

import switchboard

EXPECTED_FAILURE_CHARS = 200


def text_of(result: dict[str, Any]) -> str:
    return result["content"][0]["text"]


async def list_tools(peer: Any) -> Any:
    async with peer.connect() as session:
        return {"era": session.era(), "tools": await session.list_tools()}


async def call_tool(peer: Any) -> Any:
    async with peer.connect() as session:
        return {
            "echo": await session.call("echo", {"text": 'hello \u00e9\u4e16\U0001f9ea "quoted" \\ \n'}),
            "add": await session.call("add", {"a": 20, "b": 22}),
            "fail": await session.call("fail", {}),
        }


async def progress(peer: Any) -> Any:
    reports: list[Any] = []

    async def saw(report: dict[str, Any]) -> None:
        reports.append(report)
        await switchboard.record(peer.key, f"got {int(report['progress'])}")

    async with peer.connect() as session:
        result = await session.call("steps", {"count": 5}, saw)
        return {"reports": reports, "result": result}


async def resources(peer: Any) -> Any:
    async with peer.connect() as session:
        return {
            "resources": await session.list_resources(),
            "templates": await session.list_templates(),
            "text": await session.read("e2e://note"),
            "blob": await session.read("e2e://blob"),
            "item": await session.read("e2e://item/seven"),
        }


async def prompts(peer: Any) -> Any:
    async with peer.connect() as session:
        return {"prompts": await session.list_prompts(), "greet": await session.prompt("greet", {"name": "Ada"})}


async def sampling(peer: Any) -> Any:
    async with peer.connect() as session:
        result = await session.call("ask_model", {"prompt": "what is 6 times 7?"})
        return {"asked": session.asked, "result": result}


async def elicitation(peer: Any) -> Any:
    async with peer.connect() as session:
        accepted = await session.call("ask_user", {"question": "your colour?"})
        declined = await session.call("ask_user", {"question": "no, really?"})
        return {"asked": session.asked, "accepted": accepted, "declined": declined}


async def two_rounds(peer: Any) -> Any:
    async with peer.connect() as session:
        result = await session.call("two_rounds", {})
        return {"asked": session.asked, "result": result}


async def get_stream(peer: Any) -> Any:
    async with peer.connect() as session:
        await switchboard.wait(peer.key, "backend open GET")
        result = await session.call("announce", {})
        return {"result": result, "notification": await session.notification()}


async def get_stream_reopened(peer: Any) -> Any:
    async with peer.connect() as session:
        await switchboard.wait(peer.key, "client open GET")
        await switchboard.cut(peer.key, "GET")
        await switchboard.wait(peer.key, "backend gone GET")
        await switchboard.wait(peer.key, "backend open GET", count=2)
        result = await session.call("announce", {})
        return {"result": result, "notification": await session.notification()}


async def resume_closed(peer: Any) -> Any:
    return await _interrupted(peer, cut=False)


async def resume_broken(peer: Any) -> Any:
    return await _interrupted(peer, cut=True)


async def _interrupted(peer: Any, *, cut: bool) -> Any:
    reports: list[Any] = []

    async def saw(report: dict[str, Any]) -> None:
        reports.append(report["message"])
        if cut and report["message"] == "before":
            await switchboard.cut(peer.key, "POST tools/call")

    async with peer.connect() as session:
        result = await session.call("interrupted", {"close": not cut}, saw)
        return {"reports": reports, "result": result}


async def delete_session(peer: Any) -> Any:
    async with peer.connect() as session:
        before = text_of(await session.call("echo", {"text": "alive"}))
        session_id = session.session_id()
        await session.terminate()
    late = {method: await peer.late_request(method, session_id) for method in ("POST", "GET", "DELETE")}
    return {"before": before, "late": late}


async def leave(peer: Any) -> Any:
    """The client goes away in the middle of a call, without a word."""
    started = asyncio.Event()

    async def saw(_: dict[str, Any]) -> None:
        started.set()

    async with peer.connect(farewell=False) as session:
        call = asyncio.create_task(session.call("hold", {}, saw))
        await started.wait()
    await switchboard.wait(peer.key, "backend gone POST tools/call")
    await switchboard.record(peer.key, "release")
    # Not every SDK ends the calls of a transport that is gone.
    answered = call.done() and call.exception() is None
    call.cancel()
    return {"answered": answered}


async def cancel(peer: Any) -> Any:
    """The client cancels a call; what the wire carries for that depends on the era."""
    started = asyncio.Event()
    request_id = ""

    async def saw(report: dict[str, Any]) -> None:
        nonlocal request_id
        request_id = report["message"]
        started.set()

    async with peer.connect() as session:
        call = asyncio.create_task(session.call("hold", {}, saw))
        await started.wait()
        await session.cancel(call, request_id)
        await switchboard.wait(peer.key, "handler cancelled")
        return {"alive after": await session.call("echo", {"text": "still here"})}


async def big_result(peer: Any) -> Any:
    async with peer.connect() as session:
        text = text_of(await session.call("big", {"bytes": 5_000_000}))
        return {"chars": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


async def big_argument(peer: Any) -> Any:
    async with peer.connect() as session:
        text = "".join(f"{index:07d}\n" for index in range(125_000))
        return {"sent": len(text), "same": text_of(await session.call("echo", {"text": text})) == text}


async def concurrent(peer: Any) -> Any:
    count = 20
    async with peer.connect() as session:
        calls = (session.call("meet", {"count": count, "name": f"caller {index}"}) for index in range(count))
        return {"answers": [text_of(result) for result in await asyncio.gather(*calls)]}


async def priming(peer: Any) -> Any:
    async with peer.connect() as session:
        return {"echo": text_of(await session.call("echo", {"text": "after a priming event"}))}


async def separators(peer: Any) -> Any:
    reports: list[Any] = []

    async def saw(report: dict[str, Any]) -> None:
        reports.append(report["message"])

    async with peer.connect() as session:
        result = await session.call("separators", {}, saw)
        return {"reports": reports, "result": text_of(result)}


async def headers(peer: Any) -> Any:
    async with peer.connect() as session:
        return {"headers": text_of(await session.call("headers", {}))}


async def mirrored(peer: Any) -> Any:
    async with peer.connect() as session:
        await session.list_tools()
        return {
            "plain": text_of(await session.call("mirrored", {"region": "eu-west-1"})),
            "encoded": text_of(await session.call("mirrored", {"region": " Z\u00fcrich"})),
        }


async def errors(peer: Any) -> Any:
    async with peer.connect() as session:
        attempts = {
            "missing resource": session.read("e2e://nowhere"),
            "missing prompt": session.prompt("nobody", {}),
            "missing tool": session.call("nothing", {}),
            "bad argument": session.call("add", {"a": "x", "b": 1}),
        }
        return {name: await _outcome(session, attempt) for name, attempt in attempts.items()}


async def _outcome(session: Any, attempt: Any) -> Any:
    try:
        result = await attempt
    except session.error_type as error:
        return {"code": session.code_of(error), "message": str(error)[:EXPECTED_FAILURE_CHARS]}
    return {"isError": result.get("isError"), "message": text_of(result)[:EXPECTED_FAILURE_CHARS]}


async def json_answers(peer: Any) -> Any:
    async with peer.connect() as session:
        return {
            "tools": [tool["name"] for tool in await session.list_tools()],
            "echo": await session.call("echo", {"text": "in one piece"}),
            "note": await session.read("e2e://note"),
            "fail": await session.call("fail", {}),
        }


async def listen(peer: Any) -> Any:
    async with peer.connect() as session:
        async with session.listen() as subscription:
            result = await session.call("announce", {})
            event = await subscription.next()
        await switchboard.wait(peer.key, "backend gone POST subscriptions/listen")
        return {"result": result, "event": event}


SCENARIOS = {
    "list-tools": list_tools,
    "call-tool": call_tool,
    "progress": progress,
    "resources": resources,
    "prompts": prompts,
    "sampling": sampling,
    "elicitation": elicitation,
    "two-rounds": two_rounds,
    "get-stream": get_stream,
    "get-stream-reopened": get_stream_reopened,
    "resume-closed": resume_closed,
    "resume-broken": resume_broken,
    "delete-session": delete_session,
    "leave": leave,
    "cancel": cancel,
    "big-result": big_result,
    "json-big-result": big_result,
    "big-argument": big_argument,
    "concurrent": concurrent,
    "priming": priming,
    "separators": separators,
    "headers": headers,
    "mirrored": mirrored,
    "errors": errors,
    "json-answers": json_answers,
    "discover-fallback": list_tools,
    "listen": listen,
}
