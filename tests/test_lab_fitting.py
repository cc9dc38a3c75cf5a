"""Training to the best epoch, with scores that the tests dictate."""

import contextlib
import dataclasses
import itertools
import random
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf import data
from gat_tf.experiments.lab import checkpoints, devices, files, fitting
from gat_tf.experiments.lab.units import Units

pytestmark = pytest.mark.usefixtures("eagerly")
SPLIT = data.Split(
    np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8), np.arange(20) % 3
)
STEPS = 3  # of 8, 8 and 4 images


class Trainee:
    """A small network with dropout, always the same, whose validation scores are given."""

    def __init__(self, scores, epochs=None, **settings):
        keras.utils.set_random_seed(5)
        self.network = keras.Sequential(
            [
                keras.Input((4, 4, 3)),
                keras.layers.Flatten(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(3, "softmax"),
            ]
        )
        adam = keras.optimizers.Adam(1e-2)
        self.network.compile(adam, "sparse_categorical_crossentropy")
        adam.build(self.network.trainable_variables)
        self.weights = {}  # after each epoch
        self.first_epochs = []

        def batches(first_epoch):
            self.first_epochs.append(first_epoch)
            return fitting.training_data(SPLIT, 8, seed=1, first_epoch=first_epoch)

        def validate():
            epoch = int(adam.iterations) // STEPS
            self.weights[epoch] = [w.copy() for w in self.network.get_weights()]
            return scores[epoch - 1], {"validation_accuracy": scores[epoch - 1]}

        self.training = fitting.Training(
            self.network, self.network, batches, validate, STEPS,
            epochs=len(scores) if epochs is None else epochs,
            **{"patience": 99, **settings},
        )  # fmt: skip

    def fit(self, folder, stop_after=None, report=lambda line: None, about=None):
        if stop_after is not None:
            stop = keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: self._stop() if epoch == stop_after else None
            )
            self.training = dataclasses.replace(self.training, callbacks=[stop])
        return fitting.fit_to_best(self.training, about or {}, 7, folder, report)

    def _stop(self):
        raise KeyboardInterrupt


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_first_of_equal_best_epochs_is_kept(tmp_path):
    trainee = Trainee((0.3, 0.5, 0.5, 0.4))
    progress = trainee.fit(tmp_path)
    assert (progress.epochs, progress.best_epoch, progress.best_score) == (4, 2, 0.5)
    assert not same(trainee.weights[2], trainee.weights[3])
    assert same(trainee.network.get_weights(), trainee.weights[2])
    assert progress.history["validation_accuracy"] == [0.3, 0.5, 0.5, 0.4]
    assert len(progress.history["loss"]) == len(progress.seconds) == 4


@pytest.mark.parametrize(
    ("patience", "min_epochs", "epochs"),
    [(1, 1, 3), (3, 1, 5), (3, 5, 5), (3, 7, 7), (99, 1, 8), (1, 99, 8)],
)
def test_training_stops_after_as_many_epochs_without_a_better_one(
    tmp_path, patience, min_epochs, epochs
):
    trainee = Trainee((0.3, 0.5, 0.5, 0.4, 0.1, 0.5, 0.2, 0.2), patience=patience,
                      min_epochs=min_epochs)  # fmt: skip
    progress = trainee.fit(tmp_path)
    assert (progress.epochs, progress.best_epoch) == (epochs, 2)
    assert same(trainee.network.get_weights(), trainee.weights[2])
    # A run that was killed after its last epoch trains no further.
    again = Trainee([0.9] * 8, patience=patience, min_epochs=min_epochs)
    assert again.fit(tmp_path).epochs == epochs
    assert again.first_epochs == []
    assert same(again.network.get_weights(), trainee.weights[2])


