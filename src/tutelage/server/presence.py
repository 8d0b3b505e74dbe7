"""Whether other servers are at work on the same database file. The sign goes with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Presence:
    """A lock beside the file: shared by all servers on it, and had alone for a moment by one that finds no other.

    A server that is `alone` may tidy up after those that died; until it calls `share`, no other gets past its start.
    """

    def __init__(self, database: Path) -> None:
        self._lock = os.open(database.with_name(f"{database.name}.servers"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.alone = True
        except OSError:
            self.alone = False

    def share(self) -> None:
        """From now on others may begin. Waits for one that is at its own start."""
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def close(self) -> None:
        """This server is gone."""
        os.close(self._lock)
