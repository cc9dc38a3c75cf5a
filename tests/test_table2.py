"""Table 2, end to end on tiny configurations and by hand."""

import dataclasses
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import keras
import linear_networks
import numpy as np
import pytest
from linear_networks import NETWORKS, linear_classifier

from gat_tf import data
from gat_tf.experiments import measuring, methods, settings, table2
from gat_tf.experiments.lab import devices, files, results
from gat_tf.experiments.lab.config import ConfigError
from gat_tf.experiments.methods import METHODS, PAPER_METHODS

pytestmark = pytest.mark.usefixtures("eagerly")
SHARED = {f.name: getattr(NETWORKS, f.name) for f in dataclasses.fields(settings.Config)}
TINY = table2.Config(
    **SHARED | {"strategy": "one_device"}, datasets=("shapes",), seeds=(0,), methods=PAPER_METHODS
)


def weights(folder, name):
    return keras.models.load_model(folder / "units" / f"{name}.keras").get_weights()


@pytest.fixture(scope="module")
def linear():
    """Classifiers are linear ones: quick to compile."""
    patch = pytest.MonkeyPatch()
    patch.setattr(methods, "_classifier", linear_classifier)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def whole(linear, tmp_path_factory):
    """All methods of the paper in one run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, table2.run(TINY, folder)


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(results, "draw", lambda *_: None)


def test_every_method_of_the_paper_is_there(whole):
    folder, found = whole
    assert list(found["summary"]["shapes"]) == list(PAPER_METHODS)
    assert len(PAPER_METHODS) == 7
    assert {u["status"] for u in found["units"]} == {"done"}
    written = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert "units" not in written  # nothing is stored twice
    assert {**written, "units": found["units"]} == json.loads(json.dumps(found))
    assert results.load(folder, "gat_tf.experiments.table2") == json.loads(json.dumps(found))


def test_results_tell_what_they_were_made_with(whole):
    folder, found = whole
    assert found["config"]["epochs"] == 2
    assert found["environment"]["versions"]["keras"] == keras.__version__
    assert found["environment"]["devices"]
    for unit in found["units"]:
        assert unit["epochs"] == 2
        assert len(unit["history"]["loss"]) == 2
        accuracies = unit["history"]["validation_accuracy"]
        assert unit["validation_accuracy"] == pytest.approx(max(accuracies), abs=1e-5)
        assert np.argmax(accuracies) + 1 == unit["best_epoch"]
    for name in ("table2", "table2_training"):
        assert (folder / f"{name}.png").stat().st_size > 10_000
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_saved_classifier_has_the_recorded_accuracy(whole):
    folder, found = whole
    test = data.load("shapes", train_size=100, validation_size=50, test_size=50).test
    images = test.images.reshape(50, -1) / np.float32(255)
    for unit in found["units"]:
        kernel, bias = weights(folder, f"shapes-{unit['method']}-seed0")
        predicted = (images @ kernel + bias).argmax(-1)
        assert (predicted == test.labels).mean() == pytest.approx(unit["test_accuracy"])


def test_finished_unit_is_not_computed_twice(whole, undrawn):
    folder, found = whole
    before = {p: p.stat().st_mtime_ns for p in (folder / "units").iterdir()}
    again = table2.run(TINY, folder)
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "units").iterdir()}
    assert again["units"] == found["units"]
    assert again["wall_seconds"] >= found["wall_seconds"]  # of all runs


def test_runs_of_some_methods_merge_to_the_whole(whole, tmp_path, undrawn):
    theirs = {u["method"]: u for u in whole[1]["units"]}
    for some in (("random",), ("baseline",)):
        merged = table2.run(dataclasses.replace(TINY, methods=some), tmp_path)
    assert list(merged["summary"]["shapes"]) == ["baseline", "random"]
    for unit in merged["units"]:
        assert unit["history"] == theirs[unit["method"]]["history"]
        assert unit["test_accuracy"] == theirs[unit["method"]]["test_accuracy"]


def test_mirrored_replicas_give_the_weights_of_one_device(whole, tmp_path, undrawn):
    config = dataclasses.replace(TINY, methods=("gat",), strategy="mirrored")
    assert devices.strategy("mirrored").num_replicas_in_sync == 2
    table2.run(config, tmp_path)
    for a, b in zip(
        weights(whole[0], "shapes-gat-seed0"), weights(tmp_path, "shapes-gat-seed0"), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_diverging_unit_is_recorded_and_the_others_go_on(linear, tmp_path):
    config = dataclasses.replace(TINY, methods=("baseline", "fg_l2"), learning_rate=1e38)
    found = table2.run(config, tmp_path)
    assert len(found["units"]) == 2
    for unit in found["units"]:
        assert unit["status"] == "failed"
        assert re.match(r"The (loss|validation score) became (nan|inf) in epoch \d", unit["reason"])
        assert "test_accuracy" not in unit
    assert "| diverged | 0 (1 failed) |" in (tmp_path / "table2.md").read_text()
    assert not list(tmp_path.glob("*.png"))
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)


def test_folder_of_another_configuration_is_left_alone(whole):
    folder, _ = whole
    before = (folder / "results.json").read_bytes()
    with pytest.raises(ConfigError, match=r"another configuration.*epochs: 2 there, 3 here"):
        table2.run(dataclasses.replace(TINY, epochs=3), folder)
    assert (folder / "results.json").read_bytes() == before


@pytest.mark.slow
def test_truncated_unit_is_named_and_loses_nothing(linear, tmp_path, undrawn):
    config = dataclasses.replace(TINY, methods=("baseline", "dropout"))
    linear_networks.write(tmp_path, baseline={0: 40}, dropout={0: 41})
    broken = tmp_path / "units" / "shapes-dropout-seed0.json"
    broken.write_text(broken.read_text()[:100])
    other = (tmp_path / "units" / "shapes-baseline-seed0.json").read_bytes()
    with pytest.raises(files.BrokenFileError, match=r"shapes-dropout-seed0\.json.*truncated"):
        table2.run(config, tmp_path)
    assert (tmp_path / "units" / "shapes-baseline-seed0.json").read_bytes() == other
    broken.unlink()
    again, other = table2.run(config, tmp_path)["units"][::-1]
    assert other["test_accuracy"] == 0.8
    assert (again["method"], again["epochs"]) == ("dropout", 2)


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        table2.run(TINY, tmp_path / "file" / "results")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("methods", ("gta",), "methods to be one of baseline, .*Received: gta"),
        ("strategy", "tpu", "strategy to be one of mirrored, .*Received: tpu"),
        ("minibatches", "both", "minibatches to be one of separate, shared.*Received: both"),
        ("alpha", 1.5, r"alpha to be a finite number in \[0, 1\]. Received: 1.5"),
        ("alpha", float("nan"), "alpha to be a finite number.*Received: nan"),
        ("hyperparameters", {"gat.c_g": -1.0}, r"gat\.c_g to be a finite number.*Received: -1"),
        ("hyperparameters", {"fg_l2.epsilon": float("nan")}, r"fg_l2\.epsilon to be.*nan"),
        ("hyperparameters", {"dropout.rate": 1.0}, r"dropout\.rate to be.*\[0, 0.99\].*1.0"),
        ("hyperparameters", {"c_g": 1.0}, r"hyperparameter to be one of .*gat\.c_g.*: c_g"),
        ("grids", {"gat.c_g": (0.1, -1.0)}, r"gat\.c_g to be a finite number.*Received: -1"),
        ("grids", {"gat.cg": (0.1,)}, r"hyperparameter to be one of .*Received: gat\.cg"),
        ("seeds", (), "at least one value in seeds"),
        ("seeds", (-1,), "seeds to be a finite number.*Received: -1"),
        ("seeds", (2**31,), r"seeds to be .* in \[0, 2147483647\].*Received: 2147483648"),
        ("search_seed", -1, "search_seed to be a finite number.*Received: -1"),
        ("search_window", 0, "search_window to be a finite number"),
        ("precision", "half", "precision to be auto or a Keras dtype policy.*Received: half"),
        ("epochs", 0, "epochs to be a finite number in"),
        ("min_epochs", 0, "min_epochs to be a finite number in"),
    ],
)
def test_bad_configuration_is_named_before_anything_runs(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **{field: value})


def test_size_that_classes_cannot_share_is_named(tmp_path, monkeypatch):
    split = data.draw_shapes(100, 0)
    monkeypatch.setattr(data, "_load_tfds", lambda *_: (split, split))
    monkeypatch.setattr(data, "_VALIDATION", 50)
    config = dataclasses.replace(TINY, datasets=("cifar10",), train_size=33)
    with pytest.raises(ConfigError, match="same number of images"):
        table2.run(config, tmp_path)


def test_paper_preset_is_the_papers_setting():
    config = table2.PRESETS["paper"]
    assert config == table2.Config()
    assert config.datasets == ("cifar10", "cifar100")
    assert config.seeds == tuple(range(50))
    assert config.methods == PAPER_METHODS
    assert (config.learning_rate, config.width) == (1e-3, 1.0)
    assert (config.alpha, config.generator_steps, config.minibatches) == (0.5, 1, "separate")
    assert config.train_size is config.validation_size is config.test_size is None
    assert config.hyperparameters == config.grids == {}
    assert METHODS["gat"].hyperparameters["generator_learning_rate"].value == 1e-6
    trained = dataclasses.replace(config, width=1 / 12)
    values = {"c_g": 0.3, "generator_learning_rate": 1e-6}
    splits = data.Splits(*[linear_networks.two_halves(20, seed) for seed in range(3)], 10)
    trainee = METHODS["gat"].build(trained, values, splits, 0)
    assert trainee.draws == 1
    model = trainee.model
    assert float(model.generator_optimizer.learning_rate) == pytest.approx(1e-6)
    assert model.optimizer.epsilon == model.generator_optimizer.epsilon == 1e-8


@pytest.mark.parametrize("name", ["full", "reduced", "quick"])
def test_presets_change_what_their_settings_say_alone(name):
    preset, ours = table2.PRESETS[name], settings.PRESETS[name]
    changed = {
        f.name
        for f in dataclasses.fields(preset)
        if getattr(preset, f.name) != getattr(table2.PRESETS["paper"], f.name)
    }
    assert changed <= {*ours, "datasets", "seeds"}


# By hand.


def unit(method, seed, accuracy, seconds=1.0, **kwargs):
    return {
        "dataset": "cifar10",
        "method": method,
        "seed": seed,
        "status": "done",
        "reason": None,
        "test_accuracy": accuracy,
        "best_epoch": 10 + seed,
        "epochs": 20,
        "seconds_per_epoch": seconds,
        "hyperparameters": {},
        "history": {},
        **kwargs,
    }


FAILED = {"status": "failed", "reason": "nan"}


def test_summary_by_hand():
    units = [unit("fg_l2", s, a, 2.0) for s, a in enumerate((0.70, 0.72, 0.77))]
    powers = {"history": {"power": [0.1 * epoch for epoch in range(1, 21)]}}
    units += [unit("gat", 0, 0.8, 5.0, **powers), unit("gat", 1, None, **FAILED | powers)]
    units += [unit("gat", 2, 0.8, 5.0, **powers)]
    rows = table2.summarise(units)["cifar10"]
    assert list(rows) == ["fg_l2", "gat"]
    assert rows["fg_l2"]["accuracy_mean"] == pytest.approx(73)
    assert rows["fg_l2"]["accuracy_std"] == pytest.approx(np.sqrt((9 + 1 + 16) / 2))
    assert rows["fg_l2"]["best_epoch_mean"] == 11
    assert rows["gat"]["time_over_fg"] == 2.5
    assert rows["gat"]["accuracy_std"] == 0
    assert rows["gat"]["power_mean"] == pytest.approx((1.0 + 1.2) / 2)  # of epochs 10 and 12
    assert rows["fg_l2"]["power_mean"] is None
    assert rows["gat"]["failed"] == {"1": "nan"}


def units_of(**accuracies):
    return [
        unit(method, seed, accuracy / 100)
        for method, of_seeds in accuracies.items()
        for seed, accuracy in enumerate(of_seeds)
    ]


DECIDED = units_of(
    baseline=(77.5, 78.0, 77.5),
    gat=(80.0, 81.0, 81.0),
    dropout_gat=(80.1, 80.9, 81.0),
    pgd=(70.0, 70.9, 71.1),
)


def test_verdicts_by_hand():
    """Paired differences: 2.5, 3, 3.5; 0.1, -0.1, 0; 10, 10.1, 9.9.

    With two degrees of freedom p is 1 - t/√(2 + t²). Holm, of the paper's two: the smaller p by 2.
    """
    found = {v["claim"]: v for v in table2.verdicts(DECIDED)["cifar10"]}
    above = "Test accuracy: {} above {}"
    over_baseline, over_gat, over_pgd = (
        found[above.format(*pair)]
        for pair in (
            ("Adv. training (GAT)", "Baseline"),
            ("Dropout + GAT", "Adv. training (GAT)"),
            ("Adv. training (GAT)", "Adv. training (PGD)"),
        )
    )
    assert len(found) == 3
    assert [v["origin"] for v in (over_baseline, over_gat, over_pgd)] == [
        "paper",
        "paper",
        "beyond",
    ]
    assert [v["verdict"] for v in (over_baseline, over_gat, over_pgd)] == [
        "holds", "undecided", "holds",
    ]  # fmt: skip
    assert [v["mean"] for v in (over_baseline, over_gat, over_pgd)] == pytest.approx(
        [3, 0, 10], abs=1e-9
    )
    t = 3 / (0.5 / np.sqrt(3))
    assert over_baseline["p_holm"] == pytest.approx(2 * (1 - t / np.sqrt(2 + t**2)), rel=1e-4)


def test_a_sample_of_the_test_images_adds_its_error():
    """Of 98 of CIFAR-10's images, the fewest: with p = (98 accuracy + 1) / 100, 5.77 points."""
    units = [{**u, "test_images": 98 if u["method"] == "gat" else 9_800} for u in DECIDED]
    over_baseline = table2.verdicts(units)["cifar10"][0]
    p, q = 0.800533, 0.771133  # of 80.67 % and 77.67 %
    error = 100 * np.sqrt((p * (1 - p) + q * (1 - q)) * (1 - 0.0098) / 100)
    half = np.hypot(1.959964 * error, 4.302653 * 0.5 / np.sqrt(3))
    assert over_baseline["interval"] == pytest.approx([3 - half, 3 + half], rel=1e-4)


