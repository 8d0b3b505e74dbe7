"""A whole server over a temporary home: real store, registry, filter gate and renderer; a scripted model."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from tutelage.engine.pool import EnginePool
from tutelage.engine.scripted_engine import ScriptedEngine
from tutelage.engine.scripted_scorer import ScriptedScorer
from tutelage.models import tiny
from tutelage.moderation.gate import Gate
from tutelage.moderation.policy import Policy
from tutelage.registry import ModelVersion, Registry
from tutelage.rendering import Renderer, load_renderer
from tutelage.server.app import create_app
from tutelage.server.connections import PatientProtocol
from tutelage.server.limits import Limits
from tutelage.server.oidc.provider import Provider
from tutelage.server.services import Access
from tutelage.store import Store, accounts
from tutelage.store.tables import UserRole

BASE = "http://127.0.0.1"


class WordFilter:
    """A classifier that knows two words: `murder` is to be blocked, `brawl` to be warned of."""

    def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[dict[str, float]]:
        return [{"violence": self._violence(text), "illicit": 0.0} for text in texts]

    @staticmethod
    def _violence(text: str) -> float:
        return 0.99 if "murder" in text else 0.5 if "brawl" in text else 0.0


@dataclass
class Site:
    """A server under test and everything behind it. `answers`, `delay` and `context_length` shape its engines."""

    home: Path
    renderer: Renderer
    store: Store
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    answers: Sequence[str] = ("Hello there. How can I help?",)
    delay: float = 0.0
    context_length: int = 1024
    create: Callable[..., FastAPI] = create_app
    providers: Mapping[str, Provider] = field(default_factory=dict)
    engines: dict[str, ScriptedEngine] = field(default_factory=dict)
    scorers: dict[str, ScriptedScorer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.registry = Registry(self.home)
        self.registry.publish(kind="chat", model="tiny")
        self.registry.promote("v1")
        self.gate = Gate(Policy.load(), WordFilter())

    def load(self, version: ModelVersion) -> ScriptedEngine:
        engine = ScriptedEngine(
            self.answers,
            renderer=self.renderer,
            delay=self.delay,
            version=version.name,
            context_length=self.context_length,
        )
        self.engines[version.name] = engine
        return engine

    def load_scorer(self, version: ModelVersion) -> ScriptedScorer:
        scorer = ScriptedScorer(
            renderer=self.renderer, version=version.name, context_length=self.context_length
        )
        self.scorers[version.name] = scorer
        return scorer

    def app(self) -> Any:
        return self.create(
            store=self.store,
            engines=EnginePool(
                self.registry,
                lambda version: self.load(version),
                load_scorer=lambda version: self.load_scorer(version),
            ),
            gate=self.gate,
            registry=self.registry,
            home=self.home,
            access=self.access,
            limits=self.limits,
            providers=self.providers,
        )

    @contextmanager
    def client(self) -> Iterator[TestClient]:
        """The server in this process, running (with its background tasks) while the block runs."""
        with TestClient(self.app(), base_url=BASE, raise_server_exceptions=False) as client:
            yield client

    @contextmanager
    def listening(self) -> Iterator[str]:
        """The server on a real socket; gives its address."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = uvicorn.Config(
                self.app(), http=PatientProtocol, log_level="warning", timeout_graceful_shutdown=5
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
            thread.start()
            try:
                address = f"http://127.0.0.1:{listener.getsockname()[1]}"
                wait_until(lambda: server.started)
                yield address
            finally:
                server.should_exit = True
                thread.join(20)

    def interrupt(self) -> None:
        """Let no answer under way take any more of the test's time."""
        for engine in self.engines.values():
            engine.delay = 0.0

    def key(self, *scopes: str) -> str:
        with self.store.write() as tx:
            return accounts.create_key(tx, name="test", scopes=scopes or accounts.SCOPES)[1]

    def bearer(self, *scopes: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key(*scopes)}"}

    def session(self, role: UserRole) -> dict[str, str]:
        """The cookie of a new user with this role."""
        with self.store.write() as tx:
            user = accounts.create_guest(tx)
            accounts.set_role(tx, user.id, role)
            return {"cookie": f"tutelage={accounts.open_session(tx, user.id, days=1)}"}


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if holds():
            return
        deadline.wait(0.01)
    raise AssertionError("this should have come about by now")


def events_of(response: httpx.Response) -> list[tuple[str, str, str]]:
    """The (id, event, data) of a finished event stream; comments are left out."""
    events = []
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields.get("id", ""), fields.get("event", ""), fields["data"]))
    return events


@pytest.fixture
def chunks_of() -> Callable[[httpx.Response], list[Any]]:
    """Reads the chunks of a finished stream of `/v1`."""

    def read(response: httpx.Response) -> list[Any]:
        lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
        assert lines.pop() == "[DONE]"
        return [json.loads(line) for line in lines]

    return read


@pytest.fixture
def error_of() -> Callable[..., dict[str, Any]]:
    """Reads the error of a refusal of `/v1`, which has OpenAI's shape."""

    def read(response: httpx.Response, status: int = 400) -> dict[str, Any]:
        error: dict[str, Any] = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert response.status_code == status, error
        return error

    return read


@pytest.fixture(scope="session")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.write_text_files(folder)
    return load_renderer(folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`make test-postgres` asks all of this of a server whose data lie in PostgreSQL."""
    own = metafunc.definition.get_closest_marker("sqlite") is not None
    if (
        "database" in metafunc.fixturenames
        and metafunc.config.getoption("markexpr") == "postgres"
        and not own
    ):
        metafunc.parametrize("database", [pytest.param("postgres", marks=pytest.mark.postgres)])


@pytest.fixture
def database() -> str:
    return "sqlite"


@pytest.fixture
def store(database: str, tmp_path: Path, empty_file: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store without rows."""
    if database == "postgres":
        server = request.getfixturevalue("postgres_server")
        yield (store := server.borrow())
        server.take_back(store)
    else:
        shutil.copy(empty_file, tmp_path)
        yield (store := Store.open(tmp_path / "tutelage.db"))
        store.close()


@pytest.fixture
def site(tmp_path: Path, renderer: Renderer, store: Store) -> Site:
    return Site(tmp_path, renderer, store)


@pytest.fixture
def client(site: Site) -> Iterator[TestClient]:
    with site.client() as running:
        wait_until(lambda: "v1" in site.engines)
        yield running


@pytest.fixture
def ask(site: Site, client: TestClient) -> Callable[..., httpx.Response]:
    """Sends a request to /v1/chat/completions: a greeting, unless other messages are given."""
    headers = site.bearer("chat")

    def ask(**body: Any) -> httpx.Response:
        body = {"model": "stable", "messages": [{"role": "user", "content": "Hi"}], **body}
        return client.post("/v1/chat/completions", json=body, headers=headers)

    return ask
