"""Region features as other projects write them, made with csv, numpy, h5py, pickle, msgpack and lmdb.

`FORMATS` has for each what writes it into a folder, how it is called, whether it has labels and image sizes.
"""

import base64
import csv
import io
import json
import pickle

import h5py
import numpy as np
import pytest

DIM = 5
IDS = ["COCO_train2014_000000000009", "küche 1", "a.b c"]


class Image:
    """One image as any format may have it: `count` regions of `DIM` features, boxes in pixels."""

    def __init__(self, seed, count=3, width=640, height=480):
        rng = np.random.default_rng(seed)
        self.width, self.height, self.count = width, height, count
        corners = np.sort(rng.random((count, 2, 2)), axis=1) * [width, height]
        self.boxes = corners.reshape(count, 4).astype(np.float32)
        self.features = rng.gamma(1, 1, (count, DIM)).astype(np.float32)
        self.objects, self.attributes = rng.integers(0, 1600, count), rng.integers(0, 400, count)
        self.conf = rng.random(count).astype(np.float32)

    @property
    def fractions(self):
        return self.boxes / np.array([self.width, self.height] * 2, np.float32)

    @property
    def positions(self):
        """x1 y1 x2 y2 w h, as UNITER, VinVL and bottom-up-attention-vqa have them."""
        return np.concatenate([self.fractions, self.fractions[:, 2:] - self.fractions[:, :2]], 1)


def images(ids=IDS):
    return {name: Image(number, 2 + number) for number, name in enumerate(ids)}


def b64(array):
    return base64.b64encode(np.ascontiguousarray(array)).decode()


COLUMNS = {
    "img_id": lambda name, i: name,
    "img_w": lambda name, i: i.width,
    "img_h": lambda name, i: i.height,
    "num_boxes": lambda name, i: i.count,
    "boxes": lambda name, i: b64(i.boxes),
    "features": lambda name, i: b64(i.features),
    "objects_id": lambda name, i: b64(i.objects),
    "objects_conf": lambda name, i: b64(i.conf),
    "attrs_id": lambda name, i: b64(i.attributes),
    "attrs_conf": lambda name, i: b64(i.conf),
    "more": lambda name, i: b64(np.ones((i.count, 7), np.float32)),
    "query": lambda name, i: "red shoes",
}
RELEASE = [
    "img_id",
    "img_h",
    "img_w",
    "objects_id",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "num_boxes",
    "boxes",
    "features",
]
SIX = ["img_id", "img_w", "img_h", "num_boxes", "boxes", "features"]
NINE = ["img_id", "img_h", "img_w", "num_boxes", "boxes", "features", "more", "query", "query"]


def write_tsv(path, columns, images, header=()):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([header] if header else [])
        writer.writerows([COLUMNS[column](name, image) for column in columns] for name, image in images.items())
    return path


def tsv(columns, header=()):
    return lambda folder, images: write_tsv(folder / "a.tsv", columns, images, header)


def npz(ending=".jpg.npz", by_region=False, **more):
    def write(folder, images):
        folder = folder / "npz"
        folder.mkdir()
        for name, i in images.items():
            facts = {"image_w": i.width, "image_h": i.height}
            content = {"x": i.features if by_region else i.features.T, "bbox": i.boxes, "num_bbox": i.count}
            content |= {"info": np.array(facts)} if more.get("info") else facts
            np.savez_compressed(folder / f"{name}{ending}", **content)
        return folder

    return write


def uniter_npz(folder, images):
    folder = folder / "uniter"
    folder.mkdir()
    for name, i in images.items():
        np.savez(
            folder / f"{name}.npz", features=i.features, norm_bb=i.positions, conf=i.conf, soft_labels=i.features
        )
    return folder


def mmf(folder, images):
    folder = folder / "mmf"
    folder.mkdir()
    for name, i in images.items():
        np.save(folder / f"{name}.npy", i.features)
        info = {"bbox": i.boxes, "num_boxes": i.count, "objects": i.objects, "cls_prob": i.features}
        np.save(folder / f"{name}_info.npy", {**info, "image_width": i.width, "image_height": np.int64(i.height)})
    return folder


