"""Tiny models served on this machine, with a store of their pictures."""

import contextlib
import http.client
import json
import threading

import torch
from folders import WORDS, F, write_regions
from PIL import Image

from datamodules.formats.release_tsv import convert_tsv
from lxmert import Asker, LxmertConfig, LxmertForPreTraining, LxmertForVisualReasoning, LxmertTokenizer
from lxmert.serve import Gallery, Server, Service

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
ANSWERS = ["yes", "no", "a red cat", "2", "dog", "<b>blue</b>", "left"]
IMAGES = {"IMG_7": 1, "IMG/8 é": 3, "IMG_9": 5}  # of four regions each
BOXES = [[5, 5, 35, 20], [60, 5, 95, 20], [5, 28, 35, 45], [60, 28, 95, 45]]  # of 100 x 50 pixels


def save(folder, sizes, architecture=LxmertForPreTraining, seed=0, **changes):
    """A folder of weights with vocabulary and answers."""
    torch.manual_seed(seed)
    values = {"vocab_size": len(PIECES), "visual_feat_dim": F, "answers": ANSWERS, "initializer_range": 0.3}
    if architecture is LxmertForVisualReasoning:
        values["answers"] = None
    architecture(LxmertConfig(**{**sizes, **values, **changes})).save_pretrained(folder)
    LxmertTokenizer({piece: i for i, piece in enumerate(PIECES)}).save_pretrained(folder)
    return folder


def write_images(folder):
    """A store, and a folder with the pictures of all images but the last."""
    write_regions(folder / "regions.tsv", IMAGES, BOXES)
    convert_tsv(folder / "regions.tsv", folder / "regions.h5", progress=False)
    for place, image_id in enumerate(list(IMAGES)[:-1]):
        path = folder / "pictures" / f"{image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50), (40 * place, 90, 160)).save(path)
    return folder / "regions.h5", folder / "pictures"


def make_service(checkpoints, store, pictures, **options):
    """Of the checkpoints by their folders' names."""
    askers = {path.name: Asker.open(path, store=store, pictures=pictures) for path in checkpoints}
    first = next(iter(askers.values()))
    return Service(askers, Gallery(first.eyes, first.num_pictures, **options))


@contextlib.contextmanager
def serving(service):
    """A server of `service` at a free port, while the block lasts."""
    with Server(service) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def request(server, path, body=None, method=None, **headers):
    """Status, headers and what came; JSON as its value, all else as bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        if isinstance(body, dict):
            body = json.dumps(body)
            headers = {"Content-Type": "application/json", **headers}
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, answer.headers, json.loads(content) if is_json(answer) else content
    finally:
        connection.close()


def is_json(answer):
    return answer.headers.get_content_type() == "application/json"
