"""A Keras classifier in PyTorch, to compare with libraries for it."""

from __future__ import annotations

import keras
import numpy as np
import torch
from torch.nn import functional

from gat_tf._keras import operation_and_inputs


class TorchCopy(torch.nn.Module):
    """The same function as a Keras model: images `[B, C, H, W]` to what the model gives, `[B, K]`.

    Args:
        model: Functional Keras model of the layers of Table 1 or of a residual network, in
            inference mode.

    Raises:
        ValueError: It has another layer.
    """

    def __init__(self, model: keras.Model):
        super().__init__()
        self.weights = torch.nn.ParameterList()
        self._steps: list = []  # (function, the tensors it takes, the tensor it makes), in order
        self._input, self._output = id(model.inputs[0]), id(model.outputs[0])
        self._follow(model.outputs[0], {self._input})
        self.eval()

    def forward(self, images):
        made = {self._input: images}
        for function, inputs, output in self._steps:
            made[output] = function(*(made[i] for i in inputs))
        return made[self._output]

    def _follow(self, tensor, known):
        if id(tensor) in known:
            return
        layer, inputs = operation_and_inputs(tensor)
        for other in inputs:
            self._follow(other, known)
        known.add(id(tensor))
        self._steps.append((self._copied(layer), [id(t) for t in inputs], id(tensor)))

    def _copied(self, layer):
        if isinstance(layer, keras.layers.Dropout):
            return lambda x: x
        if isinstance(layer, keras.layers.Flatten):
            return lambda x: x.permute(0, 2, 3, 1).flatten(1)
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            return lambda x: x.mean((2, 3))
        if isinstance(layer, keras.layers.Activation | keras.layers.ReLU):
            return torch.relu
        if isinstance(layer, keras.layers.Add):
            return torch.add
        if isinstance(layer, keras.layers.BatchNormalization):
            names = ("moving_mean", "moving_variance", "gamma", "beta")
            moments = [self._weight(getattr(layer, name), (0,)) for name in names]
            return lambda x: functional.batch_norm(x, *moments, eps=layer.epsilon)
        after = {"linear": lambda x: x, "relu": torch.relu}[layer.activation.__name__]
        bias = self._weight(layer.bias, (0,)) if layer.use_bias else None
        if isinstance(layer, keras.layers.Dense):
            kernel = self._weight(layer.kernel, (1, 0))
            return lambda x: after(functional.linear(x, kernel, bias))
        if isinstance(layer, keras.layers.Conv2D):
            kernel = self._weight(layer.kernel, (3, 2, 0, 1))
            return lambda x: after(_convolution(layer, x, kernel, bias))
        raise ValueError(f"Expected layers of Table 1 or a residual network. Received: {layer}")

    def _weight(self, variable, order):
        values = np.ascontiguousarray(np.transpose(np.asarray(variable), order))
        self.weights.append(torch.nn.Parameter(torch.from_numpy(values), requires_grad=False))
        return self.weights[-1]


def _convolution(layer, x, kernel, bias):
    """With TensorFlow's SAME padding: where the sides cannot have as much, the far one has more."""
    (size, _), (stride, _) = layer.kernel_size, layer.strides
    total = max((-(-x.shape[2] // stride) - 1) * stride + size - x.shape[2], 0)
    near = total // 2 if layer.padding == "same" else 0
    if layer.padding == "same" and total % 2:
        x = functional.pad(x, (0, 1, 0, 1))
    return functional.conv2d(x, kernel, bias, stride, padding=near)
