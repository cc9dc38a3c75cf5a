"""Attacks: hyperparameters in the constructor, tensors in the call.

An attack is a frozen dataclass without state, usable inside a compiled training step and in
evaluation alike:

    attack = FastGradient(epsilon=0.5, norm=2)
    perturbation = attack.perturbation(model, images, labels)    # [B, H, W, C]
    adversarial_images = attack(model, images, labels)           # clipped to attack.clip

Such a call compiles the attack, once for a model, unless it is inside a `tf.function` already.
"""

from gat_tf.attacks.apgd import APGD
from gat_tf.attacks.autoattack import autoattack
from gat_tf.attacks.base import Attack, GradientAttack
from gat_tf.attacks.fab import FAB
from gat_tf.attacks.fast_gradient import FastGradient
from gat_tf.attacks.generator import GeneratorAttack
from gat_tf.attacks.hop_skip_jump import HopSkipJump
from gat_tf.attacks.pgd import PGD
from gat_tf.attacks.random import RandomPerturbation
from gat_tf.attacks.square import Square

__all__ = [
    "APGD",
    "FAB",
    "PGD",
    "Attack",
    "FastGradient",
    "GeneratorAttack",
    "GradientAttack",
    "HopSkipJump",
    "RandomPerturbation",
    "Square",
    "autoattack",
]
