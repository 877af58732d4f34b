"""Region features of one's own pictures: `python -m datamodules.extract`."""
