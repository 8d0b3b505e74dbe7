"""The order of the whole suite, an empty database, the model `tiny`, a provider to sign in by, a PostgreSQL server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import pwd
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode

import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, Key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tutelage.store import Store, copying

PAGES = Path(__file__).with_name("pages")
PROGRAMS = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path(shutil.which("initdb") or "/").parent]

ON_GPU = bool(os.environ.get("TUTELAGE_GPU"))

os.environ.pop("TUTELAGE_DATABASE_URL", None)  # tests have databases of their own
if not ON_GPU:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is computed is compared with what a CPU computes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in a browser run last: Playwright keeps an event loop in the main thread until the session ends."""
    items.sort(key=lambda item: item.path.is_relative_to(PAGES))
    if not ON_GPU:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip("is about a GPU: `make test-gpu` runs it"))


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows, to copy: migrating a new one takes longer than most tests."""
    path = tmp_path_factory.mktemp("template") / "tutelage.db"
    Store.open(path).close()
    return path


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Models this small only lose time to threads, most of all on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Where small models are kept."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def tiny(home: Path) -> Any:
    """The model `tiny`, for whoever leaves it as it is."""
    from tutelage.models.loading import load_model

    return load_model("tiny", home, dtype="float32")


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """As on a disk that fills up: inside the block, a write past so many bytes of one file fails."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limited


