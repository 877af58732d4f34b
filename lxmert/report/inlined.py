"""What pages have inside: the one drawing of pictures, words and answers, and data that scripts read."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any


def drawing() -> tuple[str, str]:
    """CSS and JavaScript of the drawing, to be put into a page."""
    here = Path(__file__).parent
    return (here / "drawing.css").read_text("utf-8"), (here / "drawing.js").read_text("utf-8")


def script_data(value: Any) -> str:
    """`value` as JSON for inside of a script element, whose text no "<" ends.

    Raises:
        ValueError: NaN or infinity, which are no JSON.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def source_hash(text: str) -> str:
    """What a Content-Security-Policy calls a script or style by, so that no other one runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
