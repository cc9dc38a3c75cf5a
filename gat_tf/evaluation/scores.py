"""Scores of generated images: how good and how varied they look to a classifier.

Inception score and Fréchet distance depend on the images and on the network that scores them.
Report `ScoreNetwork.description` with every score, and do not compare scores across networks,
weights, preprocessing or numbers of images.
"""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from gat_tf import checks
from gat_tf._keras import operation_and_inputs
from gat_tf._types import Bounds
from gat_tf.logits import Logits

_INCEPTION_WEIGHTS = "inception_v3_weights_tf_dim_ordering_tf_kernels.h5"


class ScoreNetwork:
    """The network that images are scored with.

    `network(images)` returns probabilities and features. The features are the input of the last
    layer that has weights; if that layer is a convolution, they are averaged over its positions.
    Images are resized bilinearly (without antialiasing) to the network's input size.

    Paper of Inception v3: [Szegedy et al. 2016](https://arxiv.org/abs/1512.00567).

    Args:
        model: Keras classifier, functional or sequential, from images to probabilities or logits
            `[B, K]`. It runs in inference mode.
        from_logits: Whether the model gives logits instead of probabilities.
        bounds: `(low, high)` of the pixels that the model takes. The images to be scored are in
            [-1, 1] whatever it is.
        name: What the description calls the model and its weights. By default the model's name.

    Attributes:
        description: Network and preprocessing, to print beside every score.

    Raises:
        TypeError: The model is not a Keras model.
        ValueError: The model or `bounds` are not as described above.

    Examples:
        >>> network = evaluation.ScoreNetwork(model)  # or ScoreNetwork.inception_v3()
        >>> probabilities, features = network(2 * images - 1)  # images in [-1, 1]
        >>> probabilities.shape
        (8, 4)
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        from_logits: bool = False,
        bounds: Bounds = (0.0, 1.0),
        name: str | None = None,
    ):
        Logits(model, from_logits)  # which explains what is no such classifier
        checks.bounds(bounds)
        self._from_logits = from_logits
        self._bounds = bounds
        features = _features(model)
        shape = model.inputs[0].shape
        if len(shape) != 4:
            raise ValueError(
                "Expected a classifier of images [batch, height, width, channels]. "
                f"Received: {model.name!r} with inputs of shape {shape}"
            )
        _, height, width, channels = shape
        self._size = None if None in (height, width) else (height, width)
        self._model = keras.Model(model.inputs[0], [model.outputs[0], features], name=model.name)
        # One trace, whatever the number and the size of the images.
        images = tf.TensorSpec([None, None, None, channels], tf.float32)
        self._compiled = tf.function(self._of_batch, input_signature=[images], autograph=False)
        size = f"resized bilinearly to {height}x{width}" if self._size else "at their own size"
        self.description = f"{name or model.name}; images {size}, in [{bounds[0]:g}, {bounds[1]:g}]"

    @classmethod
    def inception_v3(cls) -> ScoreNetwork:
        """Returns Inception v3 of keras.applications: 1000 classes, 2048 features, 299 pixels.

        Its scores are not those of the Inception of 2015 that most papers report.

        Raises:
            RuntimeError: Its weights are not there and cannot be downloaded.
        """
        try:
            model = keras.applications.InceptionV3()
        except Exception as error:  # Keras raises no narrower one for a failed download
            raise RuntimeError(
                "Expected the imagenet weights of Inception v3 in "
                f"~/.keras/models/{_INCEPTION_WEIGHTS} (under $KERAS_HOME where it is set) or a "
                "network to download them from. On a machine with network, run\n"
                '    python -c "import keras; keras.applications.InceptionV3()"\n'
                "and copy that file here; or score with any other Keras classifier: "
                f"ScoreNetwork(model). Received: {error}"
            ) from error
        # Its own preprocessing is [0, 255] to [-1, 1].
        name = "Inception v3 of keras.applications with its imagenet weights"
        return cls(model, bounds=(-1.0, 1.0), name=name)

    def __call__(
        self, images: np.ndarray | Iterable[np.ndarray], batch_size: int = 100
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the network's probabilities and features.

        50,000 images of 128 pixels fill 9.8 GB, so they may come a few at a time:

            batches = models.sample_batches(generator, labels)
            probabilities, features = network(images for _, images in batches)

        Args:
            images: `[N, H, W, C]` floats in [-1, 1], as generators make them, or an iterable of
                such arrays, of which one at a time is kept.
            batch_size: Images that pass through the network at a time.

        Returns:
            `[N, K]` and `[N, D]`, float32.

        Raises:
            ValueError: The images or the probabilities are not as described above.
        """
        checks.count("batch_size", batch_size)
        arrays = [images] if hasattr(images, "shape") else images
        batches = []
        for array in arrays:
            array = self._checked(array)
            for i in range(0, len(array), batch_size):
                with checks.readable_errors():
                    outputs = self._compiled(tf.constant(array[i : i + batch_size]))
                batches.append([part.numpy() for part in outputs])
        if not batches:
            raise ValueError("Expected at least one array of images. Received: none")
        probabilities, features = map(np.concatenate, zip(*batches, strict=True))
        return probabilities, features

    def _checked(self, images: tf.Tensor) -> np.ndarray:
        images = _checked_images(images)
        channels = self._model.inputs[0].shape[-1]
        if not images.size or channels not in (None, images.shape[-1]):
            raise ValueError(
                f"Expected at least one image, with {channels} channels. "
                f"Received: images of shape {images.shape}"
            )
        return images

    def _of_batch(self, images):
        low, high = self._bounds
        images = images * ((high - low) / 2) + (high + low) / 2
        if self._size:
            images = tf.image.resize(images, self._size)
        outputs, features = self._model(images, training=False)
        outputs = tf.cast(outputs, tf.float32)
        outputs = checks.logits_or_probabilities(outputs, self._from_logits, self._model.name)
        probabilities = tf.nn.softmax(outputs) if self._from_logits else outputs
        return probabilities, tf.cast(features, tf.float32)


