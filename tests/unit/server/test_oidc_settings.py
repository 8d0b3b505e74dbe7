"""`oidc.toml`: what is read from it, and what is refused with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.errors import ConfigError
from tutelage.server.oidc.attempt import LONGEST_COOKIE, Attempt
from tutelage.server.oidc.settings import is_private, load_settings

WHOLE = """
[provider.company]
name = "Example"
issuer = "https://id.example.org"
client_id = "tutelage"
client_secret = "hush"
"""


def write(home: Path, text: str) -> Path:
    (home / "oidc.toml").write_text(text, encoding="utf-8")
    return home


def test_without_a_file_there_is_no_provider(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}) == {}


def test_a_provider_has_careful_defaults_and_hides_its_secret(tmp_path: Path) -> None:
    company = load_settings(write(tmp_path, WHOLE), {})["company"]
    assert (company.newcomers, company.session_days, company.scopes) == (False, 30, ["openid", "profile"])
    assert "hush" not in repr(company) + str(company)
    assert company.client_secret is not None
    assert company.client_secret.get_secret_value() == "hush"


def test_a_secret_may_come_from_the_environment(tmp_path: Path) -> None:
    text = WHOLE.replace('client_secret = "hush"', "").replace("provider.company", "provider.my-company")
    home = write(tmp_path, text)
    company = load_settings(home, {"TUTELAGE_OIDC_SECRET_MY_COMPANY": "quiet"})["my-company"]
    assert company.client_secret is not None
    assert company.client_secret.get_secret_value() == "quiet"
    with pytest.raises(ConfigError, match="client_secret is missing") as caught:
        load_settings(home, {})
    assert "TUTELAGE_OIDC_SECRET_MY_COMPANY" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('isuer = "x"', "isuer: unknown key"),
        ('issuer = "http://id.example.org"', "https://"),
        ('issuer = "id.example.org"', "https://"),
        ("session_days = 0", "session_days"),
        ('newcomers = "yes"', "newcomers"),
        ('trainers = ["x"]', "belong together"),
        ('role_claim = "groups"', "belong together"),
        ("client_secret = 7", "client_secret"),
        ('name = ""', "name"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, line: str, told: str) -> None:
    key = line.split(" ")[0]
    kept = [each for each in WHOLE.splitlines() if not each.startswith(f"{key} ")]
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, "\n".join([*kept, line])), {})
    assert told in caught.value.message
    assert caught.value.where.endswith("oidc.toml [provider.company]")
    assert "hush" not in str(caught.value)


def test_a_key_is_part_of_an_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name for a provider"):
        load_settings(write(tmp_path, WHOLE.replace("provider.company", 'provider."My Company"')), {})


def test_only_this_machine_is_reached_in_the_clear() -> None:
    for address in (
        "https://id.example.org/x",
        "http://127.0.0.1:8080",
        "http://localhost",
        "http://[::1]:80",
    ):
        assert is_private(address)
    for address in (
        "http://id.example.org",
        "ftp://localhost",
        "https://",
        "//x",
        "http://[",
        "http://127.0.0.1.evil",
    ):
        assert not is_private(address)


def test_an_attempt_comes_back_from_its_cookie_and_stays_small() -> None:
    attempt = Attempt.begin("company", next="/c/é" * 200, invite="x" * 1000, connect="y" * 36)
    assert (attempt.next, len(attempt.invite)) == ("/", 200)
    assert Attempt.read(attempt.cookie()) == attempt
    assert len(attempt.cookie()) < LONGEST_COOKIE
    assert len({attempt.secret, attempt.state, attempt.nonce, attempt.verifier, attempt.challenge}) == 5
    assert len(attempt.verifier) == 43  # RFC 7636 wants 43 to 128 characters
    assert attempt.belongs_to(attempt.state)
    for state in ("", "é", Attempt.begin("company").state):
        assert not attempt.belongs_to(state)
