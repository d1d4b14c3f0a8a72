"""docs/quickstart.ipynb, executed with the shortest training."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def shown(notebook: nbformat.NotebookNode) -> tuple[str, int]:
    """The text that the cells print, and the number of pictures that they show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    return text, sum("image/png" in output.get("data", {}) for output in outputs)


def test_it_runs(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTART_ITERATIONS", "2")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(workdir)}}).execute()
    text, pictures = shown(notebook)
    assert pictures == 3
    assert "2 iterations" in text
    assert "texture loss of a blurred photo: 0." in text
    assert (workdir / "experiments/quickstart/results.json").is_file()


def test_the_committed_output_is_of_a_whole_run() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    text, pictures = shown(notebook)
    assert pictures == 3
    assert "600 iterations" in text
    assert "/root" not in text
    assert "/tmp" not in text
    assert "Error" not in text
