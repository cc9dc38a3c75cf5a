"""Rob-GAN's networks and a step of its training, against PyTorch with the same weights.

The networks are written after the module definitions of github.com/xuanqing94/RobGAN, its first
commit, and SN-GAN's discriminator after github.com/pfnet-research/sngan_projection.
"""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

torch = pytest.importorskip("torch", reason="needs PyTorch, as in gat_tf[benchmarks]")

from gat_tf import attacks, models, training  # noqa: E402
from gat_tf.training.gan import draw  # noqa: E402

nn, F = torch.nn, torch.nn.functional
WIDTH = 1 / 16
CLASSES = 4
SIZES = (32, 64, 128)
sizes = pytest.mark.parametrize("size", SIZES)


def filters(*channels):
    return [max(1, round(WIDTH * c)) for c in channels]


# The networks.


class GeneratorBlock(nn.Module):
    def __init__(self, inputs, outputs, up):
        super().__init__()
        self.up = up
        self.scale_a, self.shift_a = nn.Embedding(CLASSES, inputs), nn.Embedding(CLASSES, inputs)
        self.scale_b, self.shift_b = nn.Embedding(CLASSES, outputs), nn.Embedding(CLASSES, outputs)
        self.conv_a = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv_b = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def larger(self, x):
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x

    @staticmethod
    def normalised(x, y, scale, shift):
        x = F.batch_norm(x, None, None, training=True, eps=2e-5)
        return scale(y)[:, :, None, None] * x + shift(y)[:, :, None, None]

    def forward(self, x, y):
        h = F.relu(self.normalised(x, y, self.scale_a, self.shift_a))
        h = self.conv_a(self.larger(h))
        h = F.relu(self.normalised(h, y, self.scale_b, self.shift_b))
        return self.conv_b(h) + self.shortcut(self.larger(x))


class Generator(nn.Module):
    def __init__(self, size):
        super().__init__()
        channels = filters(
            *((512, 512, 256, 256, 128, 64) if size == 128 else (1024, 512, 256, 128, 64))
        )
        self.dense = nn.Linear(128, 16 * channels[0])
        pairs = list(itertools.pairwise(channels))
        last_up = size != 32
        self.blocks = nn.ModuleList(
            GeneratorBlock(a, b, up=last_up or i < len(pairs) - 1) for i, (a, b) in enumerate(pairs)
        )
        self.norm = nn.BatchNorm2d(channels[-1])
        self.image = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, z, y):
        h = self.dense(z).reshape(len(z), -1, 4, 4)
        for block in self.blocks:
            h = block(h, y)
        return torch.tanh(self.image(F.relu(self.norm(h))))

    def load(self, model):
        units = self.blocks[0].conv_a.in_channels
        kernel, bias = model.get_layer("dense").get_weights()
        # Keras's numbers are height, width, channel; PyTorch's channel, height, width.
        kernel = kernel.reshape(128, 4, 4, units).transpose(0, 3, 1, 2).reshape(128, -1)
        bias = bias.reshape(4, 4, units).transpose(2, 0, 1).reshape(-1)
        copy_into(self.dense.weight, kernel.T)
        copy_into(self.dense.bias, bias)
        for i, block in enumerate(self.blocks, start=1):
            for part in "ab":
                load_layer(getattr(block, f"conv_{part}"), model, f"block{i}{part}_conv")
                for kind in ("scale", "shift"):
                    (table,) = model.get_layer(f"block{i}{part}_{kind}").get_weights()
                    copy_into(getattr(block, f"{kind}_{part}").weight, table)
            load_layer(block.shortcut, model, f"block{i}_shortcut")
        gamma, beta, *_ = model.get_layer("norm").get_weights()
        copy_into(self.norm.weight, gamma)
        copy_into(self.norm.bias, beta)
        load_layer(self.image, model, "image")
        return self


class PreActivationBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv_a = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv_b = nn.Conv2d(outputs, outputs, 3, 1, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        active = F.leaky_relu(x, 0.2)
        h = self.conv_b(F.leaky_relu(self.conv_a(active), 0.2))
        return h + (x if self.shortcut is None else self.shortcut(active))


class Discriminator32(nn.Module):
    def __init__(self):
        super().__init__()
        (before,) = filters(64)
        self.stem = nn.Conv2d(3, before, 3, padding=1, bias=False)
        blocks = []
        for channels, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
            (channels,) = filters(channels)
            blocks += [
                PreActivationBlock(before, channels, first),
                PreActivationBlock(channels, channels, 1),
            ]
            before = channels
        self.blocks = nn.ModuleList(blocks)
        self.real, self.classes = nn.Linear(before, 1), nn.Linear(before, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = F.avg_pool2d(x, 4).flatten(1)
        return self.real(x)[:, 0], self.classes(x)

    def load(self, model):
        load_layer(self.stem, model, "conv1")
        return load_discriminator(self, model)


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, down, bias, first=False):
        super().__init__()
        self.down, self.first = down, first
        hidden = outputs if first else inputs
        self.conv_a = nn.Conv2d(inputs, hidden, 3, padding=1, bias=bias)
        self.conv_b = nn.Conv2d(hidden, outputs, 3, padding=1, bias=bias)
        self.shortcut = None
        if down or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=bias)

    def smaller(self, x):
        return F.avg_pool2d(x, 2) if self.down else x

    def forward(self, x):
        h = self.conv_a(x if self.first else F.relu(x))
        h = self.smaller(self.conv_b(F.relu(h)))
        if self.shortcut is None:
            return h + x
        if self.first:
            return h + self.shortcut(self.smaller(x))
        return h + self.smaller(self.shortcut(x))