def test_a_better_epoch_late_counts_from_there(tmp_path):
    progress = Trainee((0.3, 0.2, 0.4, 0.1, 0.1, 0.9), patience=2).fit(tmp_path)
    assert (progress.epochs, progress.best_epoch) == (5, 3)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_ends_the_training(tmp_path, score):
    trainee = Trainee((0.3, 0.2, score, 0.9))
    progress = trainee.fit(tmp_path)
    assert (progress.epochs, progress.best_epoch) == (3, 1)
    assert progress.failure == f"The validation score became {score} in epoch 3."
    # Also for a run that continues.
    assert Trainee((0.3, 0.2, 0.9, 0.9)).fit(tmp_path).failure == progress.failure


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    trainee = Trainee((0.3, 0.4, 0.5))
    images, labels = SPLIT.images / np.float32(255), SPLIT.labels
    good = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    bad = good.map(lambda x, y: (x + float("nan"), y))
    batches = good.concatenate(bad).repeat()
    trainee.training = dataclasses.replace(trainee.training, batches=lambda _: batches)
    progress = trainee.fit(tmp_path)
    assert (progress.epochs, progress.best_epoch) == (2, 1)
    assert progress.failure == "The loss became nan in epoch 2."
    assert same(trainee.network.get_weights(), trainee.weights[1])


SCORES = (0.1, 0.2, 0.3, 0.1, 0.2, 0.25)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A training that was not interrupted."""
    trainee = Trainee(SCORES)
    progress = trainee.fit(tmp_path_factory.mktemp("straight"))
    return trainee, progress


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of one that was killed after its third epoch, which was the best."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        Trainee(SCORES).fit(folder, stop_after=3)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "cut progress": lambda c: cut(c / "progress.json"),
    "no progress": lambda c: (c / "progress.json").unlink(),
    "of another version": lambda c: files.write_json(c / "progress.json", {"progress": {"x": 1}}),
    "flipped byte": lambda c: flip(c / "model.weights.h5"),
    "no weights": lambda c: (c / "model.weights.h5").unlink(),
    "flipped byte of the best": lambda c: flip(c.parent / "best-0003.weights.h5"),
    "no best": lambda c: (c.parent / "best-0003.weights.h5").unlink(),
}


def test_two_checkpoints_are_kept_with_their_best_weights(stopped):
    names = {p.name for p in stopped.iterdir()}
    assert names == {"checkpoint-0002", "checkpoint-0003", "best-0002.weights.h5",
                     "best-0003.weights.h5"}  # fmt: skip


def test_best_weights_that_no_checkpoint_needs_go(tmp_path):
    Trainee((0.1, 0.9, 0.2, 0.3, 0.4)).fit(tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"checkpoint-0004", "checkpoint-0005", "best-0002.weights.h5"}


def resumed(straight, folder, *, from_epoch, damaged):
    """Continues in a folder and checks that the end is the uninterrupted one's."""
    lines = []
    trainee = Trainee(SCORES)
    progress = trainee.fit(folder, report=lines.append)
    assert trainee.first_epochs == [from_epoch]
    assert [line for line in lines if "is damaged" in line] == [
        f"{folder / name} is damaged: continuing from what was before it." for name in damaged
    ]
    theirs, expected = straight
    assert same(trainee.network.get_weights(), theirs.network.get_weights())
    assert same(trainee.weights[6], theirs.weights[6])
    assert progress.history == expected.history
    assert (progress.epochs, progress.best_epoch) == (6, 3)
    assert len(progress.seconds) == 6


@pytest.mark.slow
def test_killed_training_ends_as_one_that_was_not_interrupted(straight, stopped, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "copy")
    resumed(straight, folder, from_epoch=3, damaged=[])


@pytest.mark.parametrize("damage", DAMAGES)
def test_older_checkpoint_serves_where_the_newer_is_damaged(straight, stopped, tmp_path, damage):
    folder = shutil.copytree(stopped, tmp_path / "copy")
    DAMAGES[damage](folder / "checkpoint-0003")
    resumed(straight, folder, from_epoch=2, damaged=["checkpoint-0003"])


@pytest.mark.parametrize("damage", ["cut progress", "flipped byte"])
def test_training_starts_anew_where_all_checkpoints_are_damaged(
    straight, stopped, tmp_path, damage
):
    folder = shutil.copytree(stopped, tmp_path / "copy")
    for name in ("checkpoint-0002", "checkpoint-0003"):
        DAMAGES[damage](folder / name)
    resumed(straight, folder, from_epoch=0, damaged=["checkpoint-0003", "checkpoint-0002"])


