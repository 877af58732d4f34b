"""All pairs of a split: the same scores in any blocks, processes and after a kill; candidates; the command."""

import functools
import json
import multiprocessing
import re
import runpy
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import FORKS

from datamodules.toy import ToyRetrievalDataModule
from lxmert import LxmertConfig, LxmertForPreTraining, LxmertForQuestionAnswering
from lxmert.files import InputError
from lxmert.retrieve import ScoreFile, fingerprint_of, ranks_of, read_candidates, score_pairs, scoring, summarize
from lxmert.retrieve.__main__ import _end_with_parent, main

ROUNDING = 1e-4  # of scores of weights that are wider than trained ones
WORLD = {"train": 2, "val": 2, "test": 9, "captions": 3, "regions": 8, "pictures": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A toy of nine test images with three captions each."""
    root = tmp_path_factory.mktemp("retrieve") / "toy"
    module = ToyRetrievalDataModule(
        root, folder="captions", region_folder="captions_imgfeat", world=WORLD, feature_dim=12, max_length=16
    )
    module.prepare_data("test")
    module.setup("test")
    return module


@pytest.fixture(scope="module")
def collection(data):
    return data.captions_of("test", 0)


@pytest.fixture(scope="module")
def model(data, sizes):
    torch.manual_seed(0)
    made = LxmertForPreTraining(config_of(data, sizes)).eval()
    return made


def config_of(data, sizes, **changes):
    tokenizer = data.tokenizer
    changes |= {"visual_feat_dim": 12, "vocab_size": len(tokenizer), "vocab_sha256": tokenizer.sha256}
    return LxmertConfig(**{**sizes, "initializer_range": 0.5, **changes})


def scored(model, collection, scores=None, **options):
    shape = len(collection.texts), len(collection.image_ids)
    scores = np.full(shape, np.nan, np.float32) if scores is None else scores
    score_pairs(model.lxmert, model.cls.seq_relationship, collection, scores, **options)
    return scores


@pytest.fixture(scope="module")
def expected(model, collection):
    """Each pair alone, through the model's own call."""
    scores = np.empty((27, 9), np.float32)
    with torch.inference_mode():
        for image in range(9):
            for caption in range(27):
                batch = collection.batch(np.array([caption]), np.array([image]))
                logits = model(
                    batch.token_ids, batch.region_features.float(), batch.region_boxes, batch.token_mask.long()
                ).cross_relationship_score[0]
                scores[caption, image] = logits[1] - logits[0]
    return scores


# ------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize("rows", [1, 64, 1024])
@pytest.mark.parametrize("side", [4, 256])
def test_blocks_of_any_size_score_as_each_pair_alone(model, collection, expected, rows, side, monkeypatch):
    monkeypatch.setattr(scoring, "SIDE", side)
    found = scored(model, collection, rows=rows)
    np.testing.assert_allclose(found, expected, atol=ROUNDING)
    ranks, alone = (ranks_of(each, collection.image_of) for each in (found, expected))
    assert ranks.images.tolist() == alone.images.tolist() and ranks.texts.tolist() == alone.texts.tolist()
    assert len(set(ranks.images.tolist())) > 3


def test_processes_fill_in_their_own_captions_and_together_all(model, collection, expected):
    scores = scored(model, collection, share=(1, 2))
    assert np.isnan(scores[0::2]).all() and not np.isnan(scores[1::2]).any()
    np.testing.assert_allclose(scored(model, collection, scores, share=(0, 2)), expected, atol=ROUNDING)


def test_an_image_is_encoded_once_for_all_captions_and_a_caption_once_a_block(model, collection, monkeypatch):
    monkeypatch.setattr(scoring, "SIDE", 5)
    seen = {"sentences": 0, "images": 0}
    for name in seen:

        def counted(name, encode, batch):
            seen[name] += len(batch.token_ids if name == "sentences" else batch.region_mask)
            return encode(batch)

        encode = getattr(model.lxmert, f"encode_{name}")
        monkeypatch.setattr(model.lxmert, f"encode_{name}", functools.partial(counted, name, encode))
    scored(model, collection)
    assert seen == {"sentences": 27 * 2, "images": 9}


def test_what_is_scored_already_is_left_alone(model, collection, expected):
    scores = np.full((27, 9), 7, np.float32)
    scores[[3, 3, 20], [1, 8, 4]] = np.nan
    done = []
    scored(model, collection, scores, done=done.append)
    assert sum(done) == 3 and (scores == 7).sum() == 27 * 9 - 3
    np.testing.assert_allclose(scores[[3, 3, 20], [1, 8, 4]], expected[[3, 3, 20], [1, 8, 4]], atol=ROUNDING)


def test_no_rows_at_once_are_refused(model, collection):
    with pytest.raises(InputError, match="rows=0; expected"):
        scored(model, collection, rows=0)


def test_scores_that_are_no_numbers_are_refused_and_not_waited_for(model, collection, monkeypatch):
    batch_of = collection.batch

    def batch(captions, images):
        made = batch_of(captions, images)
        made.region_features[:, 0] = torch.finfo(torch.float32).max
        return made

    monkeypatch.setattr(collection, "batch", batch)
    with pytest.raises(InputError, match="scores are not finite"):
        scored(model, collection)


# ------------------------------------------------------------------------------------------ score files


class Killed(Exception):
    """In place of a signal."""


def test_a_killed_scoring_goes_on_from_the_pairs_that_were_done(model, collection, expected, tmp_path):
    weights = fingerprint_of(model.state_dict())
    steps = []

    def kill(done):
        steps.append(done)
        if sum(steps) >= 100:
            raise Killed

    with pytest.raises(Killed):
        scored(
            model, collection, ScoreFile.make(tmp_path, "scores", collection, weights).open(), rows=25, done=kill
        )
    file = ScoreFile.make(tmp_path, "scores", collection, weights)
    assert (~np.isnan(file.open())).sum() == 100
    with pytest.raises(InputError, match="143 of 243 pairs have no score yet"):
        ranks_of(file.open(), collection.image_of)
    left = []
    scored(model, collection, file.open(), done=left.append)
    assert sum(left) == 143
    np.testing.assert_allclose(file.open(), expected, atol=ROUNDING)


def test_scores_of_other_weights_captions_or_candidates_are_not_gone_on_with(model, collection, tmp_path):
    weights = fingerprint_of(model.state_dict())
    ScoreFile.make(tmp_path, "scores", collection, weights)
    others = [
        (collection, "other weights", None),
        (replace(collection, texts=[*collection.texts[:-1], "a cat"]), weights, None),
        (collection, weights, [np.array([0])] * 27),
    ]
    for different in others:
        with pytest.raises(InputError, match=r"scores.npy has scores of other weights, captions, images or cand"):
            ScoreFile.make(tmp_path, "scores", *different)
    file = ScoreFile.make(tmp_path, "scores", *others[2], anew=True)
    assert np.isnan(file.open()[:, 0]).all() and (file.open()[:, 1:] == -np.inf).all()
    file.about.unlink()
    with pytest.raises(InputError, match="has scores of other weights"):  # of nobody knows what
        ScoreFile.make(tmp_path, "scores", collection, weights)


@pytest.mark.parametrize("kept", [40, 500, -4, -1])
def test_a_score_file_that_is_cut_off_is_named_and_not_filled_up(collection, tmp_path, kept):
    file = ScoreFile.make(tmp_path, "scores", collection, "weights")
    file.path.write_bytes(file.path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"scores.npy: .* Remove it"):
        ScoreFile.make(tmp_path, "scores", collection, "weights")


def test_a_weight_that_changes_changes_the_fingerprint(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = fingerprint_of(state)
    assert fingerprint_of(dict(reversed(state.items()))) == before
    next(iter(state.values())).view(-1)[3] += 1e-3
    assert fingerprint_of(state) != before


# ------------------------------------------------------------------------------------------ candidates


def first_images(collection, number=4):
    """The own image of each caption, and those that follow it."""
    ids = collection.image_ids
    return {
        str(caption): [ids[(own + step) % len(ids)] for step in range(number)]
        for caption, own in zip(collection.caption_ids, collection.image_of.tolist(), strict=True)
    }


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_candidates_alone_are_scored(model, collection, expected, tmp_path):
    named = first_images(collection)
    chosen = read_candidates(write(tmp_path / "named.json", named), collection)
    scores = ScoreFile.make(tmp_path, "scores", collection, "weights", chosen).open()
    done = []
    scored(model, collection, scores, done=done.append)
    assert sum(done) == 27 * 4
    for caption, own in enumerate(collection.image_of.tolist()):
        there = [(own + step) % 9 for step in range(4)]
        np.testing.assert_allclose(scores[caption, there], expected[caption, there], atol=ROUNDING)
        assert (np.delete(scores[caption], there) == -np.inf).all()
    ranks = ranks_of(scores, collection.image_of).images
    assert ranks.max() <= 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda named, ids: named.update({"17": ids[5:7]}),
            r"image of 1 of 27 captions .* first of 17\. With --count",
        ),
        (lambda named, ids: named.pop("15"), "candidates of caption 15 are None, expected a list"),
        (lambda named, ids: named.update({"15": []}), r"candidates of caption 15 are \[\], expected a list"),
        (
            lambda named, ids: named["16"].append("5.jpg"),
            "caption 16 has the candidate '5.jpg', which is no image",
        ),
        (lambda named, ids: named["16"].append(7), "caption 16 has the candidate 7, which is no image"),
        (lambda named, ids: named["16"].append(named["16"][0]), "caption 16 has an image twice"),
    ],
)
def test_candidates_that_cannot_be_used_are_named(collection, tmp_path, change, message):
    assert collection.caption_ids == list(range(12, 39))  # after those of the other splits
    named = first_images(collection)
    change(named, collection.image_ids)
    with pytest.raises(InputError, match=message):
        read_candidates(write(tmp_path / "named.json", named), collection)


