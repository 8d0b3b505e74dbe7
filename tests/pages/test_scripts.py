"""The browser's modules are typed by their comments, and TypeScript agrees with them."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tutelage.web.templating import HERE

TSC = os.environ.get("TUTELAGE_TSC") or shutil.which("tsc")
STRICT = (
    "--noEmit --allowJs --checkJs --strict --target es2022 --module es2022 --moduleResolution bundler "
    "--lib es2024,dom,dom.iterable"
)


@pytest.mark.skipif(TSC is None, reason="there is no tsc: npm install -g typescript, or set TUTELAGE_TSC")
def test_the_modules_hold_to_their_types() -> None:
    modules = sorted(str(path) for path in (HERE / "static").glob("*.js"))
    checked = subprocess.run(
        [str(TSC), *STRICT.split(), *modules], capture_output=True, text=True, timeout=120, check=False
    )
    assert checked.stdout == ""
    assert checked.returncode == 0
