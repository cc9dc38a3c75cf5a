"""Runs the evaluation: `python -m gat_tf.robustness --model=... --dataset=...`."""

from gat_tf.experiments.lab import flags
from gat_tf.robustness import command
from gat_tf.robustness.command import PRESETS, Config, run

__doc__ = command.__doc__  # what --help shows

flags.main(Config, PRESETS, run, "model-robustness")
