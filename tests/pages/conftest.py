"""A real server with a scripted model on 127.0.0.1, and a real browser."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tutelage.config import check
from tutelage.engine.interface import Sampling, TokenChunk
from tutelage.engine.pool import EnginePool
from tutelage.engine.scripted_engine import ScriptedEngine
from tutelage.errors import Unavailable
from tutelage.models import tiny
from tutelage.moderation.gate import Gate
from tutelage.moderation.policy import Policy
from tutelage.registry import ModelVersion, Registry
from tutelage.rendering import Renderer, load_renderer
from tutelage.server.oidc.provider import Provider
from tutelage.server.oidc.settings import ProviderSettings
from tutelage.store import Store, accounts, dialogues
from tutelage.web.app import create_app

expect.set_options(timeout=15_000)
CHROMIUM = os.environ.get("TUTELAGE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


EVALUATION = {
    "prompts": 48,
    "win_rate_over_before": {"value": 0.61, "low": 0.5, "high": 0.72},
    "answers": [
        {
            "prompt": [{"role": "user", "content": "What is a leap year?"}],
            "answers": {
                "before": {"text": "A year.", "reward": -0.4},
                "after": {"text": "A year with 366 days.", "reward": 1.2},
            },
        }
    ],
}


class KeywordClassifier:
    """Finds `forbidden` hateful and `doubtful` a little hateful."""

    def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[dict[str, float]]:
        return [
            {"hate": 0.999 if "forbidden" in text else 0.0, "self-harm/intent": _sad(text)} for text in texts
        ]


def _sad(text: str) -> float:
    return 0.999 if "hopeless" in text else 0.0


class Actor:
    """Speaks for every version; its script can be changed between two answers."""

    context_length = 100_000

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self.learn("Hello there.")

    def learn(self, *answers: str, delay: float = 0.0, breaks: bool = False) -> None:
        """Say these from now on; with `breaks`, fail in the middle."""
        self._breaks = breaks
        self._script = ScriptedEngine(
            answers, renderer=self.renderer, delay=delay, context_length=self.context_length
        )

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> AsyncIterator[TokenChunk]:
        spoken = 0
        async for chunk in self._script.generate(prompt_ids, sampling):
            yield chunk
            spoken += 1
            if self._breaks and spoken == 30:
                raise Unavailable("the model has fallen over")


class Voice:
    """The engine of one version. Its end leaves the others alone."""

    context_length, broken = Actor.context_length, False

    def __init__(self, actor: Actor, version: str) -> None:
        self.renderer, self.generate, self.version = actor.renderer, actor.generate, version

    async def close(self) -> None:
        """Nothing to free."""


@dataclass
class Site:
    """A running server, and the parts that a test looks into."""

    url: str
    store: Store
    registry: Registry
    say: Callable[..., None]

    def session(self, role: str, *, consent: bool = True) -> str:
        """A session token of a new user of this role."""
        with self.store.write() as tx:
            user = accounts.create_user(
                tx, name=f"{role}-{random.randrange(10**9)}", password_hash="", role=role, consent=consent
            )
            return accounts.open_session(tx, user.id, days=1)

    def client(self, role: str | None) -> httpx.Client:
        """An HTTP client signed in as a new user of this role; None is nobody."""
        cookies = {} if role is None else {"tutelage": self.session(role)}
        return httpx.Client(base_url=self.url, cookies=cookies, headers={"accept": "text/html"}, timeout=60)

    def conversation(self, *texts: str) -> str:
        """A dialogue of a consenting stranger: question, answer, question, answer, … Returns its id."""
        with self.store.write() as tx:
            owner = accounts.create_guest(tx, consent=True)
            row = dialogues.create_dialogue(tx, owner.id, title=texts[0])
            parent = None
            for index, text in enumerate(texts):
                role, kind = ("assistant", "model") if index % 2 else ("user", "human")
                parent = dialogues.add_message(
                    tx,
                    row.id,
                    parent_id=parent,
                    role=role,
                    content=text,
                    author_kind=kind,
                    model_version="v1",
                ).id
            return row.id


@pytest.fixture(scope="session")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.write_text_files(folder)
    return load_renderer(folder)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, renderer: Renderer) -> Iterator[Site]:
    """One server for the session. `site.say(…)` sets what the model answers from then on."""
    home = tmp_path_factory.mktemp("home")
    with running_site(home, renderer) as running:
        yield running


@contextlib.contextmanager
def running_site(
    home: Path,
    renderer: Renderer,
    *,
    port: int = 0,
    loaded: threading.Event | None = None,
    providers: Mapping[str, Provider] | None = None,
) -> Iterator[Site]:
    """The whole application in a thread. With `loaded`, the model is not there before that is set."""
    store, registry = Store.open(home / "tutelage.db"), Registry(home)
    registry.publish(kind="chat", model="tiny", notes="The base model as it came.")
    registry.publish(
        kind="chat", model="tiny", notes="Tuned on what people wrote.", parents=["v1"], evaluation=EVALUATION
    )
    registry.promote("v1")
    actor = Actor(renderer)

    def load(version: ModelVersion) -> Voice:
        if loaded is not None:
            loaded.wait(20)
        return Voice(actor, version.name)

    app = create_app(
        store=store,
        engines=EnginePool(registry, load),
        gate=Gate(Policy.load(None), KeywordClassifier()),
        registry=registry,
        home=home,
        providers=providers,
    )
    listening = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive(), "the server did not start"
    yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", store, registry, actor.learn)
    server.should_exit = True
    thread.join(timeout=20)
    store.close()


@pytest.fixture
def loading_site(tmp_path: Path, renderer: Renderer) -> Iterator[tuple[Site, threading.Event]]:
    """A server whose model is still loading, and the event that ends this."""
    loaded = threading.Event()
    with running_site(tmp_path, renderer, loaded=loaded) as running:
        yield running, loaded
        loaded.set()


@pytest.fixture
def site_with_provider(tmp_path: Path, renderer: Renderer, fake_provider: Any) -> Iterator[Site]:
    """A server whose people may sign in by a provider."""
    settings = check(fake_provider.settings(), ProviderSettings)
    providers = {"example": Provider("example", settings)}
    with running_site(tmp_path, renderer, providers=providers) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for the session. Without one, tests are skipped, unless TUTELAGE_REQUIRE_BROWSER is 1."""
    if CHROMIUM is None:
        if os.environ.get("TUTELAGE_REQUIRE_BROWSER") == "1":
            pytest.fail("there is no Chromium, and TUTELAGE_REQUIRE_BROWSER asks for one")
        pytest.skip("there is no Chromium: set TUTELAGE_CHROMIUM to one, or install it")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def violations() -> Callable[[Page], list[tuple[str, str]]]:
    """What axe finds on a page: the rule and the first element that breaks it."""
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core comes with axe-playwright-python")
    source = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")

    def found(page: Page) -> list[tuple[str, str]]:
        page.evaluate(source)
        broken = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        return [(each["id"], each["nodes"][0]["html"][:120]) for each in broken]

    return found


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Open a fresh browser context as a user of a role (None: a guest) and go to a path."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def open_page(
        path: str = "/", *, role: str | None = None, width: int = 1280, height: int = 800, **options: Any
    ) -> Page:
        context = browser.new_context(
            base_url=site.url, viewport={"width": width, "height": height}, reduced_motion="reduce", **options
        )
        contexts.append(context)
        if role is not None:
            cookie = {"name": "tutelage", "value": site.session(role), "url": site.url}
            context.add_cookies([{**cookie, "httpOnly": True, "sameSite": "Lax"}])
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: problems.append(f"script: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on("console", lambda message: _note_violations(message.text, problems))
        page.on("request", lambda request: _note_outside(request.url, site.url, problems))
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def _note_violations(text: str, problems: list[str]) -> None:
    if "Content Security Policy" in text or "TrustedHTML" in text:
        problems.append(f"policy: {text}")


def _note_outside(url: str, own: str, problems: list[str]) -> None:
    if not url.startswith((own, "data:", "about:", "blob:")):
        problems.append(f"outside request: {url}")


@pytest.fixture(autouse=True)
def _quick_model(request: pytest.FixtureRequest) -> None:
    """Each test begins with a model that greets at once."""
    if "site" in request.fixturenames:
        request.getfixturevalue("site").say("Hello there.")
