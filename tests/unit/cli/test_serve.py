"""`tutelage serve`: who may come in, what is printed, what is refused. And: killed at any moment, it loses nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from tutelage.cli import serve
from tutelage.errors import ConfigError, Conflict, InvalidRequest
from tutelage.server.limits import Limits
from tutelage.store import Store, accounts, identities, tables

PROGRAM = """
import typer
from tutelage.cli import serve
app = typer.Typer()
app.callback()(lambda: None)
serve.register(app)
app()
"""


def test_on_this_machine_guests_may_come_in_unless_told_otherwise() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        assert serve._access(host, None, []).guests
        assert not serve._access(host, False, []).guests
        assert "127.0.0.1" in serve._access(host, None, []).hosts


@pytest.mark.parametrize(
    ("host", "names"), [("0.0.0.0", []), ("192.168.1.5", []), ("127.0.0.1", ["chat.example"])]
)
def test_where_others_can_come_somebody_has_to_decide_about_guests(host: str, names: list[str]) -> None:
    with pytest.raises(ConfigError, match="strangers"):
        serve._access(host, None, names)
    assert serve._access(host, True, names).guests
    assert not serve._access(host, False, names).guests


def test_host_names_are_checked_where_they_are_known() -> None:
    assert serve._access("0.0.0.0", False, []).hosts == frozenset()
    behind_a_proxy = serve._access("127.0.0.1", False, ["Chat.Example"])
    assert {"chat.example", "127.0.0.1"} <= behind_a_proxy.hosts


@pytest.mark.parametrize(
    "name", ["https://Chat.Example", "chat.example:8443", "chat.example/", "http://chat.example:80/x"]
)
def test_a_public_name_that_is_an_address_is_refused_with_the_name_in_it(name: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a host") as refused:
        serve._access("127.0.0.1", False, [name])
    assert refused.value.hint.endswith("--public-name chat.example")


@pytest.mark.parametrize("name", ["", "*", "bücher.example", "a b", ".example", "https://"])
def test_a_public_name_that_is_nothing_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a host") as refused:
        serve._access("127.0.0.1", False, [name])
    assert refused.value.hint.endswith("--public-name chat.example.org")


@pytest.mark.parametrize("engine", ["10.0.0.2:8100", "nonsense", "http://"])
def test_a_model_server_that_is_no_address_is_refused_before_anything_begins(engine: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        serve.serve(port=0, engine=engine)


def test_a_port_in_use_is_said_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {port} is in use") as refused:
            serve._listen("127.0.0.1", port)
    assert "--port" in refused.value.hint


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot listen"):
        serve._listen("203.0.113.7", 0)
    with pytest.raises(InvalidRequest, match="cannot listen"):
        serve._listen("no.such.host.invalid", 0)


def test_options_out_of_range_are_refused() -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    serve.register(app)
    assert CliRunner().invoke(app, ["serve", "--port", "70000"]).exit_code == 2


def test_an_operators_link_is_printed_until_an_operator_can_sign_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(tmp_path / "tutelage.db")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serve._greet(store, listener, [], as_json=False)
        address, link = capsys.readouterr().out.splitlines()
        assert f"http://127.0.0.1:{listener.getsockname()[1]}" in address
        token = link.rpartition("/operator-link/")[2]
        with store.write() as tx:
            operator = accounts.use_operator_link(tx, token, None)
        serve._greet(store, listener, [], as_json=False)
        assert "/operator-link/" in capsys.readouterr().out
        with store.write() as tx:
            accounts.promote_guest(tx, operator.id, name="ann", password_hash="x")
        serve._greet(store, listener, [], as_json=False)
        assert "/operator-link/" not in capsys.readouterr().out
    store.close()


def test_an_operator_who_signs_in_elsewhere_needs_no_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, issuer = Store.open(tmp_path / "tutelage.db"), "https://id.example.org"
    with store.write() as tx:
        operator = identities.admit(tx, issuer, "1", names=["ann"], newcomers=True)
        accounts.set_role(tx, operator.id, "operator")
        identities.admit(tx, "https://other.example.org", "1", names=["bob"], newcomers=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serve._greet(store, listener, [issuer], as_json=False)
        assert "/operator-link/" not in capsys.readouterr().out
        for issuers in ([], ["https://other.example.org"]):  # her provider is not set up any more
            serve._greet(store, listener, issuers, as_json=False)
            assert "/operator-link/" in capsys.readouterr().out
    store.close()


def test_what_is_printed_can_be_opened_in_a_browser(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(tmp_path / "tutelage.db")
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        serve._greet(store, listener, [], as_json=False)
        address, others, link = capsys.readouterr().out.splitlines()
        assert f"http://127.0.0.1:{port} " in address
        assert "Other machines" in others
        assert f"http://127.0.0.1:{port}/operator-link/" in link
        names = ["chat.example", "www.chat.example"]
        serve._greet(store, listener, public_names=names, as_json=False)
        address, public, link = capsys.readouterr().out.splitlines()
        assert f"http://127.0.0.1:{port} " in address
        assert public.endswith(" https://chat.example")
        assert " https://chat.example/operator-link/" in link
    store.close()


@contextmanager
def running(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A served home: the process and its address."""
    environment = {**os.environ, "TUTELAGE_HOME": str(home)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", "--model", "tiny", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        printed = ""
        while (found := re.search(r"tutelage is at (\S+)", printed)) is None:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        address = found[1]
        wait_for(address)
        yield process, address
    finally:
        process.kill()
        process.wait(10)


def wait_for(address: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{address}/api/me")
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def ask(client: httpx.Client) -> dict[str, Any]:
    started = client.post(
        "/api/dialogues", json={"text": "Tell me a story", "idempotency_key": "k"}, timeout=60
    )
    assert started.status_code == 201, started.text
    turn: dict[str, Any] = started.json()
    return turn


def test_killed_in_mid_answer_nothing_is_lost_and_nothing_hangs(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address), httpx.Client(base_url=address) as client:
        turn = ask(client)
        cookie = f"tutelage={client.cookies['tutelage']}"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    with running(tmp_path) as (process, address):
        headers = {"cookie": cookie}
        with httpx.Client(base_url=address, headers=headers) as client:
            question, answer = client.get(f"/api/dialogues/{turn['dialogue_id']}").json()["messages"]
            assert question["content"] == "Tell me a story"
            assert answer["status"] in ("interrupted", "complete")
            assert "event: done" in client.get(f"/api/answers/{turn['answer_id']}/events").text
            assert ask(client)["answer_id"] == turn["answer_id"]
            again = client.post(f"/api/messages/{turn['answer_id']}/regenerate").json()["answer_id"]
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    with Store.open(tmp_path / "tutelage.db").read() as tx:
        drained = tx.get(tables.Message, again)
    assert drained is not None
    assert (drained.status, bool(drained.content)) == ("complete", True)


def test_limits_are_read_by_name() -> None:
    assert serve._limits([]) == Limits()
    assert serve._limits(["requests=5", "daily_tokens=0"]) == Limits(requests=5, daily_tokens=0)
    for wrong in ("requests", "requests=", "requests=-1", "requests=1.5", "speed=3", "tokens=²", "=3"):
        with pytest.raises(ConfigError, match="--limit"):
            serve._limits([wrong])
