"""A round's log, in its folder: who worked on it, which stages began and ended, and what went wrong, with its place.

runs/round-0001/log.txt    grows with every process that takes the round up; the operators' page shows its end
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage.errors import TutelageError
from tutelage.training.metrics import Progress

LOG = "log.txt"


@contextmanager
def journal(folder: Path, progress: Progress) -> Iterator[Progress]:
    """Log what happens inside the block, warnings of the whole package too; gives progress that is logged."""
    handler = logging.FileHandler(folder / LOG, encoding="utf-8")
    lines = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S UTC")
    lines.converter = time.gmtime
    handler.setFormatter(lines)
    package = logging.getLogger("tutelage")
    package.addHandler(handler)

    def say(text: str, level: int = logging.INFO, error: BaseException | None = None) -> None:
        trace = None if error is None else (type(error), error, error.__traceback__)
        handler.handle(logging.LogRecord(__name__, level, __file__, 0, text, None, trace))

    try:
        say(f"taken up by process {os.getpid()} on {socket.gethostname()}")
        yield _logged(progress, say)
    except TutelageError as error:
        say(f"ended: {error}", logging.ERROR)
        raise
    except BaseException as error:
        say("broke off", logging.ERROR, error)
        raise
    else:
        say("done")
    finally:
        package.removeHandler(handler)
        handler.close()


def _logged(progress: Progress, say: Callable[[str], None]) -> Progress:
    """Progress that is logged where a stage begins and ends, with its last metrics."""
    present = ""

    def note(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        nonlocal present
        if stage != present:
            present = stage
            say(f"{stage}: at step {done} of {total}")
        progress(stage, done, total, metrics)
        if done == total:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            say(f"{stage}: done" + (f" ({figures})" if figures else ""))

    return note
