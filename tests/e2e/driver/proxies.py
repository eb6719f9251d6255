"""The ways a client can reach a backend: directly, through nginx, through Ringway."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .places import Places, base_environment
from .process import Child, StartError, free_port, until_connectable
from .switchboard import Switchboard
from .tap import Tap

START_SECONDS_MAX = 15.0
PORT_ATTEMPTS_MAX = 3
LOG_CHARS_MAX = 10_000_000
_SYS_IO_URING_SETUP = 425


# Writes the configuration for a folder and two free ports; gives the command and the port that shows it is up.
Configure = Callable[[Path, int, int], tuple[list[str | Path], int]]


@dataclass(frozen=True)
class Endpoint:
    """What a proxy is told: serve `http://127.0.0.1:{port}{path}` as /mcp/{name}."""

    name: str
    port: int
    path: str


class Proxy:
    """A running proxy with the tap its clients connect to."""

    def __init__(self, name: str, child: Child, port: int, tap: Tap) -> None:
        self.name = name
        self.child = child
        self.port = port
        self.tap = tap

    def url(self, endpoint: str) -> str:
        return f"http://127.0.0.1:{self.tap.port}/mcp/{endpoint}"

    def untapped_url(self, endpoint: str) -> str:
        return f"http://127.0.0.1:{self.port}/mcp/{endpoint}"

    async def stop(self) -> list[str]:
        """What is wrong with how the process lived and ended: it should be there to the last and leave when asked."""
        died = [] if self.child.running else [f"ended during the run with {self.child.process.returncode}"]
        self.tap.stop()
        await self.child.stop()
        code = self.child.process.returncode
        unclean = [f"ended with {code} after TERM"] if not died and code != 0 else []
        panicked = ["panicked"] if "panicked at" in self.child.log_tail(LOG_CHARS_MAX) else []
        faults = [*died, *unclean, *panicked]
        return [*faults, self.child.log_tail()] if faults else []


async def start_nginx(endpoints: list[Endpoint], places: Places, switchboard: Switchboard) -> Proxy:
    def configure(folder: Path, port: int, _: int) -> tuple[list[str | Path], int]:
        file = folder / "nginx.conf"
        file.write_text(nginx_config(endpoints, folder, port))
        return [places.nginx, "-p", folder, "-c", file, "-e", "stderr"], port

    return await _start("nginx", configure, places, switchboard, {})


@dataclass(frozen=True)
class RingwayShape:
    """One of the Ringway processes the pairs are spread over."""

    workers: int
    io_driver: str

    @property
    def name(self) -> str:
        return f"ringway-{self.workers}w-{self.io_driver}"


def ringway_shapes() -> list[RingwayShape]:
    """Every worker count on every driver this kernel lets us use."""
    drivers = ["io_uring", "epoll"] if io_uring_allowed() else ["epoll"]
    # Alternating, so that any run of neighbours meets both drivers and all counts.
    return [RingwayShape((1, 2, 4)[index % 3], drivers[index % len(drivers)]) for index in range(3 * len(drivers))]


def io_uring_allowed() -> bool:
    parameters = ctypes.create_string_buffer(120)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(_SYS_IO_URING_SETUP, 1, parameters)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


async def start_ringway(
    binary: Path, shape: RingwayShape, endpoints: list[Endpoint], places: Places, switchboard: Switchboard
) -> Proxy:
    def configure(folder: Path, port: int, admin_port: int) -> tuple[list[str | Path], int]:
        file = folder / "ringway.toml"
        file.write_text(ringway_config(shape, endpoints, port, admin_port))
        return [binary, "run", "--config", file], admin_port

    extra = {"RINGWAY_IO_DRIVER": shape.io_driver}
    return await _start(shape.name, configure, places, switchboard, extra, ready=_ready)


async def _start(
    name: str,
    configure: Configure,
    places: Places,
    switchboard: Switchboard,
    extra: Mapping[str, str],
    *,
    ready: Callable[[Child, int], Awaitable[None]] | None = None,
) -> Proxy:
    """Starts a proxy on free ports; another process may take one of them first, hence the attempts."""
    folder = places.scratch / name
    folder.mkdir()
    failure: StartError | None = None
    for _ in range(PORT_ATTEMPTS_MAX):
        port, second_port = free_port(), free_port()
        argv, probe_port = configure(folder, port, second_port)
        child = await Child.start(name, argv, places.log(name), base_environment() | dict(extra))
        try:
            await until_connectable(child, probe_port, START_SECONDS_MAX)
            if ready is not None:
                await ready(child, probe_port)
        except StartError as error:
            failure = error
            await child.stop()
            continue
        tap = Tap("client", port, switchboard)
        await tap.start()
        return Proxy(name, child, port, tap)
    assert failure is not None
    raise failure


async def _ready(child: Child, admin_port: int) -> None:
    """Waits until GET /readyz on the admin address says 200."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS_MAX
    status = b"no answer"
    while loop.time() < deadline and child.running:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", admin_port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            status = await asyncio.wait_for(reader.readline(), 2)
            writer.close()
        except (OSError, TimeoutError):
            status = b"no answer"
        if b" 200 " in status:
            return
        await asyncio.sleep(0.02)
    raise StartError(f"{child.name} is not ready ({status.decode().strip()}): {child.log_tail()}")


def ringway_config(shape: RingwayShape, endpoints: list[Endpoint], port: int, admin_port: int) -> str:
    backends = "".join(
        f'\n[backends.{endpoint.name}]\nendpoints = ["http://127.0.0.1:{endpoint.port}{endpoint.path}"]\n'
        for endpoint in endpoints
    )
    return (
        f'[server]\nlisten = ["127.0.0.1:{port}"]\nworkers = {shape.workers}\nio_driver = "{shape.io_driver}"\n'
        f'\n[admin]\nlisten = "127.0.0.1:{admin_port}"\n{backends}'
    )


def nginx_config(endpoints: list[Endpoint], folder: Path, port: int) -> str:
    """The proxy every scenario must survive: no buffering, keep-alive to the backends, nothing clever."""
    upstreams = "".join(
        f"  upstream {endpoint.name} {{ server 127.0.0.1:{endpoint.port}; keepalive 32; }}\n" for endpoint in endpoints
    )
    locations = "".join(
        f"    location = /mcp/{endpoint.name} {{\n"
        f"      proxy_pass http://{endpoint.name}{endpoint.path};\n"
        # Header directives are inherited only by a location that has none of its own, hence both here.
        f"      proxy_set_header Host 127.0.0.1:{endpoint.port};\n"
        '      proxy_set_header Connection "";\n'
        "    }\n"
        for endpoint in endpoints
    )
    # The worker must be able to read its own folder, which belongs to whoever runs the tests.
    user = "user root;\n" if os.geteuid() == 0 else ""
    temp_paths = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""{user}daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_max_body_size 20m;
{temp_paths}{upstreams}  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_read_timeout 300s;
    proxy_pass_header X-Accel-Buffering;
{locations}  }}
}}
"""


async def start_direct(backend_ports: Mapping[str, int], switchboard: Switchboard) -> dict[str, Tap]:
    """Direct clients also go through a client-side tap, so that both ways are seen alike."""
    taps = {name: Tap("client", port, switchboard) for name, port in backend_ports.items()}
    for tap in taps.values():
        await tap.start()
    return taps
