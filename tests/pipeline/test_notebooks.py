"""Tests of the notebooks: each runs from its first cell to its last on a ledger that was run, and is committed without outputs."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.pipeline.conftest import Run

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
N_PICTURES = {"exploring_the_ledger": 4, "from_features_to_a_champion": 4, "why_this_decision": 2}
"""Charts that each notebook draws."""
MAX_OUTPUT_BYTES = 600_000
"""Size of all outputs of a notebook: a reader's editor stays quick."""


@pytest.fixture(scope="module")
def home(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the home: this process has the warehouse of the original open."""
    return Path(shutil.copytree(run.settings.home, tmp_path_factory.mktemp("notebooks") / "home"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_on_the_home_of_a_demonstration(file: Path, run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"HOME": home, "SOURCE": run.settings.source, "AS_OF": run.settings.as_of.isoformat()}  # type: ignore[union-attr]
    values |= {"SIM_CUSTOMERS": run.settings.sim_customers, "SIM_MONTHS": run.settings.sim_months}
    for name, value in values.items():
        monkeypatch.setenv(f"FINRISK_{name}", str(value))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent), prepend=":")
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == N_PICTURES[file.stem]
    assert [output for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
    assert len(json.dumps(outputs)) < MAX_OUTPUT_BYTES


def test_there_are_three_notebooks_and_none_holds_outputs() -> None:
    assert {file.stem for file in NOTEBOOKS} == {*N_PICTURES}
    for file in NOTEBOOKS:
        cells = nbformat.read(file, as_version=4).cells
        assert len(cells) <= 20, file.name
        assert all(cell.execution_count is None and not cell.outputs for cell in cells if cell.cell_type == "code"), file.name
