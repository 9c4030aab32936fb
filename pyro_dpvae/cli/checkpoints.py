"""The checkpoint that a command line names."""

__all__ = ["which_checkpoint"]


def which_checkpoint(which: str) -> str | int:
    """Return which checkpoint a command line asks for.

    Raises:
        ValueError: if it is neither ``"last"`` nor ``"best"`` nor a step.

    Example:
        >>> which_checkpoint("best"), which_checkpoint("1000")
        ('best', 1000)
    """
    if which in ("last", "best"):
        return which
    if not (which.isascii() and which.isdigit() and len(which) < 10):
        raise ValueError(f"checkpoint must be last, best or a step; got {which!r}")
    return int(which)
