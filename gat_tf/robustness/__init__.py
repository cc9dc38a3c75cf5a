"""The command that evaluates the robustness of a Keras classifier: `python -m
gat_tf.robustness`."""
