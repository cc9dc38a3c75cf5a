"""A Table 1 classifier in PyTorch, to compare with libraries for it."""

from __future__ import annotations

import keras
import numpy as np
import torch
from torch.nn import functional


class TorchCopy(torch.nn.Module):
    """The same function as a Keras model: images `[B, C, H, W]` to what the model gives, `[B, K]`.

    Args:
        model: Keras model, a chain of the layers of Table 1, in inference mode.

    Raises:
        ValueError: It has another layer.
    """

    def __init__(self, model: keras.Model):
        super().__init__()
        self.weights = torch.nn.ParameterList()
        self._layers = [self._copied(layer) for layer in model.layers]
        self.eval()

    def forward(self, images):
        for layer in self._layers:
            images = layer(images)
        return images

    def _copied(self, layer):
        if isinstance(layer, keras.layers.InputLayer | keras.layers.Dropout):
            return lambda x: x
        if isinstance(layer, keras.layers.Flatten):
            return lambda x: x.permute(0, 2, 3, 1).flatten(1)
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            return lambda x: x.mean((2, 3))
        if isinstance(layer, keras.layers.Activation | keras.layers.ReLU):
            return torch.relu
        after = {"linear": lambda x: x, "relu": torch.relu}[layer.activation.__name__]
        bias = self._weight(layer.bias, (0,))
        if isinstance(layer, keras.layers.Dense):
            kernel = self._weight(layer.kernel, (1, 0))
            return lambda x: after(functional.linear(x, kernel, bias))
        if isinstance(layer, keras.layers.Conv2D):
            kernel = self._weight(layer.kernel, (3, 2, 0, 1))
            padded = _same_padding(layer) if layer.padding == "same" else lambda x: x
            stride = layer.strides
            return lambda x: after(functional.conv2d(padded(x), kernel, bias, stride))
        raise ValueError(f"Expected layers of Table 1. Received: {layer.name}")

    def _weight(self, variable, order):
        values = np.ascontiguousarray(np.transpose(np.asarray(variable), order))
        self.weights.append(torch.nn.Parameter(torch.from_numpy(values)))
        return self.weights[-1]


def _same_padding(layer):
    """TensorFlow's: where both sides cannot have as much, the far one has more."""
    (size, _), (stride, _) = layer.kernel_size, layer.strides

    def padded(x):
        total = max((-(-x.shape[2] // stride) - 1) * stride + size - x.shape[2], 0)
        near, far = total // 2, total - total // 2
        return functional.pad(x, (near, far, near, far))

    return padded