def inception_score(probabilities: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """Returns the inception score: exp of the mean over images of KL(p(y|x) ‖ p(y)).

    It is 1 if all images look alike, and K if each is certainly of one class and all classes are
    equally frequent. p(y) is the mean over a part's images, so each part needs images of all
    classes in random order, and a score of few images is too low.

    Paper: [Salimans et al. 2016](https://arxiv.org/abs/1606.03498).

    Args:
        probabilities: p(y|x) `[N, K]`, one row per image.
        splits: Number of parts, of equal size if possible, that are scored one by one.

    Returns:
        Mean and standard deviation over the parts.

    Raises:
        ValueError: There are fewer images than parts, or the rows are not probabilities.

    Examples:
        >>> sure_and_diverse = np.eye(10)  # each image is surely of a class of its own
        >>> mean, std = evaluation.inception_score(sure_and_diverse, splits=1)
        >>> round(mean, 3)
        10.0
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or not ((p >= 0).all() and (np.abs(p.sum(axis=1) - 1) < 1e-2).all()):
        raise ValueError(
            "Expected probabilities [images, classes]: rows of numbers >= 0 that sum to 1. "
            f"Received: {_shape_and_range(p)}"
        )
    if len(p) < checks.count("splits", splits):
        raise ValueError(f"Expected at least {splits} images, one a part. Received: {len(p)}")
    scores = []
    for part in np.array_split(p, splits):
        ratio = np.divide(part, part.mean(axis=0), out=np.ones_like(part), where=part > 0)
        scores.append(np.exp(np.mean(np.sum(part * np.log(ratio), axis=1))))
    return float(np.mean(scores)), float(np.std(scores))


def frechet_distance(features: np.ndarray, reference_features: np.ndarray) -> float:
    """Returns the Fréchet distance between two sets of features, FID where they are Inception's.

    ‖μ₁ - μ₂‖² + tr(C₁ + C₂ - 2 (C₁ C₂)^½) of their means and unbiased covariances. With few
    images the distance is too large, and by far with fewer images than dimensions. Compare only
    distances of the same number of images.

    Paper: [Heusel et al. 2017](https://arxiv.org/abs/1706.08500).

    Args:
        features: `[N, D]`, one row per image, at least two.
        reference_features: `[M, D]`, those of the real images, at least two.

    Raises:
        ValueError: There are too few features, they are not finite, or their dimensions differ.

    Examples:
        >>> real = np.random.default_rng(0).normal(size=(100, 2))
        >>> round(evaluation.frechet_distance(real + [3, 4], real), 3)  # 3² + 4²
        25.0
    """
    sets = [np.asarray(rows, np.float64) for rows in (features, reference_features)]
    for rows in sets:
        if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
            raise ValueError(
                "Expected finite features [images, dimensions] of at least two images. "
                f"Received: {_shape_and_range(rows)}"
            )
    dimensions = [rows.shape[1] for rows in sets]
    if dimensions[0] != dimensions[1]:
        raise ValueError(
            "Expected both sets of features in the same dimensions. "
            f"Received: {dimensions[0]} and {dimensions[1]}"
        )
    means = [rows.mean(axis=0) for rows in sets]
    covariances = [np.atleast_2d(np.cov(rows, rowvar=False)) for rows in sets]
    roots = [_root(covariance) for covariance in covariances]
    # tr (C₁ C₂)^½ is that of (C₁^½ C₂ C₁^½)^½, the sum of the singular values of C₁^½ C₂^½; found
    # as such, none is lost to the rounding of its square.
    overlap = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    distance = np.sum((means[0] - means[1]) ** 2) + sum(map(np.trace, covariances)) - 2 * overlap
    return max(float(distance), 0.0)  # rounding may leave equal sets below zero


def class_diversity(images: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns how far apart the images of each class are: 0 if they are all the same.

    The root mean square, over all pairs of a class's images and over all pixel values, of their
    difference. If AC-GAN collapses to one image per class, this is 0.

    Args:
        images: `[N, H, W, C]` floats in [-1, 1], at least two of each class.
        labels: `[N]` integers in [0, num_classes).
        num_classes: K.

    Returns:
        `[K]` float64 in units of pixel values.

    Raises:
        ValueError: Images or labels are not as described above, or a class has fewer than two.

    Examples:
        >>> collapsed = np.zeros((4, 8, 8, 3))  # all images of a class are the same
        >>> evaluation.class_diversity(collapsed, labels=np.array([0, 0, 1, 1]), num_classes=2)
        array([0., 0.])
    """
    checks.count("num_classes", num_classes)
    images, labels = _checked_images(images), np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"Expected {len(images)} integer labels, one per image. "
            f"Received: {labels.dtype} labels of shape {labels.shape}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"Expected labels from 0 to {num_classes - 1}. "
            f"Received: labels from {labels.min()} to {labels.max()}"
        )
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() < 2:
        raise ValueError(
            "Expected at least two images of every class. "
            f"Received: {counts.min()} of class {counts.argmin()}"
        )
    of_class = (images[labels == k] for k in range(num_classes))
    # Over all pairs the mean squared difference is twice the unbiased variance. Seen from the first
    # image, equal images differ by exactly zero.
    variances = [np.mean(np.var(x - x[0], axis=0, ddof=1, dtype=np.float64)) for x in of_class]
    return np.sqrt(2 * np.array(variances))


def _features(model: keras.Model) -> keras.KerasTensor:
    """The symbolic input `[B, D]` of a classifier's last layer with weights."""
    tensor = model.outputs[0] if getattr(model, "inputs", None) else None
    while tensor is not None:
        operation, inputs = operation_and_inputs(tensor)
        tensor = inputs[0] if len(inputs) == 1 else None
        if tensor is not None and getattr(operation, "weights", None):
            if isinstance(operation, keras.Model):
                return keras.Model(operation.inputs[0], _features(operation))(tensor)
            positions = tuple(range(1, len(tensor.shape) - 1))
            return keras.ops.mean(tensor, positions) if positions else tensor
    raise ValueError(
        "Expected a functional or sequential Keras classifier with a last layer with weights. "
        f"Received: {model.name!r}, where none can be seen."
    )


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _checked_images(images: tf.Tensor) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype.kind != "f":
        raise ValueError(
            "Expected floating-point images [images, height, width, channels] in [-1, 1]. "
            f"Received: {images.dtype} of shape {images.shape}"
        )
    if images.size and not -1 <= images.min() <= images.max() <= 1:  # so that NaN fails
        raise ValueError(
            "Expected images within [-1, 1]. "
            f"Received: values from {images.min()} to {images.max()}"
        )
    return images.astype(np.float32, copy=False)


def _shape_and_range(array: np.ndarray) -> str:
    values = f" with values from {array.min()} to {array.max()}" if array.size else ""
    return f"an array of shape {array.shape}{values}"
