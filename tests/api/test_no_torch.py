"""Importing the server or the pages never imports torch: a page must not cost seconds and gigabytes."""

from __future__ import annotations

import subprocess
import sys


def test_the_server_and_the_pages_import_without_torch() -> None:
    code = (
        "import sys, tutelage.server.app, tutelage.web.app, tutelage.engine.pool, tutelage.engine.scripted_engine;"
        "heavy = {'torch', 'transformers', 'peft', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
