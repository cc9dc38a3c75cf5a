"""A method that somebody adds goes through everything without another change."""

import dataclasses

import pytest
from linear_networks import NETWORKS, linear_classifier, write

from gat_tf import attacks, training
from gat_tf.experiments import fig3, methods, settings, table2
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import results
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.methods import METHODS, Hyperparameter, Method, Trainee

pytestmark = pytest.mark.usefixtures("eagerly")
STRENGTHS = (0.01, 0.03)


def build(config, values, splits, seed):
    classifier = linear_classifier(config, splits)
    attack = attacks.FastGradient(values["strength"], 2)
    scheme = training.AdversarialTraining(classifier, attack, config.alpha, seed=seed)
    scheme.compile(methods._optimizer(config))
    return Trainee(scheme, classifier)


@pytest.fixture
def made_up():
    method = Method("Made up", build, {"strength": Hyperparameter(0.02, STRENGTHS)})
    methods.add("made_up", method)
    yield method
    del METHODS["made_up"]


@pytest.mark.slow
@pytest.mark.usefixtures("made_up")
def test_added_method_is_searched_trained_reported_and_attacked(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "draw", lambda *_: None)
    names = ("baseline", "gat", "made_up")
    shared = {f.name: getattr(NETWORKS, f.name) for f in dataclasses.fields(settings.Config)}
    config = table2.Config(
        **shared | {"strategy": "one_device", "search": True, "search_epochs": 1,
                    "search_extensions": 0},
        datasets=("shapes",), methods=names, seeds=(0,),
    )  # fmt: skip
    known = {"baseline": {0: 30}, "gat": {0: 40}}
    folder = tmp_path / "table2"
    own = settings.Config(**{name: getattr(config, name) for name in shared})
    configs.bind_folder("networks", own, folder)
    for_networks = tmp_path / "linear"
    write(for_networks, **known)
    (for_networks / "units").rename(folder / "units")
    found = table2.run(config, folder)

    trials = {p.stem for p in (folder / "search").glob("*.json")}
    assert trials == {f"shapes-made_up-strength={strength}" for strength in STRENGTHS}
    (unit,) = (u for u in found["units"] if u["method"] == "made_up")
    assert unit["hyperparameters"]["strength"] in STRENGTHS
    assert list(found["summary"]["shapes"]) == ["baseline", "gat", "made_up"]
    table = (folder / "table2.md").read_text()
    (row,) = (line for line in table.splitlines() if line.startswith("| Made up |"))
    assert f"| – | {100 * unit['test_accuracy']:.2f} | 1 |" in row
    ((verdict),) = (v for v in found["verdicts"]["shapes"] if "Made up" in v["claim"])
    assert verdict["claim"] == "Test accuracy: Adv. training (GAT) above Made up"
    assert verdict["origin"] == "beyond"
    assert verdict["mean"] == pytest.approx(100 * (0.8 - unit["test_accuracy"]))
    gains = results.figures(found)["table2"].axes[0]
    assert any(t.get_text().startswith("Made up") for t in gains.get_yticklabels())

    of_fig3 = fig3.Config(
        datasets=("shapes",), seeds=(0,), methods=names, strategy="one_device",
        networks_dir=str(folder), fg_epsilons=(0, 0.5), pgd_l2_epsilons=(0.5,),
        pgd_linf_epsilons=(0.01,), pgd_steps=1, pgd_restarts=1,
    )  # fmt: skip
    attacked = fig3.run(of_fig3, tmp_path / "fig3")
    assert "| Made up |" in (tmp_path / "fig3" / "fig3.md").read_text()
    assert any("GAT above Made up" in v["claim"] for v in attacked["verdicts"]["shapes"])
    lines = [line.get_label() for line in results.figures(attacked)["fig3"].axes[0].get_lines()]
    assert "Made up" in lines


def test_its_settings_are_known_while_it_is_there(made_up):
    given = {"hyperparameters": {"made_up.strength": 0.5}, "grids": {"made_up.strength": (1.0,)}}
    assert settings.Config(**given).hyperparameters == {"made_up.strength": 0.5}
    with pytest.raises(ConfigError, match=r"hyperparameter to be one of .*made_up\.strength"):
        settings.Config(hyperparameters={"made_up.weakness": 1.0})
    with pytest.raises(ValueError, match=r"name of a new method\. Received: 'made_up'"):
        methods.add("made_up", made_up)
    assert METHODS["made_up"] is made_up


def test_it_is_gone_afterwards():
    with pytest.raises(ConfigError, match=r"Received: made_up\.strength"):
        settings.Config(hyperparameters={"made_up.strength": 1.0})
    with pytest.raises(ConfigError, match="Received: made_up"):
        table2.Config(methods=("made_up",))
