"""Toy retrieval: its files, as Karpathy's are."""

import json
import re

import pytest

from datamodules.formats.captions import read_captions
from datamodules.toy.retrieval import SPLITS, ToyRetrievalParameters, generate
from lxmert.files import InputError
from lxmert.tokenization import LxmertTokenizer

SIZES = {"train": 5, "val": 3, "test": 4, "captions": 3, "regions": 8, "feature_dim": 12, "pictures": 2, "seed": 7}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("toy") / "retrieval", ToyRetrievalParameters(**SIZES), progress=False)


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_the_folder_holds_captions_regions_and_pictures_and_nothing_else(root):
    assert set(contents(root)) == {
        *(f"captions_imgfeat/{split}.tsv" for split in SPLITS),
        *(f"images/TOY_{split}_{number:06d}.png" for split in SPLITS for number in (0, 1)),
        *("captions/dataset_captions.json", "vocab.txt", "toy.json"),
    }


def test_each_split_has_its_images_captions_and_regions(root):
    ids = []
    for split in SPLITS:
        read = list(read_captions(root / "captions" / "dataset_captions.json", split))
        assert [each.image for each in read] == [f"TOY_{split}_{number:06d}" for number in range(SIZES[split])]
        lines = (root / "captions_imgfeat" / f"{split}.tsv").read_text().splitlines()
        assert [line.split("\t")[0] for line in lines] == [each.image for each in read]
        for each in read:
            assert len({text for _, text in each.captions}) == 3
            ids += [identifier for identifier, _ in each.captions]
    assert ids == list(range(36))


def test_a_caption_has_the_fields_of_karpathys_files_and_known_words(root):
    tokenizer = LxmertTokenizer.from_pretrained(root / "vocab.txt")
    for image in json.loads((root / "captions" / "dataset_captions.json").read_text())["images"]:
        assert set(image) == {"filename", "imgid", "split", "sentences"}
        for sentence in image["sentences"]:
            assert set(sentence) == {"raw", "tokens", "sentid"}
            assert re.fullmatch(r"[A-Z0-9].*\.", sentence["raw"])
            assert tokenizer.unk_token_id not in tokenizer(sentence["raw"])["input_ids"]


def test_the_same_parameters_give_the_same_bytes_and_another_seed_other_ones(root, tmp_path):
    again = generate(tmp_path / "again", ToyRetrievalParameters(**SIZES), progress=False)
    assert contents(again) == contents(root)
    other = generate(tmp_path / "other", ToyRetrievalParameters(**SIZES | {"seed": 8}), progress=False)
    assert contents(other)["captions/dataset_captions.json"] != contents(root)["captions/dataset_captions.json"]


def test_an_impossible_size_is_refused():
    with pytest.raises(InputError, match="toy retrieval's test must be at least 1, not 0"):
        ToyRetrievalParameters(test=0)
