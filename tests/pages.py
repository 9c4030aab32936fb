"""Blocks of code in pages of Markdown, and commands in children of the test process."""

import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from threadpoolctl import threadpool_limits

from pyro_dpvae.cli import main
from tests.children import end_of, fork

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

PAGES = ["README.md", "CONTRIBUTING.md"]
PAGES += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Return the languages and texts of a page's blocks in some languages, in their order."""
    found = _BLOCK.findall((ROOT / page).read_text())
    return [(language, text) for language, text in found if language in languages]


def commands(text: str) -> list[list[str]]:
    """Return the command lines of a block as words, without what a console answers."""
    joined = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in joined):
        joined = [line.removeprefix("$ ") for line in joined if line.startswith("$ ")]
    return [shlex.split(os.path.expandvars(line), comments=True) for line in joined]


def run_command(words: list[str], folder: Path) -> str:
    """Run a ``dpvae`` command in a folder; returns what it prints."""
    assert words[0] == "dpvae", words
    return _in_child(lambda: main(words[1:]), folder)


def run_script(code: str, folder: Path) -> str:
    """Run a script in a folder; returns what it prints."""
    return _in_child(
        lambda: exec(compile(code, "script", "exec"), {"__name__": "__main__"}), folder
    )


def _in_child(work: Callable[[], object], folder: Path) -> str:
    """Return what a child prints, as fresh as a forked process can be."""
    printed = folder / "printed.txt"

    def begin() -> None:
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        # Open until the child ends, which prints an error of its work there.
        sys.stdout = sys.stderr = file = printed.open("w", buffering=1)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        threadpool_limits(1)  # teams of threads do not survive a fork
        warnings.resetwarnings()
        pyro.clear_param_store()
        torch.seed()
        assert not work()

    status = end_of(fork(begin))
    text = printed.read_text()
    assert status == 0, text
    return text
