"""Runs real MCP SDK clients against real MCP SDK servers, direct and through proxies, and compares."""
