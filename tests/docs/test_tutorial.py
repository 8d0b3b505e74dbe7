"""The tutorial's commands work, in the order in which they stand there."""

from __future__ import annotations

import os
import re
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


@pytest.mark.timeout(300)
def test_every_block_of_the_tutorial_runs(tmp_path: Path) -> None:
    commands = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
    }
    text = script(PAGE.read_text(encoding="utf-8"))
    done = subprocess.run(
        ["sh", "-c", text], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert list(tmp_path.glob("*/tutelage.db")), "everything was kept in the tutorial's own folder"