def test_missed_captions_are_ranked_last_on_request(collection, tmp_path):
    named = first_images(collection)
    caption = str(collection.caption_ids[0])
    named[caption] = named[caption][1:]
    path = write(tmp_path / "named.json", named)
    chosen = read_candidates(path, collection, count_missed=True)
    scores = ScoreFile.make(tmp_path, "scores", collection, "weights", chosen).open()
    scores[np.isnan(scores)] = 0
    assert ranks_of(scores, collection.image_of).images.tolist() == [9] + [4] * 26


# --------------------------------------------------------------------------------------------- command


@pytest.fixture(scope="module")
def run(model, data, tmp_path_factory):
    """A folder of weights with all that is needed to open it."""
    folder = tmp_path_factory.mktemp("run")
    model.save_pretrained(folder)
    data.tokenizer.save_pretrained(folder)
    return folder


def arguments(run, data, out, *more):
    captions = data.release.root / "captions" / "dataset_captions.json"
    store = data.release.region_store("captions_imgfeat/test")
    return [str(run), str(captions), "--store", str(store), "--out", str(out), "--max-length", "16", *more]


def command(run, data, out, *more):
    return main(arguments(run, data, out, *more))


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # of running what is imported
def test_the_command_ranks_in_two_processes_as_the_library_does_in_one(
    run, data, collection, expected, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: FORKS)  # which have imported everything
    out = tmp_path / "out"
    more = ["--devices", "2", "--pictures", str(data.release.root / "images")]
    monkeypatch.setattr("sys.argv", ["retrieve", *arguments(run, data, out, *more)])
    with pytest.raises(
        SystemExit
    ) as ended:  # as `python -m lxmert.retrieve`, whose functions are those of __main__
        runpy.run_module("lxmert.retrieve", run_name="__main__")
    assert not ended.value.code
    np.testing.assert_allclose(np.load(out / "scores.npy"), expected, atol=ROUNDING)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == summarize(ranks_of(expected, collection.image_of))
    said = capsys.readouterr().out
    assert "27 captions, 9 images" in said and f"{metrics['image_retrieval']['mean_rank']:.2f}" in said
    about = json.loads((out / "scores.json").read_text())
    assert about["captions"] == collection.caption_ids and about["images"] == collection.image_ids
    assert about["image_of"] == collection.image_of.tolist()
    rankings = json.loads((out / "rankings.json").read_text())
    best = expected.argmax(1)
    for caption, ranking in zip(collection.caption_ids, best, strict=True):
        (image, score), *rest = rankings["images"][str(caption)]
        assert image == collection.image_ids[ranking] and len(rest) == 8
        assert score == pytest.approx(expected[collection.caption_ids.index(caption), ranking], abs=1e-3)
    for place, image in enumerate(collection.image_ids):
        ranked = [collection.caption_ids.index(caption) for caption, _ in rankings["texts"][image]]
        assert len(ranked) == 10 and ranked[0] == expected[:, place].argmax()
    page = (out / "report.html").read_text()
    assert page.count("<div class='card") == 24 and "its own" in page and "data:image/png" in page
    before = (out / "scores.npy").stat().st_mtime_ns
    assert command(run, data, out) == 0  # nothing is left to do
    assert (out / "scores.npy").stat().st_mtime_ns == before


