"""The command line: arguments in, one module's function called, a result printed.

Each area of the product has a file here; nothing heavy is imported before the command that needs it runs.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

import typer

from tutelage import __version__
from tutelage.cli.output import fail
from tutelage.errors import ConfigError, TutelageError

OUTSIDE = {
    errno.EACCES: "is it this user's? TUTELAGE_HOME names another data folder",
    errno.EPERM: "is it this user's? TUTELAGE_HOME names another data folder",
    errno.EROFS: "TUTELAGE_HOME names another data folder",
    errno.ENOSPC: "make room there and do it again",
    errno.EDQUOT: "make room there and do it again",
}
"""What a file system may refuse whatever the program does, with the way out."""
AREAS = ("serve", "training", "compare", "pipelines", "data", "versions", "people", "moderation")


def build() -> typer.Typer:
    """The whole command line as a typer app."""
    app = typer.Typer(
        name="tutelage",
        help="A self-hosted ChatGPT that learns from the people who use it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )

    @app.callback(invoke_without_command=True)
    def root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
        if version:
            print(__version__)
            raise typer.Exit

    for area in AREAS:
        import_module(f"tutelage.cli.{area}").register(app)
    return app


def main() -> None:
    """Entry point. Errors that are meant for people become a line, a hint and exit code 2."""
    # Threads that spin long while they wait bring a busy machine to a crawl. Where two threads of a process compute, as
    # two versions that are compared do, they would not spin at all, and fall asleep 400 times a token. Read when torch
    # is loaded; see `tutelage.models.own_thread`.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("OMP_WAIT_POLICY", "active")
    try:
        build()()
    except TutelageError as error:
        fail(error)
        sys.exit(2)
    except OSError as error:
        if error.errno not in OUTSIDE or error.filename is None:
            raise
        fail(ConfigError(str(error.strerror), where=str(error.filename), hint=OUTSIDE[error.errno]))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
