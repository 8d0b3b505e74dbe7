"""`oidc.toml`: which sign-in providers there are, and whom they may let in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pydantic

from tutelage import config
from tutelage.errors import ConfigError
from tutelage.server.services import is_loopback
from tutelage.store.tables import UserRole

FILE = "oidc.toml"
KEY = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class ProviderSettings(config.Settings):
    """One provider.

    `newcomers`: whether who has no account yet gets one; otherwise only by an invitation.
    `required`: claims that everybody who signs in must have, with one of the values given.
    `role_claim`: the claim that says what people may do, at each sign-in; `trainers` and `operators` are its values.
    """

    name: str = pydantic.Field(min_length=1, max_length=64)
    issuer: str
    client_id: str = pydantic.Field(min_length=1)
    client_secret: pydantic.SecretStr | None = None
    scopes: list[str] = pydantic.Field(default_factory=lambda: ["openid", "profile"])
    newcomers: bool = False
    required: dict[str, str | list[str]] = pydantic.Field(default_factory=dict)
    role_claim: str = ""
    trainers: list[str] = pydantic.Field(default_factory=list)
    operators: list[str] = pydantic.Field(default_factory=list)
    session_days: int = pydantic.Field(default=30, ge=1, le=365)

    @pydantic.field_validator("issuer")
    @classmethod
    def _private(cls, issuer: str) -> str:
        if not is_private(issuer):
            raise ValueError("an address that begins with https:// (http:// only on this machine)")
        return issuer

    @pydantic.field_validator("scopes")
    @classmethod
    def _openid(cls, scopes: list[str]) -> list[str]:
        return scopes if "openid" in scopes else ["openid", *scopes]

    @pydantic.model_validator(mode="after")
    def _roles(self) -> ProviderSettings:
        if bool(self.role_claim) != bool(self.trainers or self.operators):
            raise ValueError("role_claim and the values for trainers or operators belong together")
        return self

    def admits(self, claims: Mapping[str, Any]) -> bool:
        """Whether somebody with these claims has all that is required."""
        return all(_has(claims, name, values) for name, values in self.required.items())

    def role(self, claims: Mapping[str, Any]) -> UserRole | None:
        """What the provider says that somebody may do; None where it is not asked."""
        if not self.role_claim:
            return None
        if _has(claims, self.role_claim, self.operators):
            return "operator"
        return "trainer" if _has(claims, self.role_claim, self.trainers) else "user"


class _File(config.Settings):
    provider: dict[str, dict[str, Any]] = pydantic.Field(default_factory=dict)


def load_settings(home: Path, environ: Mapping[str, str]) -> dict[str, ProviderSettings]:
    """The providers of an installation by their keys; none where it has no `oidc.toml`.

    A secret stands in the file, or in TUTELAGE_OIDC_SECRET_KEY; an empty one means that the provider knows us without.
    Raises ConfigError.
    """
    path = home / FILE
    if not path.exists():
        return {}
    return {key: _settings(path, key, raw, environ) for key, raw in config.load(path, _File).provider.items()}


def is_private(address: str) -> bool:
    """Whether nobody on the way can read or change what is sent to an address: https, or this machine."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def _settings(path: Path, key: str, raw: dict[str, Any], environ: Mapping[str, str]) -> ProviderSettings:
    where = f"{path} [provider.{key}]"
    if not KEY.fullmatch(key):
        hint = "use small letters, digits and hyphens: it is part of an address"
        raise ConfigError("this is no name for a provider", where=where, hint=hint)
    variable = f"TUTELAGE_OIDC_SECRET_{key.upper().replace('-', '_')}"
    if "client_secret" not in raw and variable in environ:
        raw = {**raw, "client_secret": environ[variable]}
    found = config.check(raw, ProviderSettings, where=where)
    if found.client_secret is None:
        hint = f'set {variable}, or client_secret = "" where the provider gave you none'
        raise ConfigError("client_secret is missing", where=where, hint=hint)
    return found


def _has(claims: Mapping[str, Any], name: str, values: str | list[str]) -> bool:
    wanted = {values} if isinstance(values, str) else set(values)
    claim = claims.get(name)
    found = claim if isinstance(claim, list) else [claim]
    return any(isinstance(each, str) and each in wanted for each in found)
