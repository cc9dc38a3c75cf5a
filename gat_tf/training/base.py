"""What the training schemes share: everything around the maths of a step."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import keras
import tensorflow as tf
from keras.optimizers import Optimizer

from gat_tf import checks
from gat_tf._keras import NothingToBuild, is_validation_in_fit
from gat_tf._types import Array, Bounds, Data, Gradients

ADAM_EPSILON = 1e-8  # TensorFlow 1's default, with which the paper's runs were made


class MultiWorker(NothingToBuild):
    """Makes a Keras model, with nothing left to build, train on several workers too.

    Two things in Keras 3.15 fail under MultiWorkerMirroredStrategy: building a model's metrics
    from a batch, which is not needed here, and averaging metrics that are scalars.
    """

    distribute_strategy: tf.distribute.Strategy  # of the Keras model that this is mixed into

    def train_step(self, data: Any) -> dict[str, Any]:
        step = super().train_step  # type: ignore[misc]  # the Keras model's
        return self._reducible(step(data))

    def _reducible(self, logs: dict) -> dict:
        """The metrics of a step, as Keras can average them over the replicas."""
        strategy = self.distribute_strategy
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return {name: tf.reshape(value, [1]) for name, value in logs.items()}
        return logs


class Scheme(MultiWorker, keras.Model):
    """A Keras model that trains the networks inside it on batches of (images, labels).

    Subclasses define `train_step` and `test_step` on top of pure functions, and the two abstract
    methods below.

    Attributes:
        results: Name to metric: the mean over an epoch of a per-image value.

    Args:
        num_classes: K, or None if it is not known.
        bounds: `(low, high)` of the pixels.
        seed: Seed of all randomness in a step.
    """

    # Names of the values that each step records.
    _recorded: ClassVar[tuple[str, ...]]
    # Arguments of the constructor, which are attributes too: what a saved scheme is made from.
    _arguments: ClassVar[tuple[str, ...]] = ("seed", "name")
    # What `compile` calls them, and where they are.
    _optimizers: ClassVar[dict[str, str]] = {"optimizer": "optimizer"}

    def __init__(
        self,
        num_classes: int | None,
        bounds: Bounds,
        *,
        seed: int = 0,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.num_classes: Any = num_classes  # an integer, or None where it is not known
        self.bounds = bounds
        self.seed = checks.count("seed", seed, low=0)
        self.results = {metric: keras.metrics.Mean(name=metric) for metric in self._recorded}
        self.built = True  # the networks in it are

    @property
    @abc.abstractmethod
    def _learner(self) -> keras.Model:
        """The network that `optimizer` trains."""

    @abc.abstractmethod
    def _default_optimizer(self) -> keras.optimizers.Optimizer:
        """The paper's."""

    @property
    def trainable_weights(self) -> list:
        """The weights that `optimizer` trains, whose averages Keras sets at the end of `fit`."""
        return self._learner.trainable_weights

    @property
    def metrics(self) -> list:
        return list(self.results.values())

    def compile(
        self,
        optimizer: Optimizer | str | None = None,
        *positional: Any,
        jit_compile: bool | str = "auto",
        steps_per_execution: int = 1,
        run_eagerly: bool = False,
        **others: Any,
    ) -> None:
        """Configures training. The loss and the metrics are the scheme's own.

        Args:
            optimizer: Keras optimiser; by default the paper's.
            jit_compile: Whether the step is compiled with XLA. `"auto"` does so on a single GPU;
                on CPUs XLA's convolutions are slower than TensorFlow's.
            steps_per_execution: Number of steps in one call of the compiled function.
            run_eagerly: Whether to run the step without compiling it, for debugging.

        Raises:
            TypeError: There is another argument, such as `loss` or `metrics`.
        """
        # What Keras's own `compile` takes next. At least one is named, and so refused.
        others |= dict(zip(("loss", "loss_weights", "metrics"), positional, strict=False))
        if others:
            raise TypeError(self._not_compiled_with(sorted(others)))
        if jit_compile == "auto":
            with self.distribute_strategy.scope():
                jit_compile = xla_by_default()
        super().compile(
            optimizer=self._prepared(optimizer or self._default_optimizer(), self._learner),
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
            run_eagerly=run_eagerly,
            auto_scale_loss=False,
        )

    def _not_compiled_with(self, names: list[str]) -> str:
        recorded = ", ".join(self.results)
        instead = {
            "loss": f"the loss is the one that defines {type(self).__name__}, from the settings of "
            "its constructor",
            "metrics": f"it records {recorded}, each with `val_` before it for validation data; "
            "the callback training.RobustAccuracy adds the accuracy under another attack",
        }
        known = [f"No `{name}`: {instead[name]}." for name in names if name in instead]
        return " ".join([f"A training scheme's `compile` takes no {', '.join(names)}.", *known])

    def get_compile_config(self) -> dict[str, Any]:
        optimizers = {
            argument: keras.saving.serialize_keras_object(getattr(self, attribute))
            for argument, attribute in self._optimizers.items()
        }
        return {
            **optimizers,
            "jit_compile": self.jit_compile,
            "steps_per_execution": self.steps_per_execution,
            "run_eagerly": self.run_eagerly,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))

    def get_config(self) -> dict[str, Any]:
        return {
            argument: keras.saving.serialize_keras_object(getattr(self, argument))
            for argument in self._arguments
        }

    @classmethod
    def from_config(cls, config: Any, custom_objects: dict[str, Any] | None = None) -> Scheme:
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))

    def _prepared(self, optimizer: Optimizer | str, network: keras.Model) -> Optimizer:
        """The built optimiser, with loss scaling if the precision needs it."""
        optimizer = keras.optimizers.get(optimizer)
        if self.dtype_policy.name == "mixed_float16" and not isinstance(
            optimizer, keras.optimizers.LossScaleOptimizer
        ):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        with self.distribute_strategy.scope():
            optimizer.build(network.trainable_variables)
        return optimizer

    def fit(
        self,
        x: Data | Array | None = None,
        y: Array | None = None,
        *,
        batch_size: int | None = None,
        shuffle: bool = True,
        validation_data: Data | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """As `keras.Model.fit`, with every batch of a `tf.data.Dataset` or of arrays checked.

        Raises:
            ValueError: A batch has images outside their range or labels that are not classes; or
                `fit` is given sample weights, class weights or `validation_split`.
        """
        refused = {
            "validation_split": "pass `validation_data=`",
            "validation_batch_size": "pass `validation_data=` as a batched tf.data.Dataset",
            "class_weight": "every image has the same weight",
            "sample_weight": "every image has the same weight",
        }
        for name, instead in refused.items():
            value = kwargs.pop(name, None)
            if value is not None and not (name == "validation_split" and value == 0):
                raise ValueError(f"A training scheme's `fit` takes no `{name}`: {instead}.")
        if validation_data is not None:
            validation_data = self._checked(*_pair(validation_data))
        with checks.readable_errors():
            dataset = self._training_data(x, y, batch_size, shuffle)  # shuffled already
            history = super().fit(dataset, validation_data=validation_data, shuffle=False, **kwargs)
        if history.epoch and "generator_optimizer" in self._optimizers:
            # Its averages (`use_ema=True`); Keras has set those of `optimizer`.
            self.generator_optimizer.finalize_variable_values(self.generator.trainable_weights)
        return history

    def evaluate(
        self, x: Data | Array | None = None, y: Array | None = None, **kwargs: Any
    ) -> list[float] | dict[str, float]:
        """As `keras.Model.evaluate`, with the data checked as in `fit`."""
        if not is_validation_in_fit(kwargs):  # `fit` has checked it
            x = self._checked(x, y, kwargs.pop("batch_size", None))
            y = None
        with checks.readable_errors():
            return super().evaluate(x, y, **kwargs)

    def train_on_batch(self, x: Array, y: Array | None = None, **kwargs: Any) -> Any:
        """As `keras.Model.train_on_batch`, with the batch checked as in `fit`.

        Raises:
            ValueError: The batch is not as `fit` wants it, or a step takes several minibatches.
        """
        self._require_one_minibatch()
        with checks.readable_errors():
            return super().train_on_batch(*self._batch(x, y), **kwargs)

    def test_on_batch(self, x: Array, y: Array | None = None, **kwargs: Any) -> Any:
        """As `keras.Model.test_on_batch`, with the batch checked as in `evaluate`."""
        with checks.readable_errors():
            return super().test_on_batch(*self._batch(x, y), **kwargs)

    def _require_one_minibatch(self) -> None:
        """Raises ValueError where a step takes more than one minibatch."""

    def _batch(self, x, y):
        if y is None:
            raise ValueError("Expected a batch of images and its labels. Received: no labels.")
        return checks.batch(x, y, self.num_classes, self.bounds)

    def _training_data(
        self, x: Data | Array | None, y: Array | None, batch_size: int | None, shuffle: bool
    ) -> tf.data.Dataset:
        """The data for `train_step`, from the arguments of `fit`."""
        return self._checked(x, y, batch_size, shuffle)

    def _checked(self, x, y=None, batch_size=None, shuffle=False):
        dataset = checks.as_dataset(x, y, batch_size, shuffle)
        return checks.checked(dataset, self.num_classes, self.bounds).prefetch(tf.data.AUTOTUNE)

    # Inside a step.

    def _unpacked(self, data):
        """(images, labels) of a batch, which may come from Keras's `*_on_batch` too."""
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is not None or labels is None:
            raise ValueError(
                "Expected batches of (images, labels); sample and class weights are not supported. "
                f"Received: {len(data)} parts."
            )
        return images, labels

    def _apply_mean(
        self, optimizer: Optimizer, network: keras.Model, sums: Gradients, batch: tf.Tensor
    ) -> None:
        """Applies the mean gradient over the global batch, from sums over this replica's images.

        The optimiser adds up the gradients of the replicas, so each is divided by the size of the
        global batch. This is not always the number of replicas times the local size: the last batch
        may be split unevenly.
        """
        images = tf.cast(tf.shape(batch)[0], tf.float32)
        images = tf.distribute.get_replica_context().all_reduce("SUM", images)
        gradients = [None if g is None else g / tf.cast(images, g.dtype) for g in sums]
        gradients = added(gradients, self._penalty_gradients(optimizer, network))
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))

    def _penalty_gradients(self, optimizer, network):
        """Gradients of the network's weight regularisers, which are part of every training loss."""
        require_weight_regularisers(network)
        variables = network.trainable_variables
        with tf.GradientTape() as tape:
            penalties = network.losses
            total = optimizer.scale_loss(tf.add_n(penalties)) if penalties else None
        if total is None:
            return [None] * len(variables)
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        return [None if g is None else g / replicas for g in tape.gradient(total, variables)]

    def _record(self, **values: tf.Tensor) -> dict[str, tf.Tensor]:
        """Updates the metrics with per-image values `[B]`, and returns their results."""
        for name, value in values.items():
            self.results[name].update_state(tf.cast(value, tf.float32))
        return self._reducible(self.get_metrics_result())


