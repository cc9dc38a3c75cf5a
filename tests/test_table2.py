"""The Table 2 runner, end to end on tiny configurations."""

import dataclasses
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from gat_tf.experiments.config import ConfigError
from linear_table2 import TABLE2

from gat_tf import data
from gat_tf.experiments import config as configs
from gat_tf.experiments import devices, files, table2
from gat_tf.experiments.reports import common as reports
from gat_tf.experiments.reports import table2 as report

TINY = dataclasses.replace(TABLE2, strategy="one_device")
FLAGS = [
    f"--{name}={getattr(TINY, name)}"
    for name in ("train_size", "validation_size", "test_size", "width", "batch_size", "patience")
]


def command(*arguments):
    return [
        sys.executable,
        "-m",
        "gat_tf.experiments.table2",
        "--preset=quick",
        *FLAGS,
        *map(str, arguments),
    ]


def run_process(*arguments, **kwargs):
    """The runner as a user starts it; returns the finished process."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, **kwargs)


# Sums over threads may be in any order; on one they have but one.
ONE_CPU = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}


def weights(folder, name):
    model = keras.models.load_model(folder / "units" / f"{name}.keras")
    return model.get_weights()


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All seven methods, two seeds of the baseline's shard, in one run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, table2.run(TINY, folder)


def test_every_method_of_table_2_is_there(whole):
    folder, results = whole
    assert list(results["summary"]["shapes"]) == list(table2.METHODS)
    assert len(table2.METHODS) == 7
    assert {u["status"] for u in results["units"]} == {"done"}
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))


def test_results_tell_what_they_were_made_with(whole):
    folder, results = whole
    assert results["config"]["epochs"] == 2
    assert results["environment"]["versions"]["keras"] == keras.__version__
    assert results["environment"]["devices"]
    for unit in results["units"]:
        assert unit["epochs"] == 2
        assert len(unit["history"]["loss"]) == 2
        assert 1 <= unit["best_epoch"] <= 2
        accuracies = unit["history"]["validation_accuracy"]
        assert unit["validation_accuracy"] == pytest.approx(max(accuracies), abs=1e-5)
        assert np.argmax(accuracies) + 1 == unit["best_epoch"]
    assert (folder / "table2.png").stat().st_size > 10_000
    assert (folder / "table2.pdf").read_bytes().startswith(b"%PDF")


def test_saved_classifier_has_the_recorded_accuracy(whole):
    folder, results = whole
    test = data.load("shapes", train_size=100, validation_size=50, test_size=50).test
    for unit in results["units"]:
        name = f"shapes-{unit['method']}-seed{unit['seed']}"
        model = keras.models.load_model(folder / "units" / f"{name}.keras")
        predicted = model.predict(test.images / np.float32(255), verbose=0).argmax(-1)
        assert (predicted == test.labels).mean() == pytest.approx(unit["test_accuracy"])


def test_same_seed_starts_methods_from_the_same_weights():
    first = {}
    for method in ("baseline", "random", "fg_linf", "fg_l2", "gat"):  # dropout draws seeds too
        keras.utils.set_random_seed(7)
        _, classifier, _ = table2.build(TINY, method, 10, 7)
        first[method] = classifier.get_weights()
    for method, ours in first.items():
        assert same(ours, first["baseline"]), method


def test_a_finished_unit_is_not_computed_twice(whole):
    folder, _ = whole
    before = {p: p.stat().st_mtime_ns for p in (folder / "units").iterdir()}
    table2.run(TINY, folder)
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "units").iterdir()}


def test_shards_merge_to_the_whole(whole, tmp_path):
    _, results = whole
    for methods in (("random",), ("baseline", "gat")):
        merged = table2.run(dataclasses.replace(TINY, methods=methods), tmp_path)
    rows = merged["summary"]["shapes"]
    assert list(rows) == ["baseline", "random", "gat"]
    for method, row in rows.items():
        assert row["accuracy_mean"] == results["summary"]["shapes"][method]["accuracy_mean"]
    histories = {u["method"]: u["history"] for u in results["units"]}
    assert all(u["history"] == histories[u["method"]] for u in merged["units"])


def test_killed_at_any_moment_and_resumed_gives_the_same_weights(tmp_path):
    """SIGKILL after the first checkpoint, and again later, against one uninterrupted run."""
    arguments = ["--methods=dropout_gat", "--epochs=5", "--minibatches=separate"]
    straight = run_process(*arguments, f"--output_dir={tmp_path / 'straight'}", env=ONE_CPU)
    assert straight.returncode == 0, straight.stderr
    killed = 0
    for wanted in itertools.count(1):
        process = subprocess.Popen(
            command(*arguments, f"--output_dir={tmp_path / 'killed'}"),
            env=ONE_CPU,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        units = tmp_path / "killed" / "units"
        while process.poll() is None:
            reached = [int(p.name[-4:]) for p in units.glob("*.checkpoints/checkpoint-*")]
            if killed < 2 and any(epoch >= wanted for epoch in reached):
                time.sleep(0.05 * wanted)  # somewhere in the next epoch
                process.send_signal(signal.SIGKILL)
                killed += 1
                process.wait()
            time.sleep(0.005)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert killed == 2
    ours, theirs = (
        weights(tmp_path / folder, "shapes-dropout_gat-seed0") for folder in ("killed", "straight")
    )
    assert same(ours, theirs)
    histories = [
        [u["history"] for u in reports.read_all(tmp_path / folder / "units")]
        for folder in ("killed", "straight")
    ]
    assert histories[0] == histories[1]
    assert not list(units.glob("*.checkpoints"))


def test_mirrored_replicas_give_the_weights_of_one_device(whole, tmp_path):
    folder, _ = whole
    config = dataclasses.replace(TINY, methods=("fg_l2", "gat"), strategy="mirrored")
    assert devices.strategy("mirrored").num_replicas_in_sync == 2
    table2.run(config, tmp_path)
    for name in ("shapes-fg_l2-seed0", "shapes-gat-seed0"):
        for a, b in zip(weights(folder, name), weights(tmp_path, name), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_search_picks_the_best_trial_and_records_all(tmp_path):
    config = dataclasses.replace(
        TINY,
        methods=("fg_l2", "dropout_gat"),
        search=True,
        search_epochs=2,
        l2_epsilon_grid=(0.1, 0.5),
        c_g_grid=(0.1, 1.0),
        generator_learning_rate_grid=(TINY.generator_learning_rate, 1e-2),
        dropout_grid=(0.1, 0.3),
    )
    results = table2.run(config, tmp_path)
    # FG; GAT's c_g, then the learning rate not yet tried at that c_g; then dropout with both.
    assert len(results["trials"]) == 2 + (2 + 1) + 2
    assert all("test_accuracy" not in trial for trial in results["trials"])
    assert {trial["seed"] for trial in results["trials"]} == {config.search_seed}

    def best(method):
        trials = [t for t in results["trials"] if t["method"] == method]
        trials.sort(key=lambda t: len(t["hyperparameters"]))  # of equals the one tried first
        return max(trials, key=lambda t: t["validation_accuracy"])["hyperparameters"]

    chosen = {u["method"]: u["hyperparameters"] for u in results["units"]}
    assert chosen["fg_l2"] == best("fg_l2")
    assert chosen["dropout_gat"] == best("dropout_gat")
    own = {"c_g": config.c_g, "generator_learning_rate": config.generator_learning_rate}
    gat = own | best("gat")
    assert {name: chosen["dropout_gat"][name] for name in gat} == gat
    rate = [t for t in results["trials"] if 1e-2 in t["hyperparameters"].values()]
    assert rate[0]["hyperparameters"].keys() == {"c_g", "generator_learning_rate"}


def test_diverging_unit_is_recorded_and_the_others_go_on(tmp_path, capsys):
    config = dataclasses.replace(TINY, methods=("baseline", "fg_l2"), learning_rate=1e30)
    results = table2.run(config, tmp_path)
    for unit in results["units"]:
        assert unit["status"] == "failed"
        assert re.match(r"The loss became (nan|inf) in epoch \d", unit["reason"])
        assert "test_accuracy" not in unit
    assert "diverged" in (tmp_path / "table2.md").read_text()
    assert len(results["units"]) == 2
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)


def test_folder_of_another_configuration_is_left_alone(whole):
    folder, _ = whole
    before = (folder / "results.json").read_bytes()
    with pytest.raises(ConfigError, match=r"another configuration.*epochs: 2 there, 3 here"):
        table2.run(dataclasses.replace(TINY, epochs=3), folder)
    assert (folder / "results.json").read_bytes() == before


def test_truncated_unit_is_named_and_loses_nothing(tmp_path):
    config = dataclasses.replace(TINY, methods=("baseline", "dropout"), epochs=1)
    table2.run(config, tmp_path)
    broken = tmp_path / "units" / "shapes-dropout-seed0.json"
    broken.write_text(broken.read_text()[:100])
    other = (tmp_path / "units" / "shapes-baseline-seed0.json").read_bytes()
    with pytest.raises(files.BrokenFileError, match=r"shapes-dropout-seed0\.json.*truncated"):
        table2.run(config, tmp_path)
    assert (tmp_path / "units" / "shapes-baseline-seed0.json").read_bytes() == other
    broken.unlink()
    assert len(table2.run(config, tmp_path)["units"]) == 2


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        table2.run(TINY, tmp_path / "file" / "results")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("methods", ("gta",), "method to be one of baseline, .*Received: gta"),
        ("datasets", ("cifar",), "data set to be one of cifar10, .*Received: cifar"),
        ("strategy", "tpu", "strategy to be one of mirrored, .*Received: tpu"),
        ("minibatches", "both", "minibatches to be one of separate, shared.*Received: both"),
        ("alpha", 1.5, r"alpha to be a finite number in \[0, 1\]. Received: 1.5"),
        ("alpha", float("nan"), "alpha to be a finite number.*Received: nan"),
        ("c_g", -1.0, "c_g to be a finite number.*Received: -1"),
        ("fg_l2_epsilon", -0.1, "fg_l2_epsilon to be a finite number.*Received: -0.1"),
        ("dropout", 1.0, "dropout to be a finite number.*Received: 1.0"),
        ("seeds", (), "seeds of at least 0"),
        ("seeds", (-1,), "seeds of at least 0"),
        ("seeds", (2**31,), "seeds of at least 0 and below"),
        ("search_seed", -1, "seeds of at least 0"),
        ("c_g_grid", (0.1, -1.0), "c_g_grid to be a finite number.*Received: -1"),
        ("precision", "half", "precision to be a Keras dtype policy.*Received: half"),
        ("epochs", 0, "epochs to be a finite number in"),
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


def test_command_line_errors_are_one_line(tmp_path):
    process = run_process("--methods=gta", f"--output_dir={tmp_path}")
    assert process.returncode == 1
    assert process.stderr.strip().splitlines()[-1].startswith("Error: Expected method to be one of")
    assert "Traceback" not in process.stderr


def test_help_lists_presets_and_every_field():
    process = subprocess.run(
        [sys.executable, "-m", "gat_tf.experiments.table2", "--help"],
        capture_output=True,
        text=True,
    )
    for field in dataclasses.fields(table2.Config):
        assert re.search(rf"--(\[no\])?{field.name}\b", process.stdout), field.name
    assert "<paper|reduced|quick>" in process.stdout
    for meaning in table2.Config.PRESETS.values():
        assert meaning.split(",")[0] in " ".join(process.stdout.split())
    assert set(table2.PRESETS) == set(table2.Config.PRESETS)


def test_paper_preset_is_the_papers_setting():
    config = table2.PRESETS["paper"]
    assert config == table2.Config()
    assert config.datasets == ("cifar10", "cifar100")
    assert config.seeds == tuple(range(50))
    assert (config.learning_rate, config.generator_learning_rate) == (1e-3, 1e-6)
    assert (config.alpha, config.generator_steps, config.minibatches) == (0.5, 1, "separate")
    assert config.width == 1.0
    assert config.train_size is config.validation_size is config.test_size is None
    model, _, draws = table2.build(config, "gat", 10, 0)
    assert draws == 1
    assert float(model.generator_optimizer.learning_rate) == pytest.approx(1e-6)
    assert model.optimizer.epsilon == model.generator_optimizer.epsilon == 1e-8


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (tuple[int, ...], "0:3,7", (0, 1, 2, 7)),
        (tuple[str, ...], "gat, dropout", ("gat", "dropout")),
        (tuple[float, ...], "1/2,0.25", (0.5, 0.25)),
        (float, "1/3", 1 / 3),
        (int | None, "none", None),
        (int | None, "5", 5),
        (bool | None, "true", True),
        (bool | None, "false", False),
    ],
)
def test_flags_understand(kind, text, value):
    assert configs._Parser(kind).parse(text) == value


@pytest.mark.parametrize(
    ("kind", "text"), [(int, "x"), (float, "1/0"), (bool | None, "maybe"), (tuple[int, ...], "1:")]
)
def test_flags_refuse(kind, text):
    with pytest.raises(ValueError, match="expected"):
        configs._Parser(kind).parse(text)


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
        **kwargs,
    }


def test_summary_by_hand():
    units = [unit("fg_l2", s, a, 2.0) for s, a in enumerate((0.70, 0.72, 0.77))]
    units += [unit("gat", 0, 0.8, 5.0), unit("gat", 1, None, status="failed", reason="nan")]
    rows = report.summarise(units)["cifar10"]
    assert list(rows) == ["fg_l2", "gat"]
    assert rows["fg_l2"]["accuracy_mean"] == pytest.approx(73)
    assert rows["fg_l2"]["accuracy_std"] == pytest.approx(np.sqrt((9 + 1 + 16) / 2))
    assert rows["fg_l2"]["best_epoch_mean"] == 11
    assert rows["gat"]["time_over_fg"] == 2.5
    assert rows["gat"]["accuracy_std"] is None
    assert rows["gat"]["failed"] == {"1": "nan"}


def test_table_sets_the_paper_against_ours():
    units = [unit("baseline", s, a) for s, a in enumerate((0.5, 0.52))]
    lines = report.markdown(units).splitlines()
    row = next(line for line in lines if line.startswith("| Baseline"))
    assert row.split(" | ")[1:4] == ["77.48 ± 0.46", "51.00 ± 1.41", "2"]
    assert sum(line.startswith("| ") for line in lines) == 1 + 7


def test_two_workers_give_the_weights_of_one_process(whole, tmp_path):
    arguments = ["--methods=gat", "--epochs=2", "--strategy=multi_worker"]
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{s.getsockname()[1]}" for s in (a, b)]
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                command(*arguments, f"--output_dir={tmp_path / 'two'}"),
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [p.returncode for p in processes] == [0, 0], "\n".join(outputs)
    ours, theirs = (weights(folder, "shapes-gat-seed0") for folder in (tmp_path / "two", whole[0]))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert pathlib.Path(tmp_path / "two" / "results.json").exists()
