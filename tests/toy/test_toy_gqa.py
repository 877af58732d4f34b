"""Toy GQA: its files against each other, and its questions against readings that share no code with them."""

import base64
import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from datamodules.toy.files import question_only_accuracy
from datamodules.toy.gqa import SPLITS, ToyGqaParameters, generate
from datamodules.toy.gqa_questions import QUESTION_KINDS, WORDS, ask
from datamodules.toy.world import COLORS, SHAPES, Detector, draw_scenes
from lxmert.evaluate import score_gqa
from lxmert.evaluate.grounding import grounding_score
from lxmert.tokenization import LxmertTokenizer

SMALL = ToyGqaParameters(
    train=30, valid=12, testdev=20, questions=6, regions=8, feature_dim=24, pictures=2, seed=7
)
# What the makers have of a question.
MEMBERS = {"question", "answer", "fullAnswer", "imageId", "isBalanced", "semantic", "semanticStr", "types"}
MEMBERS |= {"groups", "entailed", "equivalent", "annotations"}
BACKGROUNDS = {(232, 240, 248): "blue", (240, 236, 226): "yellow", (230, 242, 232): "green"}
BACKGROUNDS |= {(246, 234, 236): "red", (236, 233, 246): "purple"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("toy") / "gqa", SMALL, progress=False)


@pytest.fixture(scope="module")
def scenes():
    return list(draw_scenes([f"scene {i}" for i in range(250)], Random("scenes")))


@pytest.fixture(scope="module")
def asked(scenes):
    """(scene, question) with what follows from each."""
    rng = Random("questions")
    return [(scene, question) for scene in scenes for question, _ in ask(scene, 6, rng)]