def require_built(network: keras.Model) -> None:
    """Raises ValueError unless the network has its weights."""
    if not network.built:
        raise ValueError(
            f"Expected a network with weights. Received: {network.name!r}, which is not built; "
            "call it on a batch of images, or give it a keras.Input, first."
        )


def require_weight_regularisers(network: keras.Model) -> None:
    """Raises ValueError if the network's last call left a penalty that is not on its weights."""
    on_weights = sum(variable.regularizer is not None for variable in network.trainable_variables)
    if len(network.losses) > on_weights:
        raise ValueError(
            "Expected a network without penalties other than weight regularisers. Received: "
            f"{network.name!r}, with an `activity_regularizer` or a layer that calls `add_loss`. A "
            "training scheme runs the network several times in a step and has no rule for which "
            "of them counts: remove it, or use a `kernel_regularizer`."
        )


def first_batch_size(dataset: tf.data.Dataset) -> int | None:
    """The size of the first (images, labels) batch, or None where there is none."""
    size = dataset.element_spec[0].shape[0]
    if size is None:
        size = next((int(tf.shape(labels)[0]) for _, labels in dataset.take(1)), None)
    return size


def xla_by_default() -> bool:
    """Whether steps are compiled with XLA by default: only on a single GPU.

    On CPUs XLA's convolutions are slower than TensorFlow's.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return replicas == 1 and bool(tf.config.list_logical_devices("GPU"))


def added(gradients: Gradients, others: Gradients) -> Gradients:
    """The sums of two lists of gradients; None counts as zero."""
    return [
        b if a is None else a if b is None else a + b
        for a, b in zip(gradients, others, strict=True)
    ]


def _pair(data):
    if not isinstance(data, tuple):
        return data, None
    if len(data) != 2:
        raise ValueError(
            "Expected validation data as a dataset of (images, labels) batches, or as arrays "
            f"(images, labels). Received: a tuple of {len(data)}"
        )
    return data