@pytest.mark.parametrize(
    ("dataset", "population"),
    [("cifar10", 10_000), ("cifar100", 10_000), ("imagenet143", 7_150), ("shapes", np.inf)],
)
def test_error_of_a_sample_falls_with_the_share_of_the_test_images(dataset, population):
    """98 wrong images count as 1 of 100 right, whose variance is 0.0099 / 100."""
    found = measuring.sampling_error(dataset, 98, [0.0], [0.0])
    assert found == pytest.approx(100 * np.sqrt(2 * 0.000099 * (1 - 98 / population)))


def test_seeds_that_not_both_have_or_that_failed_do_not_count():
    more = [unit("gat", 3, 0.01), unit("baseline", 4, 0.99), unit("gat", 4, None, **FAILED)]
    assert table2.verdicts(DECIDED + more) == table2.verdicts(DECIDED)


def test_networks_to_attack_from_are_not_in_the_table():
    """Fig. 4's other baselines, whose seeds begin at 100."""
    sources = [unit(m, 100 + s, 0.01) for m in ("baseline", "gat") for s in range(3)]
    assert table2.summarise(DECIDED + sources) == table2.summarise(DECIDED)
    assert table2.verdicts(DECIDED + sources) == table2.verdicts(DECIDED)
    assert table2.table({"units": DECIDED + sources}) == table2.table({"units": DECIDED})
    assert table2.summarise(sources) == {}
    assert table2.verdicts(sources) == {}
    assert table2.table({"units": sources}) == ""
    assert table2.figures({"units": sources}) == {}
    assert table2.summarise([unit("baseline", 99, 0.5)])["cifar10"]["baseline"]["seeds"] == [99]


