"""The notebooks run from top to bottom, and are stored without outputs."""

import json
import pathlib
import sys
import types

import pytest

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"
# What replaces the cell tagged "parameters", where a test cannot have what a user has.
PARAMETERS = {
    "figures.ipynb": None,
    "robgan.ipynb": None,
    "use_models.ipynb": {"epochs": 2},
    "train_on_gpu.ipynb": {
        "dataset": "shapes",
        "data_dir": None,
        "epochs": 2,
        "width": 1 / 12,
        "train_size": 250,
    },
}


def test_every_notebook_is_here():
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_notebook_runs(name, monkeypatch, tmp_path):
    path = NOTEBOOKS / name
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    # The cells are plain Python; of IPython they use the display alone.
    shown = []
    display = types.SimpleNamespace(Markdown=str, display=shown.append)
    ipython = types.SimpleNamespace(display=display, version_info=(9, 0))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(path.parent)
    scope = {}
    for cell in cells:
        source = "".join(line for line in cell["source"] if not line.startswith("%"))
        exec(compile(source, str(path), "exec"), scope)
        if "parameters" in cell["metadata"].get("tags", []) and PARAMETERS[name]:
            ours = dict(PARAMETERS[name])
            if "output_dir" in scope:
                ours["output_dir"] = str(tmp_path)
            assert ours.keys() <= scope.keys()
            scope.update(ours)
    assert shown
