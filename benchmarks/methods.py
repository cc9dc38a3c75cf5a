"""The methods of Table 2 as compiled steps at full size, for the benchmarks of this folder."""

from __future__ import annotations

import keras
import tensorflow as tf

from gat_tf import losses, models
from gat_tf.experiments import methods, settings
from gat_tf.logits import Logits

BATCH = 128
# Table 2's method and its way of taking minibatches, by the name printed.
METHODS = {
    "baseline": ("baseline", "separate"),
    "random": ("random", "separate"),
    "FG L∞": ("fg_linf", "separate"),
    "FG L2": ("fg_l2", "separate"),
    "GAT separate": ("gat", "separate"),
    "GAT shared": ("gat", "shared"),
}


def build(name: str) -> keras.Model:
    """The compiled Keras model of a method at the paper's size."""
    method, minibatches = METHODS[name]
    chosen = methods.METHODS[method]
    values = {key: found.value for key, found in chosen.hyperparameters.items()}
    return chosen.build(settings.Config(minibatches=minibatches), values, 10, 0).model


def batch(name: str):
    """What the method's `train_step` takes: one batch, or the pairs of separate minibatches."""

    def draw():
        return (
            tf.random.uniform([BATCH, 32, 32, 3]),
            tf.random.uniform([BATCH], maxval=10, dtype=tf.int64),
        )

    return (draw(), (draw(),)) if name == "GAT separate" else draw()


def step(name: str):
    """A compiled step without arguments."""
    model, data = build(name), batch(name)
    compiled = tf.function(lambda: model.train_step(data), autograph=False)
    return lambda: compiled()["loss"].numpy()


def plain_fast_gradient_step():
    """FG L2 as it is usually written: each gradient by passes of its own, 8f in all."""
    model = build("FG L2")
    logits, variables = Logits(model.classifier), model.classifier.trainable_variables
    images, labels = batch("FG L2")

    @tf.function(autograph=False)
    def compiled():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            loss = losses.cross_entropy(losses.margin(logits(images), labels))
        perturbation = model.attack.from_gradient(tape.gradient(loss, images))
        with tf.GradientTape() as tape:
            clean = losses.cross_entropy(losses.margin(logits(images), labels))
            adversarial = losses.cross_entropy(
                losses.margin(logits(tf.stop_gradient(images + perturbation)), labels)
            )
            loss = tf.reduce_mean(0.5 * clean + 0.5 * adversarial)
        model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return lambda: compiled().numpy()


def counted() -> dict[str, float]:
    """Multiply-adds of each step over the baseline's, counted from the networks."""
    f, f_first = _multiply_adds(models.classifier())
    g, g_first = _multiply_adds(models.perturbation_generator())
    baseline = 3 * f - f_first
    return {
        "baseline": 1.0,
        "FG L2, plain": (8 * f - f_first * 2) / baseline,
        "random": 2.0,
        "FG L∞": (6 * f - f_first) / baseline,
        "FG L2": (6 * f - f_first) / baseline,
        "GAT separate": (10 * f - f_first + 4 * g - g_first) / baseline,
        "GAT shared": (6 * f + 3 * g - g_first) / baseline,
    }


def _multiply_adds(model: keras.Model) -> tuple[int, int]:
    """Of one forward pass for one image: the whole network, and its first layer."""
    costs = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            _, height, width, _ = layer.output.shape
            costs.append(height * width * layer.kernel.shape.num_elements())
    return sum(costs), costs[0]
