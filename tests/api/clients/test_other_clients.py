"""Programs that others wrote for OpenAI's API, unchanged, against a real server.

They have an environment of their own beside the running Python, which `make clients` makes; or the folder that
TUTELAGE_CLIENTS names, with `bin/python` and `node_modules`. Where one is missing, its test is skipped, unless
TUTELAGE_REQUIRE_CLIENTS is 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.engine.torch_engine import TorchEngine
from tutelage.models import tiny
from tutelage.models.loading import load_model

ANSWER = "Hello there. How can I help?"
PROGRAMS = Path(__file__).parent / "programs"
FOLDER = Path(os.environ.get("TUTELAGE_CLIENTS") or Path(sys.prefix) / "clients")
PYTHON = str(FOLDER / "bin/python")


@pytest.fixture
def world(site: Any, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a program whose OpenAI is this server."""
    with site.listening() as address:
        yield {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "OPENAI_BASE_URL": f"{address}/v1",
            "OPENAI_API_KEY": site.key(),
        }


def need(*found: Path, make: str) -> None:
    """Skip the test where the client is not installed."""
    if all(each.exists() for each in found):
        return
    missing = f"the client is not installed: make {make}"
    if os.environ.get("TUTELAGE_REQUIRE_CLIENTS") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


def package(name: str) -> Path:
    """Where a client of Python's lies."""
    return next(FOLDER.glob(f"lib/python3*/site-packages/{name}"), FOLDER / name)


def run(command: list[str], world: dict[str, str]) -> str:
    done = subprocess.run(command, env=world, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def told(command: list[str], world: dict[str, str]) -> Any:
    return json.loads(run(command, world).splitlines()[-1])


def test_langchain(world: dict[str, str]) -> None:
    need(package("langchain_openai"), make="clients")
    found = told([PYTHON, str(PROGRAMS / "with_langchain.py")], world)
    whole = {"text": ANSWER, "tokens": found["whole"]["tokens"], "reason": "stop"}
    assert found["whole"] == found["streamed"] == whole
    assert found["everything"] == {**whole, "logprobs": 28}
    assert found["together"] == [ANSWER] * 3
    assert found["completion"] == found["completion_streamed"] == ANSWER
    assert found["refused"] in ("response_format", "tools")


def test_litellm(world: dict[str, str]) -> None:
    need(package("litellm"), make="clients")
    found = told([PYTHON, str(PROGRAMS / "with_litellm.py")], world)
    assert found["whole"] == [ANSWER] * 2
    assert (found["reason"], found["tokens"]) == ("stop", 21 + 2 * 28)
    assert (found["streamed"], found["streamed_tokens"]) == (ANSWER, [49])
    assert found["together"] == [ANSWER] * 3
    assert found["completion"] == ANSWER
    assert found["flagged"]
    assert "response_format is not supported" in found["refused"]


def test_node(world: dict[str, str]) -> None:
    need(Path(shutil.which("node") or "node"), FOLDER / "node_modules/openai", make="clients, where npm is")
    found = told(["node", str(PROGRAMS / "with_node.mjs")], {**world, "NODE_CLIENT": str(FOLDER)})
    assert found["whole"] == found["completion"] == [ANSWER] * 2
    assert (found["logprobs"], found["flagged"]) == (28, False)
    assert found["request"].startswith("req_")
    assert found["streamed"] == found["final"] == found["text"] == ANSWER
    assert len(found["usage"]) == 1
    assert (found["models"], found["retrieved"]) == (["stable", "latest", "v1"], "tutelage")
    assert found["moderation"] == [True, False]
    assert found["errors"] == {
        "unknown": [404, "model_not_found", "NotFoundError"],
        "tools": [400, "unsupported_parameter", "BadRequestError"],
        "key": [401, "invalid_api_key", "AuthenticationError"],
        "embeddings": [404, "unknown_url", "NotFoundError"],
        "deletion": [405, "method_not_supported", "APIError"],
    }


def test_lm_eval(site: Any, world: dict[str, str], tmp_path: Path) -> None:
    need(package("lm_eval"), make="test-clients")
    loaded = load_model("tiny", site.home, dtype="float32")
    engine = TorchEngine("v2", loaded)
    site.registry.publish(kind="chat", model="tiny")
    site.load = lambda version: engine
    site.registry.promote("v2")
    (tokenizer := tmp_path / "tokenizer").mkdir()
    tiny.write_text_files(tokenizer)
    world = {**world, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    found = told([PYTHON, str(PROGRAMS / "with_lm_eval.py"), str(tmp_path), str(tokenizer)], world)
    assert 0 <= found["accuracy"] <= 1
    assert len(found["samples"]) == 5
    for sample in found["samples"]:
        before = loaded.renderer.tokens(sample["question"])
        whole = loaded.renderer.tokens(sample["question"] + sample["option"])
        scores = asyncio.run(engine.score(whole))
        assert float(sample["score"]) == pytest.approx(
            sum(each for each, _ in scores[len(before) - 1 :]), abs=1e-3
        )


def test_llm_on_the_command_line(site: Any, world: dict[str, str], tmp_path: Path) -> None:
    need(package("llm"), make="clients")
    guide = (Path(__file__).parents[3] / "docs/guides/api.md").read_text(encoding="utf-8")
    line = re.findall(r"^- {model_id: ours, .*}$", guide, re.MULTILINE)[0]
    chat = line.replace("http://127.0.0.1:8000/v1", world["OPENAI_BASE_URL"])
    text = chat.replace("model_id: ours", "model_id: text, completion: true")
    (tmp_path / "extra-openai-models.yaml").write_text(f"{chat}\n{text}\n")
    (tmp_path / "keys.json").write_text(json.dumps({"ours": world["OPENAI_API_KEY"]}))
    world = {**world, "LLM_USER_PATH": str(tmp_path)}
    settings = {"temperature": 0.5, "max_tokens": 40, "seed": 3, "stop": "zzz", "presence_penalty": 0.1}
    settings |= {"frequency_penalty": 0.1, "logit_bias": '{"5": 1}'}
    options = [word for name, value in settings.items() for word in ("-o", name, str(value))]

    def llm(*words: str) -> str:
        return run([PYTHON, "-m", "llm", *words], world).strip()

    assert llm("-m", "ours", "-s", "Be kind.", "Hi") == ANSWER
    assert llm("-m", "ours", "-c", "--no-stream", "And then?", *options) == ANSWER
    read = site.renderer.decode(site.engines["v1"].prompts[-1])
    assert [read.count(words) for words in ("Be kind.", "Hi", ANSWER, "And then?")] == [1, 1, 1, 1]
    assert llm("-m", "text", "Say", "-o", "max_tokens", "100") == ANSWER