def test_table_sets_the_paper_against_ours():
    units = [unit("baseline", s, a) for s, a in enumerate((0.5, 0.52))]
    power = {"power": [0.23456] * 20}
    units.append(unit("gat", 0, 0.6, 3.0, hyperparameters={"c_g": 0.3}, history=power))
    units.append(unit("fg_l2", 0, 0.55, 1.5))
    lines = table2.table({"units": units}).splitlines()

    def row(title):
        (found,) = (line for line in lines if line.startswith(f"| {title} |"))
        return found.strip("| ").split(" | ")

    assert row("Baseline")[1:4] == ["77.48 ± 0.46", "51.00 ± 1.41", "2"]
    assert row("Adv. training (GAT)")[1:] == [
        "80.33 ± 0.44", "60.00", "1", "0.235", "2.0", "10 / 20", "c_g 0.3",
    ]  # fmt: skip
    assert "| Dropout | 78.49 ± 0.64 |  | 0 |  |  |  |  |" in lines
    assert not any("PGD" in line for line in lines)  # nobody has trained it
    assert sum(line.startswith("| ") for line in lines) == 1 + 7 + 1 + 2  # and the verdicts


def trained(method, seed, accuracy, *validation):
    return unit(method, seed, accuracy, history={"validation_accuracy": list(validation)})


