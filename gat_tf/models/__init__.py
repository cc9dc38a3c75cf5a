"""The networks of the papers, as functional Keras models made of built-in layers only.

A model saved from here as `.keras` opens in a project that does not have gat_tf.
"""

from gat_tf.models.gat import classifier, perturbation_generator
from gat_tf.models.pretrained import pretrained
from gat_tf.models.robgan import (
    class_head,
    discriminator,
    image_generator,
    projection_discriminator,
)
from gat_tf.models.sampling import sample

__all__ = [
    "class_head",
    "classifier",
    "discriminator",
    "image_generator",
    "perturbation_generator",
    "pretrained",
    "projection_discriminator",
    "sample",
]
