"""What `python -m datamodules.validate` looks at in each kind of file."""
