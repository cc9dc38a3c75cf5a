"""Times a step of Rob-GAN over the passes that it cannot do without, interleaved.

    python benchmarks/robgan_step.py [--width=0.25] [--rounds=25] [--processor_time]

The networks of 32 pixels at batch 64, their filters narrowed by `width`, on two threads. A step
without attack must take D forward and back for its weights on reals and again on fakes, G forward
for those fakes, G's own step (G and D forward, back through D to its images and through G to its
weights), and two optimisers' updates. PGD-5 adds five times D forward and back to the images. Each
of these is compiled and timed alone. In each round everything runs once; printed are medians over
the rounds of the ratio within a round, so that a machine that is slow for a while is slow for all.
"Measured / counted" is the step over the sum of its parts: 1.15 at most is what we ask for. On a
machine that is busy with other work, `--processor_time` counts what this process used of it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time

import tensorflow as tf

from gat_tf import attacks, models, training
from gat_tf.training.gan import adam, draw
from gat_tf.training.robgan import fake_loss, generator_step, real_loss

BATCH = 64
CLASSES = 10
LATENT = 128
ATTACK = attacks.PGD(0.07, math.inf, 5, step_size=0.0078, random_start=False, clip=(-1, 1))
# How often each part is in a step.
WITHOUT_ATTACK = {"D on reals": 1, "D on fakes": 1, "G": 1, "G's step": 1, "updates": 1}
STEPS = {
    "no attack": WITHOUT_ATTACK,
    "PGD-5": WITHOUT_ATTACK | {"D to images": ATTACK.steps},
}


def build(width: float) -> dict:
    """Compiled functions without arguments: the two steps and their parts, by name."""
    images = tf.random.uniform([BATCH, 32, 32, 3], -1, 1)
    labels = tf.random.uniform([BATCH], maxval=CLASSES, dtype=tf.int32)
    noise, fake_labels = draw(images, LATENT, CLASSES, [0, 0])
    d = models.discriminator(CLASSES, width=width)
    g = models.image_generator(CLASSES, width=width)
    fakes = g([noise, fake_labels])
    optimizers = adam(), adam()
    for optimizer, network in zip(optimizers, (d, g), strict=True):
        optimizer.build(network.trainable_variables)

    def step(attack):
        scheme = training.RobGAN(
            models.discriminator(CLASSES, width=width),
            models.image_generator(CLASSES, width=width),
            attack,
        )
        scheme.compile()
        return lambda: scheme.train_step((images, labels))

    def backward(network_input, loss, to_images):
        with tf.GradientTape(watch_accessed_variables=not to_images) as tape:
            if to_images:
                tape.watch(network_input)
            value = loss(d(network_input, training=not to_images))
        return tape.gradient(value, network_input if to_images else d.trainable_variables)

    def update():
        for optimizer, network in zip(optimizers, (d, g), strict=True):
            zeros = [tf.zeros_like(v) for v in network.trainable_variables]
            optimizer.apply_gradients(zip(zeros, network.trainable_variables, strict=True))

    def of_reals(outputs):
        return real_loss(outputs, labels)

    def of_fakes(outputs):
        return fake_loss(outputs, fake_labels, "split")

    functions = {
        "no attack": step(None),
        "PGD-5": step(ATTACK),
        "D on reals": lambda: backward(images, of_reals, to_images=False),
        "D on fakes": lambda: backward(fakes, of_fakes, to_images=False),
        "G": lambda: g([noise, fake_labels], training=True),
        "G's step": lambda: generator_step(d, g, noise, fake_labels).gradients,
        "updates": update,
        "D to images": lambda: backward(images, of_reals, to_images=True),
    }
    return {name: tf.function(f, autograph=False) for name, f in functions.items()}


def main(width: float, rounds: int, clock=time.perf_counter) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    functions = build(width)
    for function in functions.values():  # trace, and let the allocator settle
        function()
        function()
    seconds = {name: [] for name in functions}
    for i in range(rounds):
        for name, function in functions.items():
            started = clock()
            function()
            seconds[name].append(clock() - started)
        print(f"\rround {i + 1}/{rounds}", end="", file=sys.stderr, flush=True)

    def counted(step, i):
        return sum(times * seconds[part][i] for part, times in STEPS[step].items())

    print("\n| part | share of the step without attack |\n|---|---|")
    for part in STEPS["PGD-5"]:
        pairs = zip(seconds[part], seconds["no attack"], strict=True)
        print(f"| {part} | {statistics.median(a / b for a, b in pairs):.2f} |")
    print("\n| step | over no attack | measured / counted |\n|---|---|---|")
    for step in STEPS:
        pairs = zip(seconds[step], seconds["no attack"], strict=True)
        over = statistics.median(a / b for a, b in pairs)
        ratio = statistics.median(seconds[step][i] / counted(step, i) for i in range(rounds))
        print(f"| {step} | {over:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--processor_time", action="store_true")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    main(arguments.width, arguments.rounds, clock)