def small(**changes):
    return ToyGqaParameters(**{**vars(SMALL), **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def load(root: Path, name: str):
    return json.loads((root / "gqa" / f"{name}.json").read_text())


def images_of(root: Path, name: str) -> list[str]:
    lines = (root / "vg_gqa_imgfeat" / f"{name}_obj36.tsv").read_bytes().removesuffix(b"\r\n").split(b"\r\n")
    return [line.split(b"\t")[0].decode() for line in lines]


# ------------------------------------------------------------------------------------------ files


def test_the_folder_holds_these_files_and_nothing_else(root):
    kinds = ("", "_balanced_questions", "_all_questions", "_choices", "_sceneGraphs")
    assert {n for n in contents(root) if not n.startswith("images/")} == {
        *(f"gqa/{split}{kind}.json" for split in SPLITS for kind in kinds),
        "gqa/testdev_all.json",
        "vg_gqa_imgfeat/vg_gqa_obj36.tsv",
        "vg_gqa_imgfeat/gqa_testdev_obj36.tsv",
        "vocab.txt",
        "toy.json",
    }


@pytest.mark.parametrize("split", SPLITS)
def test_the_release_s_rows_are_the_makers_balanced_questions(root, split):
    rows, balanced, every = (
        load(root, f"{split}{kind}") for kind in ("", "_balanced_questions", "_all_questions")
    )
    assert len(rows) == 6 * getattr(SMALL, split)
    assert [row["question_id"] for row in rows] == list(balanced)
    for row in rows:
        question = balanced[row["question_id"]]
        assert row == {
            "question_id": row["question_id"],
            "img_id": question["imageId"],
            "sent": question["question"],
            "label": {question["answer"]: 1.0},
        }
    assert balanced == {id_: question for id_, question in every.items() if question["isBalanced"]}
    assert len(every) > 2.5 * len(balanced)


def test_the_release_has_all_testdev_questions_too(root):
    rows, every = load(root, "testdev_all"), load(root, "testdev_all_questions")
    assert {row["question_id"]: (row["sent"], row["label"]) for row in rows} == {
        id_: (question["question"], {question["answer"]: 1.0}) for id_, question in every.items()
    }
    assert len(rows) == len(every)


def test_questions_have_all_that_the_makers_have(root):
    ids: Counter = Counter()
    for split in SPLITS:
        regions = images_of(root, "gqa_testdev" if split == "testdev" else "vg_gqa")
        every = load(root, f"{split}_all_questions")
        ids.update(every.keys())
        for id_, question in every.items():
            assert id_.isdigit() and question["imageId"] in regions
            assert set(question) == MEMBERS
            assert question["types"]["structural"] in ("query", "verify", "choose", "compare", "logical")
            assert question["types"]["semantic"] in ("attr", "cat", "global", "obj", "rel")
            assert (question["groups"]["global"] is None) == (question["answer"] in ("yes", "no"))
            for place, step in enumerate(question["semantic"]):
                assert set(step) == {"operation", "dependencies", "argument"}
                assert all(earlier < place for earlier in step["dependencies"])
            used = {earlier for step in question["semantic"] for earlier in step["dependencies"]}
            assert used == set(range(len(question["semantic"]) - 1))  # every step but the last is used
            assert question["semanticStr"].count("->") == len(question["semantic"]) - 1
    assert max(ids.values()) == 1
    assert sum(SMALL.__dict__[split] for split in SPLITS) == len(set(images_of(root, "vg_gqa"))) + SMALL.testdev


def test_every_type_is_there(asked):
    assert {q.structural for _, q in asked} == {"query", "verify", "choose", "compare", "logical"}
    assert {q.semantic for _, q in asked} == {"attr", "cat", "global", "obj", "rel"}


def test_no_question_is_there_twice_in_a_scene(root):
    for split in SPLITS:
        texts = Counter((q["imageId"], q["question"]) for q in load(root, f"{split}_all_questions").values())
        assert max(texts.values()) == 1


def test_related_questions_are_of_the_same_image(root):
    every = load(root, "testdev_all_questions")
    entailing = 0
    for id_, question in every.items():
        others = [*question["entailed"], *question["equivalent"]]
        assert all(every[other]["imageId"] == question["imageId"] for other in others)
        assert id_ in question["equivalent"] and id_ not in question["entailed"]
        assert len(set(question["entailed"])) == len(question["entailed"])
        for other in question["equivalent"]:
            assert every[other]["equivalent"] == question["equivalent"]
            assert every[other]["answer"] == question["answer"]
        entailing += question["isBalanced"] and len(question["entailed"]) > 1
    assert entailing > 0.8 * len(load(root, "testdev"))


def test_annotations_name_what_their_words_say(root):
    graphs, seen = load(root, "testdev_sceneGraphs"), Counter()
    for question in load(root, "testdev_all_questions").values():
        objects = graphs[question["imageId"]]["objects"]
        for key, text in (("question", question["question"]), ("fullAnswer", question["fullAnswer"])):
            for tokens, object_id in question["annotations"][key].items():
                first, _, end = tokens.partition(":")
                words = text.split()[int(first) : int(end or int(first) + 1)]
                entry = objects[object_id]
                for word in (word.strip("?.,") for word in words):
                    fitting = (entry["name"], entry["name"] + "s", entry["name"] + "es", "thing", "things")
                    assert word in (*fitting, *entry["attributes"])
                seen[key] += 1
    assert min(seen.values()) > 100


def test_scene_graphs_have_boxes_and_relations(root):
    opposite = {"to the left of": "to the right of", "above": "below"}
    opposite |= {there: back for back, there in opposite.items()}
    relations = 0
    for split in SPLITS:
        graphs = load(root, f"{split}_sceneGraphs")
        assert len(graphs) == getattr(SMALL, split)
        for graph in graphs.values():
            objects = graph["objects"]
            for id_, thing in objects.items():
                assert thing["name"] in SHAPES and thing["attributes"][0] in COLORS
                assert thing["x"] >= 0 and thing["x"] + thing["w"] <= graph["width"] + 1
                assert thing["y"] >= 0 and thing["y"] + thing["h"] <= graph["height"] + 1
                for relation in thing["relations"]:
                    other = objects[relation["object"]]
                    assert {"name": opposite[relation["name"]], "object": id_} in other["relations"]
                    if relation["name"] == "to the left of":
                        assert thing["x"] + thing["w"] / 2 < other["x"] + other["w"] / 2
                    relations += 1
    assert relations > 100


def test_features_look_as_in_the_toy_world_of_the_same_seed(root):
    def looks(seed: int) -> np.ndarray:
        drawn = list(draw_scenes(["any"] * 200, Random("looks")))
        regions = Detector(8, 24, seed).detect(drawn, np.random.default_rng(1))
        return mean_by_shape(regions.object_ids.ravel(), regions.features.reshape(-1, 24))

    def mean_by_shape(ids: np.ndarray, features: np.ndarray) -> np.ndarray:
        means = np.array([features[ids == shape].mean(0) for shape in range(len(SHAPES))])
        return means - means.mean(0)

    ids, features = [], []
    for line in (root / "vg_gqa_imgfeat" / "vg_gqa_obj36.tsv").read_bytes().removesuffix(b"\r\n").split(b"\r\n"):
        columns = line.split(b"\t")
        ids.append(np.frombuffer(base64.b64decode(columns[3]), np.int64))
        features.append(np.frombuffer(base64.b64decode(columns[9]), np.float32).reshape(-1, 24))
    ours = mean_by_shape(np.concatenate(ids), np.concatenate(features)).ravel()
    same, other = (np.corrcoef(ours, looks(seed).ravel())[0, 1] for seed in (SMALL.seed, SMALL.seed + 1))
    assert same > 0.7 > 0.4 > other


def test_pictures_have_the_size_that_the_scene_graph_tells(root):
    pictures = sorted((root / "images").glob("*.png"))
    assert len(pictures) == 2 * len(SPLITS)
    graphs = {k: v for split in SPLITS for k, v in load(root, f"{split}_sceneGraphs").items()}
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (graphs[path.stem]["width"], graphs[path.stem]["height"])


def test_every_text_has_tokens_and_fits_into_twenty(root):
    tokenizer = LxmertTokenizer.from_pretrained(root / "vocab.txt")
    texts = [row["sent"] for row in load(root, "testdev_all")]
    for ids in tokenizer(texts)["input_ids"]:
        assert tokenizer.unk_token_id not in ids and len(ids) <= 20


# -------------------------------------------------------------------------------------- questions


def fitting(scene, words: str) -> list:
    """What of the scene fits "large red stars"."""
    things = list(scene.things)
    for word in words.split():
        bare = (
            word if word == "cross" else word.removesuffix("es") if word == "crosses" else word.removesuffix("s")
        )
        assert bare in (*SHAPES, *COLORS, "small", "large", "thing"), word
        things = [t for t in things if bare in (t.shape, t.color, t.size, "thing")]
    return things


class Unasked(Exception):
    """The question takes something for granted that is not so in the scene."""


def the(scene, words: str):
    things = fitting(scene, words)
    if len(things) != 1:
        raise Unasked(words)
    return things[0]


def color_of(scene, words: str) -> str:
    return BACKGROUNDS[scene.background] if words == "background" else the(scene, words).color


def true_answer(scene, text: str) -> str:
    def says(pattern: str):
        found = re.fullmatch(pattern, text)
        return found and found.groups()

    def yes(truth: bool) -> str:
        return "yes" if truth else "no"

    def one_of(value: str, values: tuple[str, str]) -> str:
        if value not in values:
            raise Unasked(text)
        return value

    color, shape = "|".join(COLORS), "|".join(SHAPES)
    if found := says(r"Is there (?:both )?a (.+) and a (.+)\?"):
        return yes(bool(fitting(scene, found[0]) and fitting(scene, found[1])))
    if found := says(r"Is there (?:either )?a (.+) or a (.+)\?"):
        return yes(bool(fitting(scene, found[0]) or fitting(scene, found[1])))
    if found := says(r"(?:Is there a|Are there any|Do you see a) (.+)\?"):
        return yes(bool(fitting(scene, found[0])))
    if found := says(r"What (?:color is|is the color of) the (.+)\?"):
        return color_of(scene, found[0])
    if found := says(r"What (?:shape )?is the (.+)\?"):
        return the(scene, found[0]).shape
    if found := says(r"Are the (.+) and the (.+) the same color\?"):
        return yes(the(scene, found[0]).color == the(scene, found[1]).color)
    if found := says(r"Is the (.+) the same color as the (.+)\?"):
        return yes(the(scene, found[0]).color == the(scene, found[1]).color)
    if found := says(r"Which is (larger|smaller), the (.+) or the (.+)\?"):
        a, b = the(scene, found[1]), the(scene, found[2])
        if a.size == b.size:
            raise Unasked(text)
        return (a if (a.radius > b.radius) == (found[0] == "larger") else b).shape
    if found := says(rf"Is the (.+) ({color}) or ({color})\?"):
        return one_of(color_of(scene, found[0]), found[1:])
    if found := says(rf"Which color is the (.+), ({color}) or ({color})\?"):
        return one_of(color_of(scene, found[0]), found[1:])
    if found := says(rf"Is the (.+) a ({shape}) or a ({shape})\?"):
        return one_of(the(scene, found[0]).shape, found[1:])
    if found := says(rf"Which shape is the (.+), ({shape}) or ({shape})\?"):
        return one_of(the(scene, found[0]).shape, found[1:])
    if found := says(rf"Is the color of the (.+) ({color})\?"):
        return yes(color_of(scene, found[0]) == found[1])
    if found := says(rf"Is the (.+) a ({shape})\?"):
        return yes(the(scene, found[0]).shape == found[1])
    if found := says(r"Is the (.+) (to the left of|to the right of|above|below) the (.+)\?"):
        a, b = the(scene, found[0]), the(scene, found[2])
        far = (a.x - b.x) / scene.width if "to" in found[1] else (a.y - b.y) / scene.height
        if abs(far) < 0.18:
            raise Unasked(text)
        return yes((far < 0) == (found[1] in ("to the left of", "above")))
    if found := says(rf"Is the (.+) ({color})\?"):
        return yes(color_of(scene, found[0]) == found[1])
    raise AssertionError(f"no reading of {text!r}")


def texts(question) -> list[str]:
    return [question.text(wording).text for wording in range(len(question.wordings))]


def test_answers_are_true_of_their_scenes_in_every_wording(asked):
    kinds = Counter()
    for scene, question in asked:
        for one in (question, *question.follows()):
            for text in texts(one):
                assert one.answer == true_answer(scene, text), (text, scene)
            assert one.answer in one.plausible and set(one.plausible) <= set(one.valid)
            kinds[one.detailed] += 1
    assert len(kinds) == 13 and min(kinds.values()) >= 5, kinds


def test_the_full_answer_has_the_answer_in_it(asked):
    for _, question in asked:
        sentence = question.full_answer.text
        assert "{" not in sentence and question.answer in re.findall(r"\w+", sentence.lower())


def test_what_is_entailed_holds_wherever_the_question_has_that_answer(scenes, asked):
    @cache
    def answer(number: int, text: str) -> str | None:
        try:
            return true_answer(scenes[number], text)
        except Unasked:
            return None

    checked = 0
    for _, question in asked[::8]:
        [text, *_] = texts(question)
        elsewhere = [n for n in range(120) if answer(n, text) == question.answer]
        for other in question.follows():
            # In another scene a foil may be out of place, but what can be asked has the same answer.
            answers = {answer(n, texts(other)[0]) for n in elsewhere} - {None}
            assert answers <= {other.answer}, (text, question.answer, texts(other)[0], answers)
            checked += len(elsewhere)
    assert checked > 3000


def test_words_are_those_that_are_declared(asked):
    used = set()
    for _, question in asked:
        for one in (question, *question.follows()):
            for text in (*texts(one), one.answer):
                used.update(re.findall(r"[a-z]+", text.lower()))
    assert used == set(WORDS)


def test_kinds_have_their_shares(asked):
    shares = Counter(question.structural for _, question in asked)
    assert 0.27 < shares["query"] / len(asked) < 0.40
    assert sum(share for _, share in QUESTION_KINDS.values()) == pytest.approx(1)


def test_questions_alone_give_less_than_half_of_the_answers():
    rng = Random("balance")
    rows = []
    for scene in draw_scenes(["any"] * 1500, rng):
        for question, wording in ask(scene, 6, rng):
            kind = f"{question.detailed} {sorted(question.plausible)}"
            label = {question.answer: 1.0}
            rows.append({"sent": question.text(wording).text, "question_type": kind, "label": label})
    assert 0.38 < question_only_accuracy(rows[:7500], rows[7500:]) < 0.45
    kinds: dict[str, Counter] = {}
    for row in rows:
        if not {"yes", "no"}.isdisjoint(row["label"]):
            kinds.setdefault(row["question_type"].split()[0], Counter()).update(row["label"])
    for kind, answers in kinds.items():
        assert abs(answers["yes"] - answers["no"]) < 3.5 * answers.total() ** 0.5, (kind, answers)


# ----------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("split", SPLITS)
def test_the_true_answers_score_full_marks_on_every_metric(root, split):
    every = load(root, f"{split}_all_questions")
    report = score_gqa(
        [{"questionId": id_, "prediction": question["answer"]} for id_, question in every.items()],
        load(root, f"{split}_balanced_questions"),
        choices=load(root, f"{split}_choices"),
        all_questions=every,
    )
    names = ("accuracy", "binary", "open", "validity", "plausibility", "consistency")
    assert report.metrics == {**dict.fromkeys(names, 100), "distribution": 0}


def test_a_guess_is_valid_but_neither_consistent_nor_distributed_as_the_answers(root):
    every = load(root, "testdev_all_questions")
    guess = {"shape": "star", "color": "red", None: "yes"}
    report = score_gqa(
        [{"questionId": id_, "prediction": guess[q["groups"]["global"]]} for id_, q in every.items()],
        load(root, "testdev_balanced_questions"),
        choices=load(root, "testdev_choices"),
        all_questions=every,
    )
    assert report.metrics["validity"] == 100 and report.metrics["plausibility"] < 95
    assert report.metrics["consistency"] < 90 and report.metrics["distribution"] > 0


def test_grounding_is_scored_against_the_scene_graph(root):
    graphs, grounded = load(root, "testdev_sceneGraphs"), 0
    for id_, question in load(root, "testdev_balanced_questions").items():
        graph = graphs[question["imageId"]]
        for object_id in question["annotations"]["question"].values():
            thing = graph["objects"][object_id]
            left, top = thing["x"] / graph["width"], thing["y"] / graph["height"]
            right = (thing["x"] + thing["w"]) / graph["width"]
            bottom = (thing["y"] + thing["h"]) / graph["height"]
            assert grounding_score(id_, question, graphs, [[left, top, right, bottom, 1.0]]) >= 0.99
            grounded += 1
    assert grounded > 50


# ------------------------------------------------------------------------ same, other, interrupted


def test_the_same_parameters_give_the_same_bytes_in_another_process(root, tmp_path):
    script = f"from datamodules.toy.gqa import *; generate({str(tmp_path / 'toy')!r}, {SMALL!r})"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert contents(tmp_path / "toy") == contents(root)


def test_a_second_call_writes_nothing_and_a_changed_parameter_writes_all_anew(tmp_path):
    folder = generate(tmp_path / "toy", small(train=5, pictures=0), progress=False)
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("*")}
    generate(folder, small(train=5, pictures=0), progress=False)
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("*")} == before
    generate(folder, small(train=6, pictures=0), progress=False)
    assert len(load(folder, "train")) == 36
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == ["toy"]


def test_a_folder_that_is_no_toy_or_another_toy_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not a toy world"):
        generate(tmp_path, SMALL, progress=False)
    (tmp_path / "toy.json").write_text('{"toy": "nlvr2"}')
    with pytest.raises(FileExistsError, match="holds another toy"):
        generate(tmp_path, SMALL, progress=False)
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize(("change", "says"), [({"testdev": 0}, "testdev"), ({"regions": 3}, "at least 7 regions")])
def test_impossible_parameters_are_named(tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        generate(tmp_path / "toy", small(**change), progress=False)
    assert not (tmp_path / "toy").exists()


def test_the_manifest_tells_the_question_only_accuracy(root):
    manifest = json.loads((root / "toy.json").read_text())
    assert manifest["parameters"] == vars(SMALL)
    assert 0.2 < manifest["question_only_accuracy"] < 0.6
