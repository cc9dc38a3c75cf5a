"""Results are written and read whole, and say what they were made with."""

import json

import numpy as np
import pytest

from gat_tf import plotting
from gat_tf.experiments import fig2, fig3, fig4, robustness, table2
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import devices, files, results
from gat_tf.experiments.lab.config import FORMAT
from gat_tf.experiments.lab.units import Units
from gat_tf.robustness import command

NAME = "gat_tf.experiments.fig2"
ENVIRONMENT = {
    "devices": ["some device"],
    "versions": {"tensorflow": "2.0", "keras": "3.0"},
    "code": {"digest": "0", "git_revision": "abc"},
}


@pytest.fixture
def drawn(monkeypatch):
    """An experiment whose table and figure are made up."""
    monkeypatch.setattr(fig2, "table", lambda found: f"| {len(found['units'])} units |\n")
    monkeypatch.setattr(fig2, "summarise", lambda units: {"count": len(units)})
    monkeypatch.setattr(fig2, "verdicts", lambda units: {"all": [u["value"] for u in units]})
    figure = plotting.training({"one": {"loss": [1.0]}}, {"loss": "loss"})
    monkeypatch.setattr(fig2, "figures", lambda found: {"fig2": figure})


def saved(folder, **more):
    """Writes results of the units in the folder."""
    units = Units(folder / "units").read_all()
    return results.write(NAME, fig2.Config(), folder, units, 1.5, **more)


@pytest.mark.usefixtures("drawn")
def test_written_results_are_complete_and_count_the_time_of_all_runs(tmp_path, capsys):
    Units(tmp_path / "units").complete({"a": lambda: {"value": 7}})
    for total in (1.5, 3.0):
        written = saved(tmp_path, more="more")
        assert written["wall_seconds"] == total
        assert results.load(tmp_path, NAME) == json.loads(json.dumps(written))
    assert written["format"] == FORMAT
    assert written["config"] == configs.fingerprint(fig2.Config())
    assert (written["summary"], written["verdicts"]) == ({"count": 1}, {"all": [7]})
    assert (written["more"], written["units"]) == ("more", [{"format": FORMAT, "value": 7}])
    assert written["environment"]["versions"]["numpy"] == np.__version__
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"results.json", "fig2.md", "fig2.png", "fig2.pdf", "units"}
    assert (tmp_path / "fig2.md").read_text() == "| 1 units |\n"
    assert "units" not in files.read_json(tmp_path / "results.json")  # they have their own files
    assert capsys.readouterr().out.count("| 1 units |") == 2


@pytest.mark.usefixtures("drawn")
def test_of_several_workers_the_chief_alone_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "is_chief", lambda: False)
    assert saved(tmp_path)["summary"] == {"count": 0}
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("drawn")
def test_results_that_were_cut_are_replaced(tmp_path):
    (tmp_path / "results.json").write_text('{"wall_sec')
    assert saved(tmp_path)["wall_seconds"] == 1.5


def written(**fields):
    return {"experiment": NAME, "format": FORMAT, **fields}


@pytest.mark.parametrize("of_folder", [True, False])
def test_results_are_read_back_with_their_units_packed_or_not(tmp_path, of_folder):
    path = tmp_path / "results.json"
    files.write_json(path, written(more=1.5))
    units = Units(tmp_path / "units")
    units.complete({"b": lambda: {"value": 2}, "a": lambda: {"value": 1}})
    for _ in range(2):
        found = results.load(tmp_path if of_folder else str(path), NAME)
        assert found["more"] == 1.5
        assert [u["value"] for u in found["units"]] == [1, 2]
        units.pack()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (written(experiment="gat_tf.experiments.fig3"), r"of .*fig2 in .*Received: .*of .*fig3"),
        (written(format=99), r"format 2 in .*Received: format 99"),
        ({"experiment": NAME}, r"format 2 in .*Received: format None"),
        ({"units": []}, "Received: results of none that is known"),
        ([], "Received: results of none that is known"),
    ],
)
def test_other_results_are_refused(tmp_path, stored, message):
    files.write_json(tmp_path / "results.json", stored)
    with pytest.raises(results.ResultsError, match=message):
        results.load(tmp_path, NAME)


def test_results_of_other_programs_are_not_imported():
    with pytest.raises(results.ResultsError, match=r"experiment of gat_tf\. Received: 'os'"):
        results.table({"experiment": "os"})


def test_missing_results_are_named_with_what_makes_them(tmp_path):
    with pytest.raises(results.ResultsError, match=r"results\.json.*gat_tf\.experiments\.fig2`"):
        results.load(tmp_path, NAME)


def test_truncated_results_are_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(written())[:20])
    with pytest.raises(files.BrokenFileError, match=r"results\.json.*truncated"):
        results.load(tmp_path)


@pytest.mark.parametrize("module", [table2, fig2, fig3, fig4, robustness, command])
def test_every_experiment_is_found_by_its_name(module):
    assert results.experiment(module.NAME) is module
    assert callable(module.table)
    assert callable(module.figures)


def test_what_a_record_was_made_with():
    unit = {"environment": ENVIRONMENT, "train_seconds": 5400.0}
    two = {"environment": ENVIRONMENT, "trainings": {"a": {"train_seconds": 1800.0}}}
    sentence = results.made_with({"units": [unit, unit, two]})
    assert sentence == (
        "3 unit(s), 3.5 h of training time, on some device; TensorFlow 2.0, Keras 3.0."
    )
    other = {**ENVIRONMENT, "devices": ["a device"], "code": {"git_revision": "def"}}
    sentence = results.made_with({"units": [{"environment": ENVIRONMENT}, {"environment": other}]})
    both = "on a device, some device; TensorFlow 2.0, Keras 3.0. Made by 2 revisions of the code."
    assert sentence == f"2 unit(s), {both}"
    continued = {"environment": ENVIRONMENT, "earlier_environments": [other]}
    assert results.made_with({"units": [continued]}) == f"1 unit(s), {both}"
