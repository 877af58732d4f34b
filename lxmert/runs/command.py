"""The installed command `lxmert-train`: train.py, from the checkout or from the installed package."""

from __future__ import annotations

import runpy
from pathlib import Path


def main() -> None:
    """Run it as `python train.py` would."""
    here = Path(__file__).parents[1]
    installed = here / "app" / "train.py"
    script = installed if installed.exists() else here.parent / "train.py"
    runpy.run_path(str(script), run_name="__main__")
