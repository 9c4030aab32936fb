"""The README's code blocks run as they are written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def blocks(language: str) -> list[str]:
    return [code for name, code in BLOCKS if name == language]


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_python_blocks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("\n".join(blocks("python")))
    output = run([sys.executable, str(script)], tmp_path)
    assert re.search(r"loss \d+\.\d nats per image", output)
    assert re.search(r"KL\(p \|\| q\) \+ KL\(q \|\| p\) = \d", output)


def test_the_mnist_commands(real_data: Path, tmp_path: Path) -> None:
    output = run(["bash", "-e", "-c", blocks("bash")[0]], tmp_path)
    elbo = float(re.search(r"held-out ELBO (-\d+\.\d+) nats", output)[1])  # type: ignore[index]
    # A convolutional VAE has left the best single image (-206) behind after one pass.
    assert -165 < elbo < -110
    assert (tmp_path / "runs/mnist/samples.png").stat().st_size > 10_000


def test_the_other_commands(tmp_path: Path) -> None:
    output = run(["bash", "-e", "-c", blocks("bash")[1]], tmp_path)
    assert output.count("held-out ELBO") == 2


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_make_targets_exist(target: str) -> None:
    assert f"make {target}" in blocks("console")[0]
    assert f"\n{target}: .venv/ready" in (ROOT / "Makefile").read_text()