RESIDUAL = {
    32: ((128, 128, 128, 128), 2),
    64: ((64, 128, 256, 512, 1024), 5),
    128: ((64, 128, 256, 256, 512, 512), 5),
}


class ResidualDiscriminator(nn.Module):
    def __init__(self, size, bias=False):
        super().__init__()
        channels, halved = RESIDUAL[size]
        channels = filters(*channels)
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, down=i < halved, bias=bias, first=i == 0)
            for i, (a, b) in enumerate(zip([3, *channels[:-1]], channels, strict=True))
        )
        self.real, self.classes = nn.Linear(channels[-1], 1), nn.Linear(channels[-1], CLASSES)

    def features(self, x):
        for block in self.blocks:
            x = block(x)
        return F.relu(x).sum((2, 3))

    def forward(self, x):
        x = self.features(x)
        return self.real(x)[:, 0], self.classes(x)

    def load(self, model):
        return load_discriminator(self, model)


def load_discriminator(network, model):
    for i, block in enumerate(network.blocks, start=1):
        for part in "ab":
            load_layer(getattr(block, f"conv_{part}"), model, f"block{i}{part}_conv")
        if block.shortcut is not None:
            load_layer(block.shortcut, model, f"block{i}_shortcut")
    for head in ("real", "classes"):
        load_layer(getattr(network, head), model, head)
    return network


class ProjectionDiscriminator(ResidualDiscriminator):
    """Its kernels are W / σ(W), by singular value decomposition."""

    def __init__(self, size):
        super().__init__(size, bias=True)
        self.classes = nn.Embedding(CLASSES, self.real.in_features)

    def forward(self, x, y):
        x = self.features(x)
        return self.real(x)[:, 0] + (self.classes(y) * x).sum(1)

    def load(self, model):
        layers = {
            layer.layer.name: layer.layer for layer in model.layers if hasattr(layer, "layer")
        }
        self.set(self.real, layers["real"])
        self.set(self.classes, layers["embedding"])
        for i, block in enumerate(self.blocks, start=1):
            for part in "ab":
                self.set(getattr(block, f"conv_{part}"), layers[f"block{i}{part}_conv"])
            if block.shortcut is not None:
                self.set(block.shortcut, layers[f"block{i}_shortcut"])
        return self

    @staticmethod
    def set(layer, ours):
        kernel, *bias = ours.get_weights()
        kernel = kernel / np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)
        copy_into(layer.weight, kernel if isinstance(layer, nn.Embedding) else torch_kernel(kernel))
        for value in bias:
            copy_into(layer.bias, value)


def copy_into(parameter, value):
    assert tuple(parameter.shape) == value.shape
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def torch_kernel(kernel):
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


def load_layer(layer, model, name):
    kernel, *bias = model.get_layer(name).get_weights()
    assert (layer.bias is not None) == bool(bias), name
    copy_into(layer.weight, torch_kernel(kernel))
    for value in bias:
        copy_into(layer.bias, value)


