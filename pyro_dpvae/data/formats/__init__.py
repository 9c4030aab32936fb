"""Readers of the file formats of this field: each returns what a file holds as a ``Source``."""
