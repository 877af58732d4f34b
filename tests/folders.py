"""Files of the LXMERT release with made-up contents, for tests of what reads them."""

import base64
import json

import numpy as np

F = 5  # length of a made-up region feature
WORDS = ["what", "is", "red", "cat", "dog", "?", "how", "many", "are", "there", "both", "one"]


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def features_of(number):
    """What `write_regions` gives image `number`: three or four regions."""
    n = 3 + number % 2
    return number + np.arange(n * F).reshape(n, F) / 100


def write_regions(path, images, boxes=((1, 2, 30, 40),) * 4):
    """A region file; `images` maps ids to the numbers that their features tell."""

    def encode(array, dtype):
        return base64.b64encode(np.asarray(array, dtype).tobytes()).decode()

    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for image, number in images.items():
        features = features_of(number)
        n = len(features)
        ids, confidences = encode(range(n), np.int64), encode([0.5] * n, np.float32)
        places = encode(boxes[:n], np.float32)
        columns = [image, "50", "100", ids, confidences, ids, confidences, str(n), places]
        lines.append("\t".join([*columns, encode(features, np.float32)]) + "\n")
    path.write_text("".join(lines))


def write_vocabulary(path):
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
