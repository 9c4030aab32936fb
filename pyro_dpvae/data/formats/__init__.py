"""Readers of file formats; each returns the content of a file as a ``Source``."""