def test_figure_draws_gains_over_the_baseline():
    units = [
        trained("baseline", 0, 0.50, 0.3, 0.5),
        trained("baseline", 1, 0.54, 0.4, 0.5, 0.6),
        trained("gat", 0, 0.55, 0.5),
        trained("gat", 1, 0.57, 0.7),
        trained("gat", 100, 0.99, 0.99),
        trained("dropout", 0, None) | FAILED,
        trained("fg_l2", 1, 0.57, 0.5),
        trained("fg_l2", 2, 0.80, 0.5),  # without a baseline
    ]
    figures = table2.figures({"units": units})
    assert list(figures) == ["table2", "table2_training"]
    gains, curves = figures["table2"].axes
    names = [label.get_text() for label in gains.get_yticklabels()]
    assert names[0] == "Baseline\nours: 52.0 %"
    assert names[5] == "Adv. training (GAT)\nours: 56.0 %"
    assert names[1] == "Dropout"
    assert len(names) == 7
    assert gains.get_xlabel() == "gain over the same seeds' baseline, points"
    drawn = [
        (float(x), float(y))
        for line in gains.get_lines()
        for x, y in zip(np.ravel(line.get_xdata()), np.ravel(line.get_ydata()), strict=True)
        if np.isfinite([x, y]).all()
    ]
    points = {(round(x, 2), round(y)) for x, y in drawn}
    # Baselines at -2 and 2 points around their mean. Gains over the same seeds': of GAT 5 and 3, of
    # FG 3 alone. The paper's at 0, 2.85 and 0.51.
    of_row = {row: {x for x, y in points if y == row} for row in range(7)}
    assert {-2, 0, 2} <= of_row[0]
    assert {0.51, 3} <= of_row[4]
    assert not {5, 28} & of_row[4]  # over the mean of other baselines, and where there is none
    assert {2.85, 3, 4, 5} <= of_row[5]
    baseline, _, gat = (line for line in curves.get_lines() if len(line.get_xdata()))
    np.testing.assert_allclose(baseline.get_ydata(), [35, 50, 60])  # one seed goes on
    first_seed = figures["table2_training"].axes[0].get_lines()
    assert [line.get_color() for line in first_seed] == [baseline.get_color(), gat.get_color()]
    np.testing.assert_allclose(gat.get_ydata(), [60])
    assert baseline.get_label() == "Baseline"
    assert gat.get_label() == "Adv. training (GAT)"


