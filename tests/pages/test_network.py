"""A network that breaks, a crowd, a file from elsewhere: what the chat makes of the world around it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tutelage.store.usage import ChatSettings, change_chat_settings

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]


NOBODY_BEHIND = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Wire:
    """A wire to the server that can be cut: connections break, and new ones are refused until it is mended, or are told
    something, as by a proxy that finds no server behind it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut = False
        self._told = b""
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, told: bytes = b"") -> None:
        self._cut, self._told = True, told
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def mend(self) -> None:
        self._cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._cut:
                if self._told and near.recv(65536):
                    near.sendall(self._told)
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._port))
            self._open += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


@pytest.fixture
def wire(site: Any) -> Iterator[Wire]:
    made = Wire(int(site.url.rpartition(":")[2]))
    yield made
    made.close()


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Your message").fill(text)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("told", [b"", NOBODY_BEHIND], ids=["refused", "bad gateway"])
def test_an_answer_goes_on_where_the_network_broke(
    browser: Browser, site: Any, wire: Wire, told: bytes
) -> None:
    words = " ".join(str(number) for number in range(150))
    site.say(words, delay=0.01)
    page = browser.new_page(base_url=wire.url)
    page.goto("/")
    ask(page, "Count")
    expect(page.locator(".streaming")).to_contain_text("20 21")
    wire.cut(told)
    page.wait_for_timeout(300 if not told else 4000)
    expect(page.locator(".streaming")).not_to_contain_text("148 149")
    wire.mend()
    answer = page.locator(".message.assistant[data-status='complete'] .body")
    expect(answer).to_have_text(words, timeout=30_000)
    assert page.get_by_role("alert").count() == 0
    page.close()


def test_who_has_to_wait_sees_their_place(visit: Visit, site: Any) -> None:
    with site.client("operator") as operator:
        form = {"guests": True, "guest_limit": "", "user_limit": "", "terms": ""}
        assert operator.put("/operate/access", json=form | {"answers_at_once": "1"}).status_code == 204
        try:
            site.say("A slow answer. " * 12, "A quick one.", delay=0.01)
            first, second = visit(), visit()
            ask(first, "First")
            expect(first.locator(".streaming")).to_contain_text("A slow answer")
            ask(second, "Second")
            expect(second.get_by_text("You are next in the line…")).to_be_visible()
            third = visit()
            expect(third.locator("#welcome")).to_contain_text("Answers in the line: 1")
            expect(second.locator(".message.assistant[data-status='complete']")).to_be_visible()
        finally:
            operator.put("/operate/access", json=form | {"answers_at_once": "16"})


def test_a_full_server_is_asked_again_without_a_click(visit: Visit) -> None:
    page = visit()
    full = {"error": {"message": "full", "type": "server_error", "param": None, "code": "at_capacity"}}
    headers = {"retry-after": "2"}
    page.route("/api/dialogues", lambda route: route.fulfill(status=503, json=full, headers=headers), times=1)
    ask(page, "Is anybody there?")
    expect(page.get_by_role("alert")).to_contain_text("at capacity")
    expect(page.get_by_role("heading", level=1)).to_have_text("New chat")
    expect(page.get_by_role("alert")).to_contain_text("sent again every 2 s")
    expect(page.locator(".assistant[data-status='complete'] .body")).to_have_text("Hello there.")
    expect(page.locator(".message.user")).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_chats_come_along_from_a_zipped_export(visit: Visit, tmp_path: Path) -> None:
    said = [("q", "root", "user", "What is a quokka?"), ("a", "q", "assistant", "A **small** marsupial.")]
    mapping: dict[str, Any] = {"root": {"id": "root", "parent": None, "message": None, "children": ["q"]}}
    for name, parent, role, text in said:
        message = {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}}
        mapping[name] = {
            "id": name,
            "parent": parent,
            "message": message,
            "children": ["a"] if name == "q" else [],
        }
    chats = [
        {"title": "Quokkas 袋鼠", "conversation_id": "c1", "create_time": 1.7e9, "mapping": mapping},
        {"mapping": {}},
    ]
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("user.json", "{}")
        out.writestr("conversations.json", json.dumps(chats))
    page = visit("/account", role="user")
    for expected in (
        "Brought: 1. Here already: 0. Left out: 1.",
        "Brought: 0. Here already: 1.",
    ):
        page.locator("#import-file").set_input_files(archive)
        expect(page.locator("#import-state")).to_contain_text(expected)
    page.get_by_role("link", name="Quokkas 袋鼠").click()
    expect(page.locator(".message.assistant strong")).to_have_text("small")
    page.goto("/account")
    (tmp_path / "other.json").write_text("{}")
    page.locator("#import-file").set_input_files(tmp_path / "other.json")
    expect(page.locator("#import-state")).to_have_text("This is not a file of conversations.")


def test_instructions_are_kept_and_shown_in_the_next_chat(visit: Visit) -> None:
    page = visit("/account", role="user")
    page.get_by_label("What should the model know").fill("Answer in <b>one</b> word.")
    page.locator("form", has=page.get_by_label("What should the model know")).get_by_role("button").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.goto("/")
    ask(page, "Hello")
    expect(page.locator(".message.assistant[data-status='complete']")).to_be_visible()
    page.reload()
    page.get_by_text("This chat follows your instructions").click()
    expect(page.locator(".instructions")).to_contain_text("Answer in <b>one</b> word.")


def test_everything_can_be_deleted(visit: Visit, site: Any) -> None:
    page = visit("/")
    ask(page, "To be forgotten")
    expect(page.locator(".message.assistant[data-status='complete']")).to_be_visible()
    address = page.url
    page.goto("/account")
    page.get_by_role("button", name="Delete account").click()
    page.locator("#confirm").get_by_role("button", name="Delete").click()
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#dialogues .item")).to_have_count(0)
    answer = page.goto(address)
    assert answer is not None
    assert answer.status == 404


def test_limits_are_told_on_the_page_of_terms(visit: Visit, site: Any) -> None:
    with site.store.write() as tx:
        change_chat_settings(tx, ChatSettings(guest_limit=7, terms="Be **kind**. <script>alert(1)</script>"))
    try:
        page = visit("/terms")
        expect(page.get_by_text("Answers a day for guests: 7.")).to_be_visible()
        expect(page.get_by_text("A guest can keep 20 million characters")).to_be_visible()
        expect(page.locator("strong")).to_have_text("kind")
    finally:
        with site.store.write() as tx:
            change_chat_settings(tx, ChatSettings())
