"""The undocumented parts of uvicorn that the server depends on.

`server.process` and `server.protocol` override methods and read attributes that a new version may
rename without a word; an override that nothing calls any more would fail in silence. The names are
listed here, and pyproject.toml keeps uvicorn below the first version that has not passed.
"""

import ast
import asyncio
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http import flow_control, httptools_impl
from uvicorn.server import ServerState

from convnextv2.server import process, protocol

OVERRIDDEN = {
    "_Flow": {"resume_reading"},
    "TimedProtocol": {
        "connection_made",
        "data_received",
        "eof_received",
        "connection_lost",
        "on_message_begin",
        "on_header",
        "on_headers_complete",
        "on_message_complete",
        "on_response_complete",
        "pause_writing",
        "resume_writing",
        "shutdown",
        "_start_asgi_task",
        "on_url",
        "send_400_response",
    },
    "DrainingServer": {"startup", "handle_exit", "shutdown"},
}
INHERITED = {
    "_Flow": set(),
    "TimedProtocol": {
        "_unset_keepalive_if_required",
        "cycle",
        "flow",
        "loop",
        "parser",
        "pipeline",
        "transport",
    },
    "DrainingServer": {
        "config",
        "force_exit",
        "lifespan",
        "server_state",
        "servers",
        "should_exit",
    },
}
"""Attributes of `self` that uvicorn's classes give to ours."""

BASES = {
    "_Flow": flow_control.FlowControl,
    "TimedProtocol": httptools_impl.HttpToolsProtocol,
    "DrainingServer": uvicorn.Server,
}
CALLED_BY_UVICORN = (
    "_start_asgi_task",
    "on_response_complete",
    "resume_reading",
    "send_400_response",
)
"""The overridden methods that uvicorn calls. asyncio and httptools call the others."""


def our_classes() -> dict[str, ast.ClassDef]:
    return {
        node.name: node
        for module in (process, protocol)
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef)
    }


def methods(node: ast.ClassDef) -> dict[str, ast.AST]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {item.name: item for item in node.body if isinstance(item, kinds)}


def of_self(node: ast.AST, context: type[ast.expr_context]) -> set[str]:
    """Attributes of `self` that are read, or written, somewhere below a node."""
    return {
        item.attr
        for item in ast.walk(node)
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, context)
        if isinstance(item.value, ast.Name) and item.value.id == "self"
    }


def test_what_is_overridden_is_there() -> None:
    """Checked against our source too, so that the list is whole."""
    classes = our_classes()
    for name, base in BASES.items():
        overridden = methods(classes[name]).keys() & {*dir(base)} - {"__init__"}
        assert overridden == OVERRIDDEN[name], name


def test_every_inherited_attribute_is_listed() -> None:
    for name, node in our_classes().items():
        if name not in BASES:
            continue
        own = set(methods(node))
        own |= {
            item.target.id
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }
        own |= {
            target.id
            for item in node.body
            if isinstance(item, ast.Assign)
            for target in item.targets
            if isinstance(target, ast.Name)
        }
        if "__init__" in methods(node):
            own |= of_self(methods(node)["__init__"], ast.Store)
        used = of_self(node, ast.Load) | of_self(node, ast.Store)
        assert used - own == INHERITED[name], name


def test_what_is_overridden_is_called() -> None:
    source = inspect.getsource(httptools_impl)
    for name in CALLED_BY_UVICORN:
        assert re.search(rf"\.{name}\b", source), name


async def test_attributes_of_a_connection_with_a_request(anyio_backend: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    config = uvicorn.Config(app, lifespan="off")
    config.load()
    protocol = httptools_impl.HttpToolsProtocol(config, ServerState(), {})
    transport = _Transport()
    protocol.connection_made(transport)
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    cycle = protocol.cycle
    assert (
        cycle.more_body is True and cycle.response_complete is False and cycle.disconnected is False
    )
    assert isinstance(cycle.message_event, asyncio.Event)
    assert isinstance(protocol.flow, flow_control.FlowControl)
    assert protocol.transport is transport and protocol.loop is asyncio.get_running_loop()
    assert list(protocol.pipeline) == []
    for name in INHERITED["TimedProtocol"]:
        assert hasattr(protocol, name), name
    assert callable(protocol._unset_keepalive_if_required)
    assert isinstance(protocol.parser, httptools.HttpRequestParser)
    protocol.data_received(b"hello" + 2 * b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert len(protocol.pipeline) == 2  # those behind
    protocol.pipeline.clear()
    protocol.connection_lost(None)


async def test_attributes_of_the_server(anyio_backend: str) -> None:
    config = uvicorn.Config(lambda: None, lifespan="off", backlog=7)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    assert server.should_exit is False and server.force_exit is False
    assert isinstance(server.server_state, ServerState)
    assert config.backlog == 7 and config.http_protocol_class is httptools_impl.HttpToolsProtocol
    assert server.lifespan.state == {}
    for name in INHERITED["DrainingServer"] - {"servers"}:
        assert hasattr(server, name), name
    assert "self.servers" in inspect.getsource(uvicorn.Server.startup)
    assert config.ssl is None and server.server_state.connections == set()


def test_versions_are_bounded() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    stated = next(
        text for text in project["optional-dependencies"]["serve"] if text.startswith("uvicorn")
    )
    least, below = (tuple(map(int, found.split("."))) for found in re.findall(r"\d+\.\d+", stated))
    assert least <= tuple(map(int, uvicorn.__version__.split(".")[:2])) < below


class _Transport(asyncio.Transport):
    """A client that has connected."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        return

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return

    def close(self) -> None:
        return