def vinvl(form):
    def write(folder, images):
        path = folder / ("predictions.tsv" if form == "objects" else "features.tsv")
        lines = []
        for name, i in images.items():
            text = b64(np.concatenate([i.features, i.positions], 1).astype(np.float32))
            objects = [
                {"rect": box.tolist(), "class": "cat", "conf": 0.5, "feature": b64(row)}
                for box, row in zip(i.boxes, i.features, strict=True)
            ]
            lines.append(
                {
                    "three": f"{name}\t{i.count}\t{text}",
                    "json": f"{name}\t" + json.dumps({"num_boxes": i.count, "features": text}),
                    "objects": f"{name}\t"
                    + json.dumps({"image_w": i.width, "image_h": i.height, "num_boxes": 1, "objects": objects}),
                }[form]
            )
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.with_suffix(".lineidx").write_text("0\n")
        return path

    return write


def h5_of_36(folder, images):
    """Of bottom-up-attention-vqa: as many regions of each, ids in a pickle beside."""
    images = {name: Image(seed, 3) for seed, name in enumerate(images)}
    with h5py.File(folder / "train36.hdf5", "w") as file:
        file["image_features"] = np.stack([i.features for i in images.values()])
        file["image_bb"] = np.stack([i.boxes for i in images.values()])
        file["spatial_features"] = np.stack([i.positions for i in images.values()])
    rows = {name: row for row, name in enumerate(images)}
    (folder / "train36_imgid2idx.pkl").write_bytes(pickle.dumps(rows, protocol=2))
    return folder / "train36.hdf5"


def h5_of_100(folder, images):
    ends = np.cumsum([i.count for i in images.values()])
    with h5py.File(folder / "train.hdf5", "w") as file:
        file["image_features"] = np.concatenate([i.features for i in images.values()])
        file["image_bb"] = np.concatenate([i.boxes for i in images.values()])
        file["spatial_features"] = np.concatenate([i.positions for i in images.values()])
        file["pos_boxes"] = np.stack([np.concatenate([[0], ends[:-1]]), ends], 1).astype(np.int32)
    (folder / "train_imgid2idx.pkl").write_bytes(pickle.dumps({name: row for row, name in enumerate(images)}))
    return folder / "train.hdf5"


def h5_own(folder, images):
    """Padded, with sizes and ids in the file."""
    most = max(i.count for i in images.values())
    with h5py.File(folder / "own.h5", "w") as file:
        for name, width in (("features", DIM), ("boxes", 4)):
            padded = np.full((len(images), most, width), -1, np.float32)
            for row, i in enumerate(images.values()):
                padded[row, : i.count] = getattr(i, name)
            file[name] = padded
        file["num_boxes"] = [i.count for i in images.values()]
        file["image_w"], file["image_h"] = ([getattr(i, s) for i in images.values()] for s in ("width", "height"))
        file["image_ids"] = np.array([name.encode() for name in images])
    return folder / "own.h5"


def h5_of_volta(folder, images):
    with h5py.File(folder / "volta.h5", "w") as file:
        for name, i in images.items():
            group = file.create_group(name)
            group["features"], group["boxes"], group["img_w"], group["img_h"] = (
                *(i.features, i.boxes, i.width, i.height),
            )
            group["obj_id"], group["obj_conf"], group["attr_id"], group["attr_conf"] = (
                *(i.objects, i.conf, i.attributes, i.conf),
            )
    return folder / "volta.h5"


def write_lmdb(folder, values):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(folder / "base"), map_size=1 << 24) as base, base.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key if isinstance(key, bytes) else key.encode(), value)
    return folder / "base"


def lmdb_of_uniter(compress):
    def write(folder, images):
        msgpack = pytest.importorskip("msgpack")

        def plain(array):  # as msgpack_numpy writes it
            facts = {b"nd": True, b"type": array.dtype.str, b"kind": b"", b"shape": array.shape}
            return {**facts, b"data": array.tobytes()}

        values = {"__keys__": json.dumps([f"{name}.npz" for name in images]).encode()}
        for name, i in images.items():
            content = {"features": i.features, "norm_bb": i.positions, "conf": i.conf, "soft_labels": i.features}
            if compress:
                file = io.BytesIO()
                np.savez_compressed(
                    file, **content, allow_pickle=True
                )  # which numpy takes for an array, as UNITER
                values[f"{name}.npz"] = file.getvalue()
            else:
                values[f"{name}.npz"] = msgpack.packb(
                    {key: plain(a) for key, a in content.items()}, use_bin_type=True
                )
        return write_lmdb(folder, values)

    return write


