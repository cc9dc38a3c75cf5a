"""The networks of the papers, as functional Keras models made of built-in layers.

A model saved from here as `.keras` opens in a project that does not have gat_tf, but for SN-GAN's
discriminator, whose `SpectralNorm` Keras does not have.
"""

from gat_tf.models.gat import classifier, perturbation_generator
from gat_tf.models.pretrained import pretrained
from gat_tf.models.robgan import (
    class_head,
    discriminator,
    image_generator,
    projection_discriminator,
)
from gat_tf.models.sampling import sample, sample_batches, with_fixed_statistics
from gat_tf.models.spectral import SpectralNorm

__all__ = [
    "SpectralNorm",
    "class_head",
    "classifier",
    "discriminator",
    "image_generator",
    "perturbation_generator",
    "pretrained",
    "projection_discriminator",
    "sample",
    "sample_batches",
    "with_fixed_statistics",
]
