"""Names of Python arguments in messages, written as the flags that the user typed."""

import re
import shlex
from collections.abc import Sequence

__all__ = ["in_flags"]

_DOWNLOAD = ("download=True", "--download")


def in_flags(message: str, arguments: Sequence[str]) -> str:
    """Return a message that names the flags of a command line instead of Python arguments.

    Only flags that were typed are named, or that the message says to use: a configuration file
    has the names of Python.

    Args:
        message: the message of an error.
        arguments: the arguments of the command.

    Example:
        >>> in_flags("2 ranks cannot share 3 items; use batch_size=4", ["--batch-size=3"])
        '2 ranks cannot share 3 items; use --batch-size=4'
        >>> in_flags("blocks must be at least 1, got 0", ["--prior.blocks", "0"])
        '--prior.blocks must be at least 1, got 0'
        >>> in_flags("batch_size must be at least 1, got 0", ["--config", "run.yaml"])
        'batch_size must be at least 1, got 0'
        >>> in_flags("text in column 'kind'; use labels='kind' if it is the label", [])
        "text in column 'kind'; use --labels kind if it is the label"
    """
    for argument in arguments:
        flag = argument.partition("=")[0]
        if not flag.startswith("--"):
            continue
        name = flag[2:].replace("-", "_")
        for known in (name, name.rpartition(".")[2]):
            # A name of one word is a word of English too, except before what it must be.
            ending = r"\b" if "_" in known or "." in known else r"(?= must )"
            message = re.sub(rf"(?<![\w./-]){re.escape(known)}{ending}(?!\.\w)", flag, message)
    message = re.sub(
        r"\buse (layout|labels|standardise|image_size)=(?:'([^']*)'|(\d+))",
        lambda found: f"use --{found[1].replace('_', '-')} {shlex.quote(found[2] or found[3])}",
        message,
    )
    return re.sub(r"\bset (?=root |inception )", "set --", message.replace(*_DOWNLOAD))
