"""Weights for other projects: `python -m lxmert.checkpoint export --to {reference,original} CKPT OUT`."""

import sys

from lxmert.weights.export import main

if __name__ == "__main__":
    sys.exit(main())