def test_new_training_that_is_killed_again_goes_on_beside_what_was_damaged(
    straight, stopped, tmp_path
):
    """What was damaged has higher numbers than the checkpoints that follow."""
    folder = shutil.copytree(stopped, tmp_path / "copy")
    for name in ("checkpoint-0002", "checkpoint-0003"):
        cut(folder / name / "progress.json")
    with pytest.raises(KeyboardInterrupt):
        Trainee(SCORES).fit(folder, stop_after=1)
    resumed(straight, folder, from_epoch=1, damaged=[])


@pytest.mark.parametrize("network", ["b0", "b1"])
def test_checkpoint_of_another_network_is_not_continued(straight, tmp_path, network):
    """A training whose results would name a network that half of it has not seen."""
    about = {"seed": 0, "classifiers": {"baseline": "b0"}, "c_g": (1, 2)}
    with pytest.raises(KeyboardInterrupt):
        Trainee(SCORES).fit(tmp_path, stop_after=3, about=about)
    lines = []
    trainee = Trainee(SCORES)
    now = {**about, "classifiers": {"baseline": network}}
    progress = trainee.fit(tmp_path, report=lines.append, about=now)
    assert trainee.first_epochs == [3 if network == "b0" else 0]
    assert [line for line in lines if "continuing" in line] == [
        f"{tmp_path / name} is of other networks or settings: continuing from what was before it."
        for name in (("checkpoint-0003", "checkpoint-0002") if network == "b1" else ())
    ]
    assert progress.history == straight[1].history


def test_every_environment_that_a_training_ran_in_is_kept(tmp_path, monkeypatch):
    def stop(epoch, device):
        monkeypatch.setattr(devices, "environment", lambda: {"devices": [device]})
        with pytest.raises(KeyboardInterrupt) if epoch else contextlib.nullcontext():
            return Trainee(SCORES).fit(tmp_path, stop_after=epoch)

    stop(1, "a")
    stop(2, "a")
    stop(3, "b")
    progress = stop(None, "a")
    assert [e["devices"] for e in progress.environments] == [["a"], ["b"], ["a"]]


def test_checkpoint_that_was_being_written_is_not_looked_at(straight, stopped, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "copy")
    (folder / ".0123-checkpoint-0004").mkdir()
    resumed(straight, folder, from_epoch=3, damaged=[])


@pytest.mark.parametrize("killed", [False, True])
def test_a_worker_that_is_not_the_chief_leaves_nothing_behind(tmp_path, monkeypatch, killed):
    """It writes its checkpoints, as all have to, into a folder of its own."""
    monkeypatch.setattr(devices, "is_chief", lambda: False)
    monkeypatch.setattr(fitting.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    seen = []

    def report(line):
        seen.extend(tmp_path.glob("temporary/*/checkpoint-*"))
        if killed:
            raise KeyboardInterrupt

    trainee = Trainee((0.25, 0.5, 0.4))
    with pytest.raises(KeyboardInterrupt) if killed else contextlib.nullcontext():
        trainee.fit(tmp_path / "shared", report=report)
        assert same(trainee.network.get_weights(), trainee.weights[2])  # of the best epoch
    assert seen
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "shared").exists()


def test_report_tells_how_long_it_may_take(tmp_path, monkeypatch):
    """With 2 s for an epoch: at least until patience ends, at most all epochs."""
    monkeypatch.setattr(fitting, "_REPORT_SECONDS", 0)
    clock = itertools.count(step=2.0)
    monkeypatch.setattr(fitting.time, "perf_counter", lambda: next(clock))
    lines = []
    Trainee((0.5, 0.4, 0.3, 0.2), epochs=100, patience=3).fit(tmp_path, report=lines.append)
    assert lines[1] == (
        "epoch 2/100, validation accuracy 0.4 (best epoch 1), 2.0 s/epoch, 4 s to 3 min left"
    )
    assert lines[-1].endswith("done")
    assert len(lines) == 4
    lines.clear()  # where patience cannot end it sooner there is one time, not two
    Trainee((0.5, 0.4, 0.3), epochs=3, patience=3).fit(tmp_path / "b", report=lines.append)
    assert lines[1].endswith("2.0 s/epoch, 2 s left")