@dataclass
class FakeProvider:
    """An OpenID Connect provider where one person is signed in. It keeps to the book unless told otherwise.

    `claims` are the person's; in the ID token, or with `thin` only where the access token leads. `token` replaces what
    the ID token says, `answers` a whole response by path, `sent` what comes back to the browser.
    """

    client_id: str = "tutelage"
    secret: str = "s:cr+t"
    url: str = ""
    claims: dict[str, Any] = field(
        default_factory=lambda: {"sub": "248289761001", "preferred_username": "jane"}
    )
    thin: bool = False
    token: dict[str, Any] = field(default_factory=dict)
    alg: str = "ES256"
    about: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Response] = field(default_factory=dict)
    sent: dict[str, str | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    published: Key | None = None

    def __post_init__(self) -> None:
        self.key: Any = ECKey.generate_key("P-256", {"kid": "first", "use": "sig"})

    def settings(self, **more: Any) -> dict[str, Any]:
        """Our side of the agreement, as in `oidc.toml`."""
        agreed = {"issuer": self.url, "client_id": self.client_id, "client_secret": self.secret}
        return {"name": "Example", **agreed, "newcomers": True, **more}

    def app(self) -> Starlette:
        paths = {
            "/.well-known/openid-configuration": self._discovery,
            "/keys": self._keys,
            "/authorize": self._authorize,
            "/token": self._token,
            "/userinfo": self._userinfo,
        }
        return Starlette(
            routes=[
                Route(path, self._noted(answer), methods=["GET", "POST"]) for path, answer in paths.items()
            ]
        )

    def _noted(self, answer: Any) -> Any:
        async def respond(request: Request) -> Response:
            self.asked.append(request.url.path)
            planned = self.answers.get(request.url.path)
            return await answer(request) if planned is None else planned

        return respond

    async def _discovery(self, request: Request) -> Response:
        about = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "userinfo_endpoint": f"{self.url}/userinfo",
        }
        return JSONResponse(about | self.about)

    async def _keys(self, request: Request) -> Response:
        strange = {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}
        published = (self.published or self.key).as_dict(private=False)
        return JSONResponse({"keys": [strange, {"kty": "RSA", "n": "!", "e": 3}, published]})

    async def _authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        assert (query["client_id"], query["response_type"]) == (self.client_id, "code")
        assert (query["code_challenge_method"], query["scope"].split()[0]) == ("S256", "openid")
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        sent = {"code": code, "state": query["state"], **self.sent}
        back = urlencode({name: value for name, value in sent.items() if value is not None})
        return RedirectResponse(f"{query['redirect_uri']}?{back}", status_code=303)

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        scheme, _, basic = request.headers.get("authorization", "").partition(" ")
        pair = base64.b64decode(basic).decode().split(":") if scheme == "Basic" else []
        client = [unquote_plus(part) for part in pair] or [
            form.get("client_id"),
            form.get("client_secret", ""),
        ]
        if client != [self.client_id, self.secret]:
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        query = self.codes.pop(form["code"], None)
        proof = hashlib.sha256(form["code_verifier"].encode()).digest()
        proven = query and query["code_challenge"] == _plain(proof)
        if query is None or not proven or form["redirect_uri"] != query["redirect_uri"]:
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": self.client_id,
            "exp": now + 60,
            "iat": now,
            "nonce": query["nonce"],
        }
        claims |= {"sub": self.claims["sub"]} if self.thin else self.claims
        claims = {name: value for name, value in {**claims, **self.token}.items() if value is not None}
        return JSONResponse(
            {"access_token": "opaque", "token_type": "Bearer", "id_token": self._signed(claims)}
        )

    def _signed(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.alg, "kid": "first" if isinstance(self.key, bytes) else self.key.kid}
        if self.alg not in ("none", "HS256"):
            return jwt.encode(header, claims, self.key, algorithms=[self.alg])
        body = f"{_plain(json.dumps(header).encode())}.{_plain(json.dumps(claims).encode())}"
        mac = hmac.digest(self.key, body.encode(), "sha256") if self.alg == "HS256" else b""
        return f"{body}.{_plain(mac)}"

    async def _userinfo(self, request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer opaque"
        return JSONResponse(self.claims)


def _plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.fixture
def fake_provider() -> Iterator[FakeProvider]:
    """A provider that listens."""
    provider = FakeProvider()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(provider.app(), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield provider
        server.should_exit = True
        thread.join(10)


@dataclass
class PostgresServer:
    """A server of this session's own, reached by a socket in its folder. Everybody may come in as `tutelage`.

    `free` are databases with tables and without rows that nobody uses.
    """

    folder: Path
    free: list[Any] = field(default_factory=list)

    def address(self, database: str = "postgres", user: str = "tutelage") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def run(self, statement: str, database: str = "postgres") -> None:
        """As its administrator."""
        import psycopg

        with psycopg.connect(self.address(database), autocommit=True) as connection:
            connection.execute(statement)

    def create(self, options: str = "") -> str:
        """A new database; gives its address."""
        name = f"made_{secrets.token_hex(8)}"
        self.run(f"CREATE DATABASE {name} {options}")
        return self.address(name)

    def borrow(self) -> Store:
        """A store without rows."""
        return Store.open(self.free.pop() if self.free else self.create())

    def take_back(self, store: Store) -> None:
        """Empty a store that was borrowed, for whoever comes next, and close it."""
        with store.write() as tx:
            copying.empty(tx)
        self.free.append(store.place)
        store.close()


def postgres_programs() -> Path | None:
    """Where PostgreSQL's programs are. It refuses to run as root; its packages bring a user for it."""
    able = os.getuid() != 0 or any(user.pw_name == "postgres" for user in pwd.getpwall())
    return next((each for each in PROGRAMS if able and (each / "initdb").exists()), None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Without PostgreSQL, tests are skipped, unless TUTELAGE_REQUIRE_POSTGRES is 1."""
    programs = postgres_programs()
    if programs is None:
        if os.environ.get("TUTELAGE_REQUIRE_POSTGRES") == "1":
            pytest.fail("there is no PostgreSQL, and TUTELAGE_REQUIRE_POSTGRES asks for one")
        pytest.skip("there is no PostgreSQL: install it, e.g. apt-get install postgresql")
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []

    def control(program: str, *arguments: str | Path) -> None:
        subprocess.run([*user, programs / program, *arguments], check=True, capture_output=True, cwd="/")

    with tempfile.TemporaryDirectory(prefix="tutelage-postgres-") as name:
        folder, data = Path(name), Path(name) / "data"
        if user:
            shutil.chown(folder, "postgres")
        locale = ("--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        control("initdb", "-D", data, "-U", "tutelage", "-A", "trust", *locale)
        with (data / "pg_hba.conf").open("r+") as rules:
            rest = rules.read()
            rules.seek(0)
            rules.write(f"local all locked scram-sha-256\n{rest}")
        options = f"-F -c listen_addresses='' -c unix_socket_directories={folder}"
        control("pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield PostgresServer(folder)
        finally:
            control("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
