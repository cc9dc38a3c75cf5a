"""The notebooks run from top to bottom, and show what they say now.

`python notebooks/execute.py figures.ipynb` stores a notebook's outputs again.
"""

import json
import pathlib
import re
import sys
import types

import pytest

from gat_tf import data

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"
# What replaces the cell tagged "parameters", where a test cannot have what a user has.
PARAMETERS = {
    "figures.ipynb": None,
    "robgan.ipynb": None,
    "how_robust.ipynb": {"epochs": 1, "images": 10},
    "use_models.ipynb": {"epochs": 1},
    "train_on_gpu.ipynb": {
        "dataset": "shapes",
        "data_dir": None,
        "epochs": 2,
        "width": 1 / 24,
        "train_size": 100,
    },
}


RECORDS = {"figures.ipynb", "robgan.ipynb"}  # drawn from the record: the same whoever runs them
WITHOUT_OUTPUTS = {"train_on_gpu.ipynb"}
LARGEST = 500_000  # bytes


def cells_of(name):
    return json.loads((NOTEBOOKS / name).read_text())["cells"]


def code_of(name):
    return [cell for cell in cells_of(name) if cell["cell_type"] == "code"]


def outputs_of(name):
    return [output for cell in code_of(name) for output in cell["outputs"]]


def test_every_notebook_is_here():
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_notebook_opens_on_colab(name):
    title, install = cells_of(name)[:2]
    (repository,) = re.findall(r"research.google.com/github/(.+?)/blob", "".join(title["source"]))
    assert f"/blob/main/notebooks/{name})" in "".join(title["source"])
    assert f"https://github.com/{repository}" in "".join(install["source"])
    assert install["source"] == cells_of("figures.ipynb")[1]["source"]


@pytest.mark.parametrize("name", sorted(set(PARAMETERS) - WITHOUT_OUTPUTS))
def test_outputs_are_stored(name):
    assert (NOTEBOOKS / name).stat().st_size < LARGEST
    counts = [cell["execution_count"] for cell in code_of(name)]
    assert counts == list(range(1, len(counts) + 1))  # once, from top to bottom
    assert any("image/png" in output.get("data", {}) for output in outputs_of(name))
    assert not [
        o for o in outputs_of(name) if o["output_type"] == "error" or "stderr" in o.values()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_notebook_runs(name, request, monkeypatch, tmp_path):
    path = NOTEBOOKS / name
    # The cells are plain Python; of IPython they use the display alone.
    shown = []
    display = types.SimpleNamespace(Markdown=str, display=shown.append)
    ipython = types.SimpleNamespace(display=display, version_info=(9, 0))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(path.parent)
    if name != "how_robust.ipynb":  # whose model has to learn something
        few = {"train_size": 100, "validation_size": 50, "test_size": 50}
        load = data.load
        monkeypatch.setattr(data, "load", lambda *args, **sizes: load(*args, **few | sizes))
    if name == "train_on_gpu.ipynb":  # a few steps cost less than to trace them, on two devices
        request.getfixturevalue("uncompiled")
    scope = {}
    for cell in code_of(name):
        source = "".join(line for line in cell["source"] if not line.startswith("%"))
        exec(compile(source, str(path), "exec"), scope)
        if "parameters" in cell["metadata"].get("tags", []) and PARAMETERS[name]:
            ours = dict(PARAMETERS[name])
            if "output_dir" in scope:
                ours["output_dir"] = str(tmp_path)
            assert ours.keys() <= scope.keys()
            scope.update(ours)
    assert shown
    if name in RECORDS:  # tables and verdicts are those of the record as it is now
        stored = [
            None if "image/png" in o["data"] else "".join(o["data"]["text/markdown"])
            for o in outputs_of(name)
        ]
        assert stored == [item if isinstance(item, str) else None for item in shown]
