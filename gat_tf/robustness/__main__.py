"""Runs the evaluation: `python -m gat_tf.robustness --model=... --dataset=...`."""

from gat_tf.experiments.lab import flags
from gat_tf.robustness.command import PRESETS, Config, run

flags.main(Config, PRESETS, run, "model-robustness")
