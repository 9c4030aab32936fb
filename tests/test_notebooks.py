"""The notebooks run from top to bottom, and are stored with the outputs of such a run."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pages import ROOT

nbformat = pytest.importorskip("nbformat", reason="notebooks are run by the extra dev")
nbclient = pytest.importorskip("nbclient", reason="notebooks are run by the extra dev")

# A command of which a notebook shows the last lines. The kernel runs it in this test, because a
# process of its own would import the library once more.
COMMAND = r"!{sys\.executable} (-m pyro_dpvae (?:.*\\\n)*.*) > train\.log 2>&1\n!tail .*"

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of one kernel for all notebooks, because its imports take longer than most cells.

    It works in another folder, and imports this repository from there.
    """
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    client = nbclient.NotebookClient(
        nbformat.v4.new_notebook(),
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path_factory.mktemp("notebooks"))}},
        startup_timeout=600,  # seconds, against hangs
        timeout=1800,
    )
    with client.setup_kernel(env={**os.environ, "PYTHONPATH": paths}):
        yield client


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, client: Any) -> None:
    """All cells run, with a tenth of the training, since the stored outputs have the whole."""
    client.nb = nbformat.read(path, as_version=4)
    shortened = 0
    for cell in client.nb.cells:
        cell.source, count = re.subn(r"(epochs=\d|steps=\d+|--steps \d+)0\b", r"\1", cell.source)
        shortened += count
        cell.source = re.sub(COMMAND, r"%run \1", cell.source)
    assert shortened > 0
    # What an earlier notebook left: its names, and parameters that are registered in Pyro.
    clean = nbformat.v4.new_code_cell("import pyro\npyro.clear_param_store()\n%reset -f")
    client.nb.cells.insert(0, clean)
    for number, cell in enumerate(client.nb.cells):
        client.execute_cell(cell, number)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    assert path.stat().st_size < 250_000
