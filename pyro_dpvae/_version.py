"""The version of the library, which ``pyproject.toml`` alone says."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("pyro-dpvae")