def shaken(model, seed=0):
    """With other scales, shifts and biases than those at the start, which are all alike."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if not variable.path.endswith("kernel"):
            variable.assign_add(0.3 * rng.normal(size=variable.shape).astype("float32"))
    return model


def discriminators(size):
    ours = shaken(models.discriminator(CLASSES, size, width=WIDTH))
    theirs = Discriminator32() if size == 32 else ResidualDiscriminator(size)
    return ours, theirs.load(ours)


def generators(size):
    ours = shaken(models.image_generator(CLASSES, size, width=WIDTH))
    return ours, Generator(size).load(ours)


def images(size, count=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, size, size, 3)).astype("float32")


def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(np.asarray(x).transpose(0, 3, 1, 2)))


def channels_last(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


def assert_close(got, expected, tolerance=1e-4, name=""):
    """To the tolerance, of values whose largest is about 1."""
    expected = np.asarray(expected)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(np.asarray(got), expected, atol=tolerance * scale, err_msg=name)
    assert np.std(expected) > 100 * tolerance or expected.size == 1, "nothing is compared"


@sizes
def test_discriminator(size):
    ours, theirs = discriminators(size)
    x = images(size)
    real, classes = theirs(channels_first(x))
    got = ours(x)
    assert_close(got["real"][:, 0], real.detach())
    assert_close(got["classes"], classes.detach())


@sizes
def test_generator(size):
    ours, theirs = generators(size)
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(8, 128)).astype("float32"), np.arange(8) % CLASSES
    expected = theirs(torch.from_numpy(noise), torch.from_numpy(labels))
    got = models.sample(ours, labels, noise=noise, batch_size=8)
    assert_close(got, channels_last(expected))


@sizes
def test_projection_discriminator(size):
    ours = models.projection_discriminator(CLASSES, size, width=WIDTH)
    ours = shaken(ours)
    x, labels = images(size, CLASSES), np.arange(CLASSES)
    for layer in ours.layers:
        if isinstance(layer, models.SpectralNorm):  # to its end, as by many steps
            kernel = layer.layer.get_weights()[0]
            layer.vector.assign(np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]))[2][0])
    theirs = ProjectionDiscriminator(size).load(ours)
    expected = theirs(channels_first(x), torch.from_numpy(labels)).detach()
    assert_close(ours([x, labels])[:, 0], expected)


# One whole step.


def their_loss(judged, target, classes=None, labels=None, weight=0.5):
    """weight · BCE + (1 - weight) · CE, means over the batch."""
    loss = weight * F.binary_cross_entropy_with_logits(judged, torch.full_like(judged, target))
    return loss if weight == 1 else loss + (1 - weight) * F.cross_entropy(classes, labels)


def their_attack(d, x, labels, attack):
    start = x
    for _ in range(attack.steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(their_loss(d(x)[0], 1.0, d(x)[1], labels), x)
        x = x + attack.step_size * gradient.sign()
        x = start + (x - start).clamp(-attack.epsilon, attack.epsilon)
        x = x.clamp(-1, 1)
    return x.detach()


def their_step(d, g, x, labels, fakes, generated, class_loss, attack, rate):
    """D's update and then G's, by plain gradient descent."""
    attacked = their_attack(d, x, labels, attack)
    with torch.no_grad():
        made = g(*fakes)
    real, fake = d(attacked), d(made)
    weight = 1 if class_loss == "split" else 0.5
    loss = their_loss(real[0], 1.0, real[1], labels)
    loss = loss + their_loss(fake[0], 0.0, fake[1], fakes[1], weight)
    descend(d, loss, rate)
    judged, classes = d(g(*generated))
    generator_loss = their_loss(judged, 1.0, classes, generated[1])
    descend(g, generator_loss, rate)
    return loss.item(), generator_loss.item()


def descend(network, loss, rate):
    parameters = list(network.parameters())
    for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        with torch.no_grad():
            p -= rate * gradient


@pytest.mark.parametrize(
    ("size", "class_loss"), [(32, "split"), (32, "acgan"), (64, "split"), (128, "split")]
)
def test_a_step_of_robgan(size, class_loss):
    (d, their_d), (g, their_g) = discriminators(size), generators(size)
    attack = attacks.PGD(0.03, math.inf, 5, 0.0078, random_start=False, clip=(-1, 1))
    scheme = training.RobGAN(d, g, attack, class_loss, seed=3)
    rate = 0.1 if size == 32 else 0.001  # where D sums over the image its gradients are large
    scheme.compile(keras.optimizers.SGD(rate), keras.optimizers.SGD(rate), run_eagerly=True)
    x, labels = images(size, 4), np.arange(4)
    drawn = [draw(x, 128, CLASSES, tf.random.fold_in((3, 0), stream)) for stream in (0, 1)]
    fakes, generated = (
        (torch.from_numpy(noise.numpy()), torch.from_numpy(c.numpy()).long()) for noise, c in drawn
    )
    before = [parameters(network) for network in (their_d, their_g)]
    y = torch.from_numpy(labels)
    losses = their_step(
        their_d, their_g, channels_first(x), y, fakes, generated, class_loss, attack, rate
    )
    updated = [parameters(network) for network in (their_d, their_g)]
    logs = scheme.train_step((tf.constant(x), tf.constant(labels)))
    assert_close(logs["discriminator_loss"], losses[0])
    assert_close(logs["generator_loss"], losses[1])
    # Ours, as PyTorch holds them, have moved as theirs.
    ours = [parameters(network.load(model)) for network, model in ((their_d, d), (their_g, g))]
    for was, got, expected in zip(before, ours, updated, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)
        step = np.linalg.norm(expected - was)
        assert step > 1e-3
        assert np.linalg.norm(got - expected) < 1e-3 * step


def parameters(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()]).numpy()
