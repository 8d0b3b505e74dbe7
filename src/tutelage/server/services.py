"""What every request handler may use, made once by `create_app`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from tutelage.engine.pool import Engines
from tutelage.moderation.gate import Gate
from tutelage.registry import Registry
from tutelage.store import Store

if TYPE_CHECKING:
    from tutelage.server.limits import RateLimits
    from tutelage.server.oidc.provider import Provider
    from tutelage.server.passwords import SignInLimits
    from tutelage.server.turn import Turns

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


def is_loopback(host: str) -> bool:
    """Whether only this machine answers to a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in, and by which names: `hosts` are the accepted Host headers, none meaning any."""

    guests: bool = True
    hosts: frozenset[str] = LOOPBACK


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running server. `providers` are those that people may sign in by, under their keys."""

    store: Store
    engines: Engines
    gate: Gate
    registry: Registry
    home: Path
    access: Access
    turns: Turns
    sign_in_limits: SignInLimits
    limits: RateLimits
    providers: Mapping[str, Provider]


def services(connection: HTTPConnection) -> Services:
    """The parts of the server that answers this request. A FastAPI dependency."""
    found: Services = connection.app.state.services
    return found
