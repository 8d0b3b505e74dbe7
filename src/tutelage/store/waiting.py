"""How long a write waits for the others, and what is said then."""

from tutelage.errors import Unavailable

BUSY_SECONDS = 15.0


def busy() -> Unavailable:
    """Others do not finish in time."""
    return Unavailable("The database is busy.", hint="Try again in a moment.")
