"""Static files under a URL that names their content, so that a browser may keep them for ever."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from starlette.responses import Response

from tutelage.errors import NotFound, Sentence

FOR_EVER = "public, max-age=31536000, immutable"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Assets:
    """All files of one folder, read once. They share one hash: a module's relative imports stay inside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Name to content."""
        return {
            path.name: path.read_bytes() for path in sorted(self._folder.iterdir()) if path.suffix in TYPES
        }

    @cached_property
    def hash(self) -> str:
        """Short content hash of all files together."""
        digest = hashlib.sha256()
        for name, content in self.files.items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        """Address of a file. Raises KeyError for a name that is not there."""
        self.files[name]
        return f"/static/{self.hash}/{name}"

    def respond(self, hash: str, name: str) -> Response:
        """One file. A page opened before an upgrade still gets today's file, but may not keep it.

        Raises NotFound.
        """
        if name not in self.files:
            raise NotFound(Sentence("there is no file {name}", name=name))
        kind = TYPES[Path(name).suffix]
        headers = {"cache-control": FOR_EVER if hash == self.hash else "no-cache"}
        return Response(self.files[name], media_type=kind, headers=headers)