def test_seconds_per_epoch_leave_out_the_first_which_compiles():
    progress = checkpoints.Progress(seconds=[60.0, 2.0, 3.0, 9.0])
    assert progress.seconds_per_epoch == 3.0
    assert checkpoints.Progress(seconds=[60.0]).seconds_per_epoch == 60.0
    assert checkpoints.Progress().seconds_per_epoch == 0.0


def test_batches_go_on_as_if_there_had_been_no_interruption():
    def labels(first_epoch, count):
        dataset = fitting.training_data(SPLIT, 8, seed=1, first_epoch=first_epoch, draws=1)
        return [(y.numpy().tolist(), z.numpy().tolist()) for (_, y), ((_, z),) in
                dataset.take(count)]  # fmt: skip

    straight = labels(0, 3 * STEPS)
    assert labels(2, STEPS) == straight[2 * STEPS :]
    assert straight[:STEPS] != straight[STEPS : 2 * STEPS]
    assert all(own != drawn for own, drawn in straight)  # the generator's are its own


def finished(tmp_path, scores):
    units = Units(tmp_path / "units")
    trainee = {}

    def prepare():
        trainee["drawn"] = random.random()
        trainee["it"] = Trainee(scores)
        trainee["precision"] = keras.config.dtype_policy().name
        return trainee["it"].training, finish

    def finish(progress):
        trainee["at the end"] = keras.config.dtype_policy().name
        return {"more": progress.epochs}, {units.path("a", ".keras"): trainee["it"].network}

    def task():
        about = {"dataset": "shapes", "seed": 3}
        return fitting.trained(units, "a", about, prepare, seed=3, precision="mixed_bfloat16")

    return units.complete({"a": task})["a"], trainee, units


@pytest.mark.slow
def test_unit_of_a_training_says_what_has_come_of_it(tmp_path, capsys):
    unit, trainee, units = finished(tmp_path, (0.25, 0.5, float("nan")))
    assert (unit["dataset"], unit["seed"], unit["more"]) == ("shapes", 3, 3)
    assert trainee["drawn"] == random.Random(3).random()  # under the seed
    assert unit["precision"] == trainee["precision"] == "mixed_bfloat16"
    assert trainee["at the end"] == keras.config.dtype_policy().name == "float32"
    assert (unit["status"], unit["best_epoch"], unit["epochs"]) == ("failed", 2, 3)
    assert unit["reason"] == "The validation score became nan in epoch 3."
    assert unit["history"]["validation_accuracy"] == [0.25, 0.5, None]  # as JSON has it
    assert unit["environment"] == devices.environment()
    assert unit["earlier_environments"] == []
    assert {p.name for p in units.folder.iterdir()} == {"a.json", "a.keras", ".locks"}
    weights = keras.models.load_model(units.path("a", ".keras")).get_weights()
    assert same(weights, trainee["it"].weights[2])
    assert "shapes 3: epoch 3/3" in capsys.readouterr().out


@pytest.mark.slow
def test_unit_is_written_after_its_network(tmp_path, monkeypatch):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path, (0.25, 0.5))
    assert Units(tmp_path / "units").names() == []
    monkeypatch.undo()
    _, again, units = finished(tmp_path, (0.25, 0.5))
    assert again["it"].first_epochs == []  # what was trained is not trained again
    assert units.path("a", ".keras").exists()


def test_full_disk_is_named_before_the_weights_are_written(tmp_path, monkeypatch):
    """HDF5 ends the process where a disk runs full."""
    trainee = Trainee(SCORES)
    needed = []

    def full(folder, size):
        needed.append(size)
        raise files.FullDiskError("The disk is full")

    monkeypatch.setattr(files, "require_space", full)
    with pytest.raises(files.FullDiskError):
        trainee.fit(tmp_path)
    assert needed[0] > 3 * 4 * trainee.network.count_params()
    assert not list(tmp_path.iterdir())
