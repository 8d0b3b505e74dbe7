"""Everything that touches SQL. Open a `Store`; the functions of each area take its session first."""

from tutelage.store.database import Store

__all__ = ["Store"]
