"""From names to folders, and a cache that holds whole models only."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tutelage.errors import ModelError
from tutelage.models import locate as module
from tutelage.models import tiny
from tutelage.models.locate import locate


def models(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").iterdir())


def test_tiny_is_written_once(tmp_path: Path) -> None:
    folder = locate("tiny", tmp_path)
    assert folder == tmp_path / "models" / f"tiny-{tiny.REVISION}"
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert locate("tiny", tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert models(tmp_path) == [f"tiny-{tiny.REVISION}"]


def test_tiny_is_the_same_everywhere(tmp_path: Path) -> None:
    first, second = (locate("tiny", tmp_path / name) for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_a_folder_is_taken_as_it_is(tiny_copy: Path, tmp_path: Path) -> None:
    assert locate(str(tiny_copy), tmp_path / "home") == tiny_copy.resolve()
    assert not (tmp_path / "home").exists()


def test_a_gguf_file_is_converted_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.models import gguf_reader

    converted: list[Path] = []
    monkeypatch.setattr(gguf_reader, "convert", lambda source, folder: converted.append(source))
    source = tmp_path / "some.model.gguf"
    source.write_text("one")
    first = locate(str(source), tmp_path)
    assert locate(str(source), tmp_path) == first
    source.write_text("another")
    assert locate(str(source), tmp_path) != first
    assert len(converted) == 2


@pytest.mark.parametrize("name", ["/no/such/folder", "./here", "~/there", "a/b/c", "weights.gguf"])
def test_a_path_to_nothing_is_refused_without_asking_a_hub(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model") as caught:
        locate(name, tmp_path)
    assert caught.value.where == name
    assert "tiny" in caught.value.hint


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json") as caught:
        locate(str(tmp_path), tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["nobody/no-such-model", "--", "white space/x"])
def test_an_id_that_cannot_be_fetched_is_refused(name: str, tmp_path: Path) -> None:
    """In a process of its own: the hub's client reads HF_HUB_OFFLINE when it is imported."""
    code = (
        "import sys, pathlib\n"
        "from tutelage.models.locate import locate\n"
        "from tutelage.errors import ModelError\n"
        "try: locate(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
        "except ModelError as error: print('refused:', error.message, '|', error.hint)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, name, str(tmp_path)],
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(f"refused: the model {name!r}")
    assert "builtin" in found.stdout


def test_the_missing_built_in_model_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUILTIN_PACKAGE", "no_such_package_anywhere")
    with pytest.raises(ModelError, match="not installed") as caught:
        locate("builtin", tmp_path)
    assert "pip install" in caught.value.hint


def test_a_write_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path) -> None:
        tiny.write_text_files(folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tiny, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            locate("tiny", tmp_path)
    assert models(tmp_path) == []
    assert (locate("tiny", tmp_path) / "model.safetensors").exists()


def test_a_killed_write_is_not_taken_for_a_model(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from tutelage.models import locate, tiny\n"
        "def write(folder):\n"
        "    tiny.write_text_files(folder)\n"
        "    os.kill(os.getpid(), 9)\n"
        "tiny.write = write\n"
        "locate.locate('tiny', pathlib.Path(sys.argv[1]))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, check=False)
    assert found.returncode == -9
    assert not (tmp_path / "models" / f"tiny-{tiny.REVISION}").exists()
    assert (locate("tiny", tmp_path) / "model.safetensors").exists()


def test_a_full_disk_is_an_error_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny, "write", full)
    with pytest.raises(ModelError, match="No space left") as caught:
        locate("tiny", tmp_path)
    assert caught.value.hint
    assert models(tmp_path) == []


def test_a_home_that_cannot_be_written_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where a folder should be")
    with pytest.raises(ModelError, match="cannot be written"):
        locate("tiny", tmp_path)


def test_of_two_writers_the_first_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=10)

    def write(folder: Path) -> None:
        tiny.write_text_files(folder)
        (folder / "writer").write_text(str(threading.get_ident()))
        together.wait()

    monkeypatch.setattr(tiny, "write", write)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(locate("tiny", tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "models" / f"tiny-{tiny.REVISION}"] * 2
    assert models(tmp_path) == [f"tiny-{tiny.REVISION}"]
