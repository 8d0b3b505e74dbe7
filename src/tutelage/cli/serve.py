"""`tutelage serve`: the pages, the API and the model, in one process."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.output import JsonOption
from tutelage.errors import ConfigError, Conflict, InvalidRequest

if TYPE_CHECKING:
    from tutelage.engine.interface import Engine, Scorer
    from tutelage.registry import ModelVersion
    from tutelage.server.limits import Limits
    from tutelage.server.oidc.provider import Provider
    from tutelage.server.services import Access
    from tutelage.store import Store

log = logging.getLogger(__name__)

OTHER_BASE = "A round on it makes a version of it: tutelage improve RECIPE --set model=…"
DRAIN_SECONDS = 30
LONGEST_HEADERS = 32 * 1024
MOST_CONNECTIONS = 1000
HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\]")
NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where this machine itself finds a server that listens on all its addresses."""

HostOption = Annotated[str, typer.Option(help="Address to listen on; 127.0.0.1 is this machine alone.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="The base, until something is trained: builtin (unless said otherwise), tiny, a folder, a GGUF file or a "
        "Hugging Face id."
    ),
]
GuestsOption = Annotated[
    bool | None,
    typer.Option("--allow-guests/--no-allow-guests", help="Whether people may chat without signing in."),
]
NameOption = Annotated[
    list[str],
    typer.Option("--public-name", help="Host name under which a proxy serves this; may be repeated."),
]

LimitOption = Annotated[
    list[str],
    typer.Option(
        "--limit",
        metavar="NAME=NUMBER",
        help="How much of /v1 one key may use: requests or tokens a minute, daily_tokens; address_requests a minute "
        "from one address. 0 is no limit; may be repeated.",
    ),
]

