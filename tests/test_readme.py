"""Code blocks of the README and the documentation run as they are written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(language: str, page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


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
    output = run(["bash", "-e", "-c", "\n".join(blocks("bash")[1:])], tmp_path)
    assert output.count("held-out ELBO") == 5


def test_the_yaml_block_is_a_configuration(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    (tmp_path / "config.yaml").write_text(block)
    command = ["dpvae", "train", "--config", "config.yaml", "--steps", "3", "--out", "run"]
    assert "held-out ELBO" in run(command, tmp_path)
    again = ["dpvae", "train", "--config", "run/config.json", "--prior", "standard"]
    assert "held-out ELBO" in run([*again, "--out", "standard"], tmp_path)


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_python_blocks_of_the_documentation(page: str, tmp_path: Path) -> None:
    for number, code in enumerate(blocks("python", f"docs/{page}")):
        script = tmp_path / f"script{number}.py"
        script.write_text(code)
        run([sys.executable, str(script)], tmp_path)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_make_targets_exist(target: str) -> None:
    assert f"make {target}" in blocks("console")[0]
    assert f"\n{target}: .venv/ready" in (ROOT / "Makefile").read_text()