# In processes of their own.

# Loads TensorFlow once, and forks before anything of it has started: {"arguments", "environment",
# "log", "linear"} in a line makes a process and gives its id, and an id its exit code.
FORKS = """
import gc, json, os, sys
import linear_networks
import tensorflow as tf
from gat_tf.experiments import methods, table2
from gat_tf.experiments.lab import flags, results
from gat_tf.training import gat
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # as conftest.py
gat._DRAW_IMAGES = 1_200
gc.collect()
gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if isinstance(order, int):
        print(os.waitstatus_to_exitcode(os.waitpid(order, 0)[1]), flush=True)
        continue
    if child := os.fork():
        print(child, flush=True)
        continue
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["environment"])
    if order["linear"]:
        tf.config.run_functions_eagerly(True)
        methods._classifier = linear_networks.linear_classifier
        results.draw = lambda *_: None
    sys.argv = ["table2", *order["arguments"]]
    flags.main(table2.Config, table2.PRESETS, table2.run, "table2")
"""
NAMES = ("train_size", "validation_size", "test_size", "width", "batch_size", "patience")
FLAGS = ["--preset=quick", *(f"--{name}={getattr(TINY, name)}" for name in NAMES)]
# Sums over threads may be in any order; on one they have but one.
ONE_CPU = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    """Returns two functions: (*flags, log, linear, **environment) -> process id, and id -> exit
    code."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    tests = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env={**os.environ, **ONE_CPU, "PYTHONPATH": tests},
    )  # fmt: skip
    assert server.stdout.readline() == "ready\n"
    logs = tmp_path_factory.mktemp("logs")
    numbers = itertools.count()

    def ask(order):
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    def start(*arguments, log=None, linear=False, **environment):
        log = str(log or logs / str(next(numbers)))
        arguments = [*FLAGS, *arguments]
        return ask(
            {"arguments": arguments, "environment": environment, "log": log, "linear": linear}
        )

    def wait(process):
        code = ask(process)
        assert code in (0, -signal.SIGKILL), [p.read_text()[-2000:] for p in logs.iterdir()]
        return code

    yield start, wait
    with server:  # closes what it reads and writes
        server.stdin.close()


def test_killed_at_any_moment_and_resumed_gives_the_same_weights(fork, tmp_path):
    """SIGKILL after the first checkpoint, against one uninterrupted run."""
    start, wait = fork
    arguments = ["--methods=dropout_gat", "--epochs=5", "--minibatches=separate"]
    straight = start(*arguments, f"--output_dir={tmp_path / 'straight'}")
    again = [*arguments, f"--output_dir={tmp_path / 'killed'}"]
    killed = start(*again)
    units = tmp_path / "killed" / "units"
    deadline = time.monotonic() + 240
    while not list(units.glob("*.checkpoints/checkpoint-*")):
        time.sleep(0.005)
        assert time.monotonic() < deadline
    time.sleep(0.05)  # somewhere in the next epoch
    os.kill(killed, signal.SIGKILL)
    assert wait(killed) == -signal.SIGKILL
    assert wait(start(*again)) == 0
    assert wait(straight) == 0
    name = "shapes-dropout_gat-seed0"
    ours, theirs = (weights(tmp_path / folder, name) for folder in ("killed", "straight"))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    ours, theirs = (
        files.read_json(tmp_path / folder / "units" / f"{name}.json")
        for folder in ("killed", "straight")
    )
    assert ours["history"] == theirs["history"]
    assert not list(units.glob("*.checkpoints"))


@pytest.mark.slow
def test_four_processes_of_which_two_are_killed_do_the_work_of_one(fork, tmp_path):
    """With the search; every training that comes to its end says so in a line."""
    start, wait = fork
    rng = np.random.default_rng()
    grids = "dropout.rate=0.05:0.1,fg_l2.epsilon=0.2:0.5,gat.c_g=0.1:0.3"
    arguments = [
        "--search", f"--grids={grids},gat.generator_learning_rate=1e-4,dropout_gat.rate=0.05",
        "--methods=baseline,dropout,fg_l2,gat,dropout_gat", "--search_extensions=0",
        "--epochs=3", "--search_epochs=3", "--search_window=1", "--strategy=one_device",
        "--batch_size=50",
    ]  # fmt: skip

    def begun(folder, name):
        output = f"--output_dir={tmp_path / folder}"
        return start(*arguments, output, log=tmp_path / f"{folder}-{name}.log", linear=True)

    def done(folder):
        return {p.relative_to(tmp_path / folder) for p in tmp_path.glob(f"{folder}/*/*.json")}

    four = [begun("four", name) for name in range(4)]
    for killed, at in zip(four[:2], sorted(rng.integers(0, 6, 2)), strict=True):
        deadline = time.monotonic() + 240
        while len(done("four")) < at or not list((tmp_path / "four").glob("*/*.checkpoints")):
            time.sleep(0.01)
            assert time.monotonic() < deadline
        time.sleep(rng.uniform(0, 0.2))
        os.kill(killed, signal.SIGKILL)
    assert [wait(process) for process in four] == [-signal.SIGKILL] * 2 + [0] * 2
    assert wait(begun("one", "alone")) == 0
    assert done("four") == done("one")
    assert len(done("one")) == 7 + 5  # trials and networks
    for folder in ("four", "one"):
        ended = [line for log in tmp_path.glob(f"{folder}-*.log")
                 for line in log.read_text().splitlines() if line.endswith(", done")]  # fmt: skip
        assert len(ended) == 7 + 5, ended
    for name in done("one"):
        ours, theirs = (files.read_json(tmp_path / folder / name) for folder in ("four", "one"))
        for field in ("hyperparameters", "history", "best_epoch", "validation_accuracy"):
            assert ours[field] == theirs[field], name
        assert ours.get("test_accuracy") == theirs.get("test_accuracy")
    ours, theirs = (
        files.read_json(tmp_path / folder / "results.json") for folder in ("four", "one")
    )
    assert ours["verdicts"] == theirs["verdicts"]
    assert not list((tmp_path / "four").glob("*/*.checkpoints"))


@pytest.mark.usefixtures("compiled")
def test_two_workers_give_the_weights_of_one_process(fork, tmp_path, undrawn):
    start, wait = fork
    methods_of_both = ("baseline", "fg_l2")
    arguments = [f"--methods={','.join(methods_of_both)}", "--epochs=2", "--strategy=multi_worker"]
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{s.getsockname()[1]}" for s in (a, b)]
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        output = f"--output_dir={tmp_path / 'two'}"
        processes.append(start(*arguments, output, TF_CONFIG=json.dumps(task)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "_classifier", REAL)
        table2.run(dataclasses.replace(TINY, methods=methods_of_both), tmp_path / "one")
    assert [wait(process) for process in processes] == [0, 0]
    for method in methods_of_both:
        name = f"shapes-{method}-seed0"
        ours, theirs = (weights(tmp_path / folder, name) for folder in ("two", "one"))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    assert (tmp_path / "two" / "results.json").exists()


REAL = methods._classifier
