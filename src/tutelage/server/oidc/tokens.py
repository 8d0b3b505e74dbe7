"""ID tokens: signed by the provider, for us, now, for this try (OpenID Connect Core 1.0, section 3.1.3.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry

ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
"""Signatures by a private key. Never none, and never a MAC: the public keys would do as its secret."""
LEEWAY_SECONDS = 60
LONGEST_SUBJECT = 255


class InvalidToken(Exception):
    """The token is not what we asked for; the text says why, and holds nothing of it."""


def key_set(document: Mapping[str, Any]) -> KeySet:
    """The keys for signatures of a JWKS document; those of kinds we do not know are passed over."""
    found = document.get("keys")
    keys = [_key(each) for each in found] if isinstance(found, list) else []
    return KeySet([key for key in keys if key is not None])


def verified(token: str, keys: KeySet, *, issuer: str, client_id: str, nonce: str) -> dict[str, Any]:
    """The claims of an ID token. Raises InvalidToken."""
    registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    claims = jwt.JWTClaimsRegistry(
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True, "value": nonce},
    )
    try:
        found = jwt.decode(token, keys, registry=registry).claims
        claims.validate(found)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidToken(f"its ID token is not valid: {type(error).__name__}") from error
    audience, party = found["aud"], found.get("azp")
    others = isinstance(audience, list) and len(audience) > 1
    if (party is not None or others) and party != client_id:
        raise InvalidToken("its ID token was made for another program")
    if found["nonce"] != nonce or len(found["sub"]) > LONGEST_SUBJECT:
        raise InvalidToken("its ID token is not the one we asked for")
    return found


def _key(data: Any) -> Key | None:
    if not isinstance(data, dict) or data.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if data.get("use", "sig") != "sig":
        return None
    try:
        return JWKRegistry.import_key(data)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
