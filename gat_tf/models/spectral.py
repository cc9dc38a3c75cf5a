"""Spectral normalisation as in SN-GAN (Miyato et al. 2018, Algorithm 1)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("gat_tf")
class SpectralNorm(keras.layers.Wrapper):
    """Runs a layer with W / σ(W) in place of its kernel W.

    W itself is unchanged, and the gradient flows through σ(W), so that the optimiser updates W as
    in SN-GAN. `keras.layers.SpectralNormalization` overwrites W with W / σ(W) instead.

    σ(W), the largest singular value of W as a matrix `[inputs, outputs]`, is estimated by one step
    of power iteration from the vector u. A call in training mode stores the new u; a call in
    inference mode does not. The estimate is computed in float32, whatever the precision of the
    layer.

    Paper: [Miyato et al. 2018](https://arxiv.org/abs/1802.05957).

    Args:
        layer: Keras layer with a `kernel` or, for an Embedding, `embeddings`.

    Examples:
        >>> layer = models.SpectralNorm(keras.layers.Dense(4))
        >>> layer(np.ones((2, 3))).shape
        TensorShape([2, 4])
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        # W is float32 in `call`, and the images are cast by the layer alone.
        super().__init__(layer, autocast=False, **kwargs)

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        super().build(input_shape)
        self.vector = self.add_weight(
            name="vector",
            shape=(self._kernel.shape[-1],),
            initializer="random_normal",
            dtype="float32",
            trainable=False,
            aggregation="only_first_replica",  # the same on each
        )

    @property
    def _kernel(self) -> keras.Variable:
        embeds = isinstance(self.layer, keras.layers.Embedding)
        return self.layer.embeddings if embeds else self.layer.kernel

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        kernel = ops.convert_to_tensor(self._kernel)
        matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
        constant = ops.stop_gradient(matrix)
        left = _unit(ops.matmul(constant, self.vector))
        right = _unit(ops.matmul(left, constant))
        if training:
            self.vector.assign(right)
        sigma = ops.sum(ops.matmul(left, matrix) * right)
        # Keras's way to let a layer run with other values in the place of its variables.
        values = {variable.path: variable.value for variable in self.layer.variables}
        values[self._kernel.path] = ops.divide_no_nan(kernel, sigma)
        with keras.StatelessScope([(v, values[v.path]) for v in self.layer.variables]):
            return self.layer(inputs)


def _unit(vector):
    return vector / (ops.norm(vector) + 1e-12)
