"""The tutorial's commands work, in the order in which they stand there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script(page: str) -> str:
    """All blocks as one shell script that stops at the first failure; `set -x` shows where."""
    blocks = [
        f": {PAGE.name}, line {page.count(chr(10), 0, m.start()) + 2}\n{m[1]}" for m in BLOCK.finditer(page)
    ]
    assert blocks
    return "\n".join(["set -eux", *blocks])


def run(text: str, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of a shell script; nothing it has started outlives it."""
    with subprocess.Popen(
        ["sh", "-c", text],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate(timeout=280)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
    return shell.returncode, output


@pytest.mark.timeout(300)
def test_every_block_of_the_tutorial_runs(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
    }
    code, output = run(script(PAGE.read_text(encoding="utf-8")), environment)
    assert code == 0, output
    assert list(tmp_path.glob("*/tutelage.db")), "everything was kept in the tutorial's own folder"
