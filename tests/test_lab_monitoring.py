"""What a person sees of a training: a bar in a terminal, events for TensorBoard."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from gat_tf.experiments.lab import fitting, monitoring
from gat_tf.experiments.lab.config import ConfigError

X, Y = np.arange(6.0)[:, None], np.arange(6.0)[:, None]


def training(epochs=3):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3).repeat()
    scores = iter(range(epochs))

    def validate():
        score = float(next(scores))
        return score, {"validation_accuracy": score}

    return fitting.Training(model, model, lambda epoch: data, validate, 2, epochs, epochs)


def test_bar_counts_all_steps_of_a_training_and_shows_its_validation(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert monitoring.in_terminal()
    (bar,) = monitoring.callbacks(None, 6)
    run = training()
    seen = []
    monkeypatch.setattr(bar._bar, "update", lambda *args, **how: seen.append((*args, how)))
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(validation_accuracy=epoch / 4)
    )
    data = run.batches(0)
    run.model.fit(
        data, steps_per_epoch=2, epochs=3, callbacks=[watch, bar], shuffle=False, verbose=0
    )
    assert [done for done, *_ in seen] == [1, 2, 3, 4, 5, 6, 6]
    assert [dict(values)["epoch"] for _, values, _ in seen] == [1, 1, 2, 2, 3, 3, 3]
    assert dict(seen[-1][1])["validation_accuracy"] == 0.5
    assert [how["finalize"] for *_, how in seen] == [False] * 6 + [True]


def test_bar_counts_steps_that_are_made_in_one_call(monkeypatch):
    bar, seen = monitoring.Bar(8), []
    monkeypatch.setattr(bar._bar, "update", lambda done, *_, **how: seen.append(done))
    for epoch in range(2):
        bar.on_epoch_begin(epoch)
        for last in (1, 3):  # Keras tells the last of the steps
            bar.on_train_batch_end(last, {"loss": 1.0})
    assert seen == [2, 4, 6, 8]


def test_terminal_has_a_bar_and_a_log_has_lines(tmp_path, capsys, monkeypatch):
    lines = []
    monkeypatch.setattr(fitting, "_REPORT_SECONDS", 0)
    fitting.fit_to_best(training(), {}, 0, tmp_path / "log", lines.append)
    assert len(lines) == 3
    assert "epoch 1/3" in lines[0]
    assert "left" in lines[0]
    assert "step" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    lines.clear()
    fitting.fit_to_best(training(), {}, 0, tmp_path / "terminal", lines.append)
    assert [line.split(",")[0] for line in lines] == ["epoch 3/3"]
    out = capsys.readouterr().out
    assert "6/6" in out
    assert "validation_accuracy: 2.0000" in out


def test_training_is_written_for_tensorboard_where_wanted(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = training()
    fitting.fit_to_best(run, {}, 0, tmp_path / "without", print, tmp_path / "events")
    assert not (tmp_path / "events").exists()
    with monitoring.tensorboard(True):
        fitting.fit_to_best(training(), {}, 0, tmp_path / "with", print, tmp_path / "events")
    fitting.fit_to_best(training(), {}, 0, tmp_path / "after", print, tmp_path / "others")
    assert not (tmp_path / "others").exists()
    events = EventAccumulator(str(tmp_path / "events" / "train"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"epoch_loss", "epoch_validation_accuracy", "epoch_learning_rate"} <= set(tags)
    protos = [e.tensor_proto for e in events.Tensors("epoch_validation_accuracy")]
    found = [float(tf.make_ndarray(proto)) for proto in protos]
    assert found == [0.0, 1.0, 2.0]


def test_missing_tensorboard_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with (
        pytest.raises(ConfigError, match="pip install tensorboard"),
        monitoring.tensorboard(True),
    ):
        pass
    with monitoring.tensorboard(False):
        pass


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (300, "5 min"), (9000, "2.5 h"), (89.6, "90 s")]
)
def test_durations_are_short(seconds, text):
    assert monitoring.duration(seconds) == text
