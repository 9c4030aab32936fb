"""Code blocks of the README and the documentation run as they are written.

Blocks of Python and bash are run, most commands with a tenth of their steps; of those of a
console, which take minutes, devices or downloads, every command is parsed.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from papers.dpvae.__main__ import main as papers_main
from pyro_dpvae._parser import CommandParser
from pyro_dpvae.cli import main
from tests.pages import PAGES, ROOT, blocks, commands, run_command, run_script

# The README's script goes on from block to block; getting started has a test of its own.
ALONE = [
    page
    for page in PAGES
    if page not in ("README.md", "docs/getting-started.md") and blocks(page, "python", "bash")
]


def test_the_script_of_the_readme(tmp_path: Path) -> None:
    output = run_script("\n".join(text for _, text in blocks("README.md", "python")), tmp_path)
    assert re.search(r"loss \d+\.\d nats per image", output)
    assert re.search(r"KL\(p \|\| q\) \+ KL\(q \|\| p\) = \d", output)


def test_the_mnist_commands_of_the_readme(real_data: Path, tmp_path: Path) -> None:
    train, sample = commands(blocks("README.md", "bash")[0][1])
    epochs = train.index("--epochs")
    train[epochs : epochs + 2] = ["--steps", "150", "--learning-rate", "3e-3"]  # a quarter of one
    output = run_command(train, tmp_path)
    elbo = float(re.search(r"held-out ELBO (-\d+\.\d+) nats", output)[1])  # type: ignore[index]
    # It has left the best single image (-206) behind.
    assert -196 < elbo < -110
    run_command(sample, tmp_path)
    assert (tmp_path / "runs/mnist/samples.png").stat().st_size > 10_000


def test_the_other_commands_of_the_readme(tmp_path: Path) -> None:
    output = ""
    for _, text in blocks("README.md", "bash")[1:]:
        for words in commands(text):
            output += run_command(_shorter(words), tmp_path)
    assert output.count("nats per datum (distortion") == 5


def test_the_yaml_block_of_the_readme_is_a_configuration(tmp_path: Path) -> None:
    ((_, block),) = blocks("README.md", "yaml")
    (tmp_path / "config.yaml").write_text(block)
    command = ["dpvae", "train", "--config", "config.yaml", "--steps", "3", "--out", "run"]
    assert "held-out ELBO" in run_command(command, tmp_path)
    again = ["dpvae", "train", "--config", "run/config.json", "--prior", "standard"]
    assert "held-out ELBO" in run_command([*again, "--out", "standard"], tmp_path)


def test_getting_started_runs_from_top_to_bottom(tmp_path: Path) -> None:
    output = ""
    for language, text in blocks("docs/getting-started.md", "python", "bash"):
        if language == "python":
            text, count = re.subn(r"\bepoch in range\(8\)", "epoch in range(1)", text)
            assert count == 1
            output += run_script(text, tmp_path)
            continue
        for words in commands(text):
            output += run_command(_shorter(words), tmp_path)
    of_priors = re.findall(r"KL\(q \|\| p\) = (\d+\.\d+) \+-", output)
    assert len(of_priors) == 2
    assert output.count('prior.name: "standard"') == 2  # in which option the runs differ
    assert output.count("B - A") == 2


def _shorter(words: list[str]) -> list[str]:
    """Return a command with a tenth of its steps, and of the samples of its likelihoods."""
    return [
        str(max(1, int(word) // 10)) if option.endswith(("steps", "nll-samples")) else word
        for option, word in zip(["", *words], words, strict=False)
    ]


@pytest.mark.parametrize("page", ALONE)
def test_blocks_of_the_documentation_run(page: str, tmp_path: Path) -> None:
    for language, text in blocks(page, "python", "bash"):
        if language == "python":
            run_script(text, tmp_path)
            continue
        for words in commands(text):
            run_command(_shorter(words), tmp_path)


class _Parsed(BaseException):
    """A command line was understood, and is not to be obeyed."""


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")])
def test_commands_of_consoles_are_understood(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = CommandParser.parse_args

    def parsed(parser: CommandParser, arguments: Sequence[str], **options: Any) -> None:
        parse(parser, arguments, **options)
        raise _Parsed

    monkeypatch.setattr(CommandParser, "parse_args", parsed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPVAE_DATA", str(tmp_path))
    for _, text in blocks(page, "console"):
        for words in commands(text):
            arguments = _of_dpvae(words)
            if words[:3] == ["python", "-m", "papers.dpvae"]:
                with pytest.raises(_Parsed):
                    papers_main(words[3:])
            elif arguments is not None:
                with pytest.raises(_Parsed):
                    main(arguments)
            elif words:
                _check_other(words)


def _of_dpvae(words: list[str]) -> list[str] | None:
    """Return the arguments of ``dpvae`` in a command line, None if it is another command."""
    words = words[: words.index(">")] if ">" in words else words
    words = [word for word in words if word != "--print-config"]
    for start, name in enumerate(words):
        if os.path.basename(name) in ("dpvae", "pyro_dpvae"):
            return words[start + 1 :]
    return None


def _check_other(words: list[str]) -> None:
    """Check that what another command names is there: a target, a script, a module."""
    while "=" in words[0]:
        words = words[1:]
    name, rest = os.path.basename(words[0]), words[1:]
    if name == "make":
        assert f"\n{rest[0]}: .venv/ready" in (ROOT / "Makefile").read_text(), words
    elif name.startswith(("python", "torchrun", "pytest")):
        modules = [word for word in rest if word.startswith("benchmarks.")]
        files = [word for word in rest if word.endswith(".py")]
        for place in [*files, *(module.replace(".", "/") + ".py" for module in modules)]:
            own = rest[rest.index(place if place in files else modules[0]) :]
            source = (ROOT / place).read_text() + (ROOT / "examples/common.py").read_text()
            for option in (word.partition("=")[0] for word in own if word.startswith("--")):
                assert f'"{option}"' in source, words
    else:
        assert name in ("pip", "pre-commit") or (ROOT / words[0]).is_file(), words