def lmdb_of_volta(arrays):
    def write(folder, images):
        values = {"keys": pickle.dumps([name.encode() for name in images])}
        for number, (name, i) in enumerate(images.items()):
            if arrays:
                item = {"features": i.features, "boxes": i.boxes, "img_w": np.int64(i.width), "img_h": i.height}
                item |= {"obj_id": i.objects, "obj_conf": i.conf, "attr_id": i.attributes, "attr_conf": i.conf}
                values[name] = pickle.dumps({**item, "img_id": name})
            else:
                item = {column: str(COLUMNS[column](name, i)) for column in RELEASE}
                values[str(number)] = pickle.dumps({**item, "cls_prob": item["features"]})
        return write_lmdb(folder, values)

    return write


def lmdb_of_mmf(folder, images):
    values = {"keys": pickle.dumps([name.encode() for name in images])}
    for name, i in images.items():
        info = {"feature_path": name, "features": i.features, "bbox": i.boxes, "objects": i.objects}
        values[name] = pickle.dumps({**info, "image_height": i.height, "image_width": i.width, "cls_prob": None})
    return write_lmdb(folder, values)


FORMATS = {  # name -> what writes it, what it is called, whether it has labels, whether it has image sizes
    "release": (tsv(RELEASE), "regions of the LXMERT release", True, True),
    "six columns": (tsv(SIX), "six-column TSV of bottom-up-attention", False, True),
    "seven columns": (tsv([*SIX, "more"]), "seven-column TSV", False, True),
    "eight columns": (
        tsv(["img_id", "img_h", "img_w", "num_boxes", "boxes", "features", "more", "more"]),
        "eight-column TSV",
        False,
        True,
    ),
    "nine columns": (tsv(NINE), "nine-column TSV", False, True),
    "nine columns with their names": (
        tsv(
            NINE,
            [
                "product_id",
                "image_h",
                "image_w",
                "num_boxes",
                "boxes",
                "features",
                "class_labels",
                "query",
                "query_id",
            ],
        ),
        "TSV whose first line names its columns",
        False,
        True,
    ),
    "thirteen columns": (tsv([*RELEASE, "more", "more", "more"]), "thirteen-column TSV of VOLTA", True, True),
    "npz, F x n": (npz(), "bottom-up-attention npz files", False, True),
    "npz, n x F": (npz(".png.npz", by_region=True), "bottom-up-attention npz files", False, True),
    "npz with info": (npz(".npz", info=True), "bottom-up-attention npz files", False, True),
    "npz of UNITER": (uniter_npz, "npz files of UNITER", False, False),
    "npy of MMF": (mmf, "MMF's npy files", False, True),
    "VinVL, three columns": (vinvl("three"), "VinVL's TSV", False, False),
    "VinVL, JSON": (vinvl("json"), "VinVL's TSV", False, False),
    "VinVL, objects": (vinvl("objects"), "VinVL's TSV", False, True),
    "h5 of 36": (h5_of_36, "HDF5 of bottom-up-attention features", False, True),
    "h5 of 100": (h5_of_100, "HDF5 of bottom-up-attention features", False, True),
    "h5 of one's own": (h5_own, "HDF5 of bottom-up-attention features", False, True),
    "h5 of VOLTA": (h5_of_volta, "HDF5 of VOLTA", True, True),
    "LMDB of UNITER": (lmdb_of_uniter(False), "LMDB of region features", False, False),
    "LMDB of UNITER, compressed": (lmdb_of_uniter(True), "LMDB of region features", False, False),
    "LMDB of VOLTA": (lmdb_of_volta(False), "LMDB of region features", True, True),
    "LMDB of VOLTA, arrays": (lmdb_of_volta(True), "LMDB of region features", True, True),
    "LMDB of MMF": (lmdb_of_mmf, "LMDB of region features", False, True),
}
