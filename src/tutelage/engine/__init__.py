"""Engines turn token ids into token ids. The interface is importable without torch."""
