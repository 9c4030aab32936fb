"""The folder of what is computed once and used by all runs."""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path | None:
    """Return the user's cache folder for this library; None if the user has no home."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "pyro-dpvae"
    with suppress(RuntimeError):  # neither HOME nor an entry in the system's list of users
        return Path.home() / ".cache" / "pyro-dpvae"
    return None
