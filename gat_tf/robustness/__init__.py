"""The command that tells how robust a Keras classifier is: `python -m gat_tf.robustness`."""