EngineOption = Annotated[
    str,
    typer.Option(
        "--engine", metavar="URL", help="Have answers computed by this vLLM server, which serves the base."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("serve")(serve)


def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    model: ModelOption = None,
    allow_guests: GuestsOption = None,
    public_name: NameOption = [],  # noqa: B006 - typer reads it, nobody changes it
    limit: LimitOption = [],  # noqa: B006
    engine: EngineOption = "",
    as_json: JsonOption = False,
) -> None:
    """Serve the chat page, the trainers' pages and the API."""
    access, limits = _access(host, allow_guests, public_name), _limits(limit)
    if engine and not re.match(r"https?://[^/]", engine):
        raise ConfigError(f"--engine {engine} is no address", hint="write it whole: http://10.0.0.2:8100")
    with _listen(host, port) as listener:
        _run(listener, access, limits, model, public_names=public_name, engine=engine, as_json=as_json)


def _access(host: str, allow_guests: bool | None, public_names: list[str]) -> Access:
    """Who may come in. Guests may where nobody but the owner of this machine can reach it.

    Raises ConfigError when others can reach it and nobody has said whether guests may come in.
    """
    from tutelage.server.services import LOOPBACK, Access, is_loopback

    if is_loopback(host) and not public_names:
        return Access(guests=allow_guests is not False)
    if allow_guests is None:
        raise ConfigError(
            "other machines can reach this server, and nobody has said whether strangers may chat",
            hint="add --no-allow-guests (people sign in first) or --allow-guests (anybody may chat)",
        )
    hosts = LOOPBACK | {_host_name(name) for name in public_names} if public_names else frozenset[str]()
    return Access(guests=allow_guests, hosts=hosts)


def _host_name(name: str) -> str:
    """A public name in small letters, as it stands in the header Host without its port.

    Raises ConfigError for an address or anything else that no browser would send there.
    """
    host = name.lower()
    if not HOST_NAME.fullmatch(host):
        meant = re.sub(r"^[a-z]+://|[:/].*$", "", host)
        example = meant if HOST_NAME.fullmatch(meant) else "chat.example.org"
        hint = f"write the name alone: --public-name {example}"
        raise ConfigError(f"{name!r} is not the name of a host", hint=hint)
    return host


def _limits(options: list[str]) -> Limits:
    """The limits of /v1. Raises ConfigError for an unknown name and for what is not a number."""
    from tutelage.server.limits import Limits

    known = [field.name for field in fields(Limits)]
    found: dict[str, int] = {}
    for option in options:
        name, _, number = option.partition("=")
        if name not in known or not (number.isascii() and number.isdecimal() and len(number) < 16):
            hint = f"write NAME=NUMBER with one of {', '.join(known)}"
            raise ConfigError(f"--limit {option} is no limit", hint=hint)
        found[name] = int(number)
    return Limits(**found)


def _listen(host: str, port: int) -> socket.socket:
    """The server's socket. Raises Conflict when the port is taken, InvalidRequest for an impossible address."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=256)
        # Its connections inherit this. asyncio asks for it only where a socket names its protocol, which these do not;
        # without it, every answer on a kept connection waits 40 ms for the client's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = f"stop what is listening there, or choose another: --port {port + 1}"
            raise Conflict(f"port {port} is in use", hint=hint) from None
        if error.errno == errno.EACCES:
            raise Conflict(
                f"port {port} may not be used by this user", hint="choose one above 1023"
            ) from None
        raise InvalidRequest(
            f"cannot listen on {host}: {error.strerror}", hint="try --host 127.0.0.1"
        ) from None


def _run(
    listener: socket.socket,
    access: Access,
    limits: Limits,
    model: str | None,
    *,
    public_names: Sequence[str],
    engine: str,
    as_json: bool,
) -> None:
    import uvicorn

    from tutelage import config
    from tutelage.engine.pool import EnginePool
    from tutelage.moderation.gate import default_gate
    from tutelage.registry import Registry
    from tutelage.server.connections import PatientProtocol
    from tutelage.store import Store
    from tutelage.web.app import create_app

    home = config.home()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("tutelage").setLevel(logging.INFO)
    registry, gate, providers = Registry(home), default_gate(home), _providers(home)
    if not registry.begin(model):
        log.warning(
            "--model %s is not what serves, but what was trained on another base. %s", model, OTHER_BASE
        )
    store = Store.open(config.database())
    try:
        engines = EnginePool(
            registry,
            lambda version: _load(version, home, engine),
            load_scorer=lambda version: _load_scorer(version, home),
        )
        app = create_app(
            store=store,
            engines=engines,
            gate=gate,
            registry=registry,
            home=home,
            access=access,
            limits=limits,
            providers=providers,
        )
        issuers = [provider.settings.issuer for provider in providers.values()]
        _greet(store, listener, issuers, public_names, as_json=as_json)
        settings = uvicorn.Config(
            app,
            http=PatientProtocol,
            access_log=False,  # addresses hold one-time tokens
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            h11_max_incomplete_event_size=LONGEST_HEADERS,
            limit_concurrency=MOST_CONNECTIONS,
        )
        uvicorn.Server(settings).run(sockets=[listener])
    finally:
        store.close()


def _providers(home: Path) -> dict[str, Provider]:
    """Where people may sign in elsewhere: what `oidc.toml` says."""
    from tutelage.server.oidc.settings import load_settings

    found = load_settings(home, os.environ)
    if not found:
        return {}
    from tutelage.server.oidc.provider import Provider

    return {key: Provider(key, settings) for key, settings in found.items()}


def _load(version: ModelVersion, home: Path, url: str) -> Engine:
    """A version in this process, or on the server at `url`."""
    if url:
        from tutelage.engine import remote_engine

        return remote_engine.load(version, home, url)
    from tutelage.engine.torch_engine import load

    return load(version, home)


def _load_scorer(version: ModelVersion, home: Path) -> Scorer:
    from tutelage.evaluation.torch_scorer import load

    return load(version, home)


def _greet(
    store: Store,
    listener: socket.socket,
    issuers: Sequence[str] = (),
    public_names: Sequence[str] = (),
    *,
    as_json: bool,
) -> None:
    """Print where the server is, and, as long as no operator can sign in, a link that makes one.

    The link is one that a browser elsewhere can open, where the server knows its public name.
    """
    from tutelage.store import accounts, identities

    host, port = listener.getsockname()[:2]
    near = NEAR.get(host, host)
    address = f"http://{f'[{near}]' if ':' in near else near}:{port}"
    public = f"https://{public_names[0].lower()}" if public_names else address
    lines = [f"tutelage is at {address}  (Ctrl+C ends it)"]
    if public_names:
        lines.append(f"Behind its proxy it is at {public}")
    elif near != host:
        lines.append("Other machines reach it by the name or the address of this one.")
    link = None
    with store.write() as tx:
        if not identities.operator_can_sign_in(tx, issuers):
            link = f"{public}/operator-link/{accounts.make_operator_link(tx)}"
            lines.append(f"Become its operator, once, within an hour: {link}")
    print(json.dumps({"url": address, "operator_link": link}) if as_json else "\n".join(lines), flush=True)
