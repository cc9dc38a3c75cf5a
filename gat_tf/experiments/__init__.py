"""One runner per experiment of the papers: `python -m gat_tf.experiments.<name> --help`."""