def wait_to_be_ended(told):
    threading.Thread(target=_end_with_parent, daemon=True).start()
    told.send("began")
    time.sleep(60)


def begin_and_wait(told):
    FORKS.Process(target=wait_to_be_ended, args=(told,)).start()
    time.sleep(60)


def test_of_a_killed_command_no_process_goes_on():
    heard, told = FORKS.Pipe(duplex=False)
    command = FORKS.Process(target=begin_and_wait, args=(told,))
    command.start()
    told.close()
    assert heard.recv() == "began"
    command.kill()
    assert heard.poll(20)
    with pytest.raises(EOFError):  # nobody is left who could tell something
        heard.recv()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split", "tset"], r"no image of the split 'tset'; there are train \(2 images\)"),
        (["--split", "val"], "2 of its 2 images of val have no regions in"),
        (["--rows", "0"], "--rows 0: expected 1 or more"),
        (["--max-length", "400"], "--max-length 400: the model has 16 positions"),
        (["--max-length", "2"], "--max-length 2: expected 3 or more"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(run, data, tmp_path, capsys, more, message):
    assert command(run, data, tmp_path / "out", *more) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert re.search(message, said), said


def test_a_model_without_a_matching_head_is_refused(data, sizes, tmp_path, capsys):
    LxmertForQuestionAnswering(config_of(data, sizes)).save_pretrained(tmp_path)
    data.tokenizer.save_pretrained(tmp_path)
    assert command(tmp_path, data, tmp_path / "out") == 1
    assert "has no matching head" in capsys.readouterr().err
