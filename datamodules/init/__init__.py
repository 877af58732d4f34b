"""What `python -m datamodules.init` writes for a data set of one's own: its experiment and its vocabulary."""
