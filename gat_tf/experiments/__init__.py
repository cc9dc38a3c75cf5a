"""One runner a paper experiment: `python -m gat_tf.experiments.<name> --help`."""
