"""Commands called with anything: what must hold of how they end, and limits while they run."""

import contextlib
import io
import re
import resource
import signal
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyro
from hypothesis import strategies as st

from pyro_dpvae.cli import main
from tests.waiting import TIME_LIMIT

MEMORY = 2 << 30
"""What no command on tiny data asks for, in bytes; more is an allocation by a forged number."""


# What Python, torch and numpy say of a fault in a program, which tells a user nothing.
_FOREIGN = re.compile(
    r"object is not|has no attribute|indices must be|unsupported operand|unhashable|"
    r"unexpected keyword|missing \d+ required|takes \d+ positional|^invalid literal|"
    r"^could not convert|out of range|^Expecting |not supported between|^must be real number|"
    r"cannot unpack|update sequence|size mismatch|JSON serializable|embedded null|"
    r"too many values|not enough values"
)


class Hang(BaseException):
    """A command that did not end; of no class that a command could catch."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status, and what it printed."""

    status: int
    output: str
    error: str


def outcome(*arguments: str) -> Outcome:
    """Return how a command ends in this process; what it raises is raised."""
    output, error = io.StringIO(), io.StringIO()
    pyro.clear_param_store()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
        warnings.catch_warnings(),
        limits(),
    ):
        warnings.simplefilter("always")  # as users see them, where tests make errors of them
        try:
            status = main(arguments)
        except SystemExit as ended:  # of a parser that has printed its help or options
            status = ended.code if isinstance(ended.code, int) else 1
    return Outcome(status, output.getvalue(), error.getvalue())


def check_ended(result: Outcome) -> None:
    """Hold a command to: done, or refused with a message that says what was got, and no more."""
    assert "Traceback" not in result.error
    if result.status == 0:
        return
    assert result.status in (2, 3), result
    (message,) = re.findall(r"^(?:dpvae \w+: )?error: (.*)", result.error, re.MULTILINE)
    assert len(message) > 10, result
    assert not _FOREIGN.search(message), result


def listing(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder with their content, to compare before and after."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw what a file may have become: cut, with bytes changed, put in or doubled."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        # The first bytes say how to read all others.
        place = draw(st.one_of(st.integers(0, 127), st.integers(0, max(len(changed) - 1, 0))))
        match draw(st.sampled_from(["cut", "flip", "put", "digit", "double"])):
            case "cut":
                del changed[place:]
            case "flip":
                changed[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case "put":
                changed[place:place] = draw(st.binary(max_size=8))
            case "digit":
                digits = [n for n, byte in enumerate(changed[:200]) if chr(byte).isdigit()]
                if digits:
                    where = draw(st.sampled_from(digits))
                    changed[where:where] = b"9" * draw(st.integers(1, 20))
            case "double":
                changed += bytes(changed)
    return bytes(changed)


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Set an end for what hangs, and a refusal of what asks for more memory than it can need."""

    def hang(*_: Any) -> None:
        raise Hang

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, hang)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.alarm(TIME_LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def scratch(files: Mapping[str, bytes] = MappingProxyType({})) -> Iterator[Path]:
    """Make a folder of files for one example, which is gone at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        yield folder
