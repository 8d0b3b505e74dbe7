"""Two programs that take turns: each does one step for a line on its standard input, and says how it went as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# glibc is told to keep what it has: big activations are else mapped and unmapped in every step.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}


class Program:
    """A paced program. It is ready when this returns, and `said` what it said then; `close` ends it."""

    def __init__(
        self, python: str, script: Path, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.process = subprocess.Popen(
            [python, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | QUIET | dict(environment),
        )
        self.said = self._heard("ready")

    def step(self, wish: str = "") -> dict[str, Any]:
        """What the program says of its next step: seconds, loss, peak memory in MB. wish: what step it should be."""
        assert self.process.stdin is not None
        self.process.stdin.write(wish + "\n")
        self.process.stdin.flush()
        return self._heard("seconds")

    def _heard(self, key: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(f'{{"{key}"'):
                said: dict[str, Any] = json.loads(line)
                return said
        raise SystemExit("a program ended early; see its words above")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def serve(step: Callable[[], dict[str, Any]]) -> None:
    """The other side: do `step` for every line; it returns what to say, `seconds` first."""
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(step()), flush=True)
