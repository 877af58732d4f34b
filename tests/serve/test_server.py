"""The server over HTTP: who is answered, what with, and what bad requests are told."""

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from detectors import CONFIG, tame
from folders import F, write_regions, write_rows, write_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from serving import ANSWERS, IMAGES, make_service, request, save, serving, write_images

from datamodules.detector import BoxRule, FasterRCNN, write_detector
from lxmert import Asker, LxmertForQuestionAnswering, LxmertForVisualReasoning
from lxmert.files import InputError
from lxmert.serve import Asked, Gallery, Service, every_way, write_static
from lxmert.serve.__main__ import main, open_service, options_parser
from lxmert.serve.page import describe

ROOT = Path(__file__).parents[2]
FIRST, SLASH, BLIND = IMAGES  # the last one has no picture
QUESTION = "what is red ?"


@pytest.fixture(scope="module")
def folder(sizes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    save(folder / "pretrained", sizes)
    save(folder / "tuned", sizes, LxmertForQuestionAnswering, seed=1, answers=["maybe", *ANSWERS[1:]])
    save(folder / "pairs", sizes, LxmertForVisualReasoning)
    write_images(folder)
    return folder


def service_of(folder, *names, **options):
    return make_service([folder / name for name in names], folder / "regions.h5", folder / "pictures", **options)


@pytest.fixture(scope="module")
def server(folder):
    with serving(service_of(folder, "pretrained")) as server:
        yield server


def ask(server, question=QUESTION, images=(FIRST,), **more):
    return request(server, "/api/ask", {"images": list(images), "question": question, **more})


# -------------------------------------------------------------------------------------------- what it gives


def test_the_page_needs_nothing_from_elsewhere_and_forbids_it(server):
    status, headers, page = request(server, "/")
    page = page.decode()
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert not re.search(r"""(src|href|action)=["'](?!data:)""", page) and "@import" not in page
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert "http" not in policy and headers["Cache-Control"] == "no-store"


def test_an_answer_is_that_of_the_library(server, folder):
    status, headers, exchange = ask(server, "what [MASK] red ?", (SLASH,), method="gradcam")
    assert status == 200 and headers["Cache-Control"] == "no-store"
    asker = Asker.open(folder / "pretrained", store=folder / "regions.h5")
    reply = asker.ask(SLASH, "what [MASK] red ?", explain="gradcam", attentions=True).to_dict()
    [found] = exchange["replies"]
    assert [each["answer"] for each in found["answers"]] == [each["answer"] for each in reply["answers"]]
    for key in ("words", "explained", "guesses", "fits", "word_scores", "method"):
        assert found[key] == (
            pytest.approx(reply[key], abs=1e-4) if key in ("fits", "word_scores") else reply[key]
        )
    assert found["pictures"][0]["region_scores"] == pytest.approx(reply["pictures"][0]["region_scores"], abs=1e-4)
    np.testing.assert_allclose(
        found["attentions"]["cross_encoder_attentions"], reply["attentions"]["cross_encoder_attentions"], atol=1e-4
    )
    assert exchange["asked"]["method"] == "gradcam" and found["pictures"][0]["found"]


def test_another_answer_is_explained_and_regions_are_left_out(server, folder):
    asker = Asker.open(folder / "pretrained", store=folder / "regions.h5")
    _, _, exchange = ask(server, answer="2", kept=[0, 3])
    [found] = exchange["replies"]
    reply = asker.ask(FIRST, QUESTION, explain="relevancy", answer="2", regions=[0, 3])
    assert found["explained"] == "2" and found["pictures"][0]["region_scores"][1:3] == [0, 0]
    assert [each["probability"] for each in found["answers"]] == pytest.approx(
        [chance for _, chance in reply.answers], abs=1e-5
    )


def test_regions_pictures_and_ids_are_told(server, folder):
    _, _, start = request(server, "/api/start")
    assert start["total"] == 3 and start["first"] == [FIRST] and start["models"][0]["name"] == "pretrained"
    _, _, listed = request(server, "/api/images?start=1&count=50")
    assert listed == {"total": 3, "entries": [[SLASH], [BLIND]]}
    assert request(server, "/api/images?like=_9&count=9")[2] == {"total": 1, "entries": [[BLIND]]}
    _, _, looked = request(server, f"/api/look?{urlencode({'image': SLASH})}")
    assert looked["place"] == 1 and len(looked["pictures"][0]["boxes"]) == 4
    assert looked["pictures"][0]["boxes"][0] == pytest.approx([0.05, 0.1, 0.35, 0.4], abs=1e-6)
    status, headers, picture = request(server, f"/image/{quote(SLASH, safe='')}")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert picture == (folder / "pictures" / f"{SLASH}.png").read_bytes()
    status, _, told = request(server, f"/image/{BLIND}")
    assert status == 404 and "IMG_9" in told["error"]
    assert not request(server, f"/api/look?image={BLIND}")[2]["pictures"][0]["found"]


def test_ten_clients_at_once_each_get_their_own_answer(server):
    questions = [
        f"what is {word}" for word in ("red", "cat", "dog", "how", "many", "are", "there", "both", "one", "?")
    ]
    alone = [ask(server, question, (list(IMAGES)[place % 3],))[2] for place, question in enumerate(questions)]
    with ThreadPoolExecutor(10) as clients:
        together = clients.map(
            lambda each: ask(server, each[1], (list(IMAGES)[each[0] % 3],)), enumerate(questions)
        )
        for (status, _, found), expected in zip(together, alone, strict=True):
            assert status == 200 and found == expected


def test_two_checkpoints_answer_the_same_and_what_one_does_not_know_is_said(folder):
    with serving(service_of(folder, "pretrained", "tuned")) as server:
        _, _, exchange = ask(server, answer="yes")
        first, second = exchange["replies"]
        assert first["explained"] == "yes" and first["fits"] is not None
        assert second["explained"] == second["answers"][0]["answer"] and second["fits"] is None
        assert "'yes' is none of its 7 answers" in second["warnings"][0] and not first["warnings"]
        assert ask(server, "xx yy")[2]["error"].startswith("pretrained: ")
    with pytest.raises(InputError, match=r"pretrained is asked about 1 picture.*pairs about 2"):
        service_of(folder, "pretrained", "pairs")


def test_a_model_that_answers_nothing_is_not_served(folder, sizes):
    save(folder / "matching", sizes, task_qa=False, answers=None)
    with pytest.raises(InputError, match="has no answer head"):
        service_of(folder, "pretrained", "matching")


def test_statements_are_asked_about_as_many_pictures_as_they_have(folder):
    with serving(service_of(folder, "pairs")) as server:
        assert request(server, "/api/start")[2]["first"] == [FIRST, SLASH]
        status, _, exchange = ask(server, images=(FIRST, BLIND))
        assert status == 200 and [len(each["boxes"]) for each in exchange["replies"][0]["pictures"]] == [4, 4]
        status, _, told = ask(server)
        assert status == 400 and told["error"] == "1 images; this model is asked about 2"


def test_pictures_of_a_folder_are_looked_at_when_asked_about_and_kept(folder, tmp_path, monkeypatch, sizes):
    config = replace(CONFIG, short_side=96, long_side=160, widths=(4, 8, 8, 16), box_rule=BoxRule(6, 6))
    names = {"object_names": [f"thing {i}" for i in range(9)], "attribute_names": [f"so {i}" for i in range(8)]}
    weights = tmp_path / "detector.safetensors"
    write_detector(weights, config, tame(FasterRCNN(config)).state_dict(), name="a random one", **names)
    photos = tmp_path / "photos"
    (photos / "in").mkdir(parents=True)
    for place, name in enumerate(("a.png", "in/b.jpg", "c.txt")):
        noise = np.random.default_rng(place).integers(0, 255, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / name, "PNG" if place != 1 else "JPEG")
    (photos / "bad.png").write_bytes(b"no picture")
    (photos / "out.png").symlink_to(folder / "pictures" / f"{FIRST}.png")
    save(tmp_path / "model", sizes, visual_feat_dim=64)
    asker = Asker.open(tmp_path / "model", detector=weights)
    looked, detect = [], asker.eyes.detector.detect
    monkeypatch.setattr(asker.eyes.detector, "detect", lambda *given: looked.append(1) or detect(*given))
    service = Service({"model": asker}, Gallery(asker.eyes, folder=photos))
    assert [entry for (entry,) in service.gallery.entries] == ["a.png", "bad.png", "in/b.jpg"]
    with serving(service) as server:
        assert not looked
        for question in ("what", "how many"):
            status, _, exchange = ask(server, question, ("in/b.jpg",))
            assert status == 200 and exchange["replies"][0]["pictures"][0]["detector"].startswith("a random one")
        assert len(looked) == 1
        status, _, told = ask(server, images=("bad.png",))
        assert status == 400 and "bad.png" in told["error"]
        assert request(server, f"/image/{quote('in/b.jpg', safe='')}")[2] == (photos / "in/b.jpg").read_bytes()


# ---------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    "image_id",
    ["../regions.h5", "pictures/IMG_7.png", "/etc/passwd", "IMG_7.png", "..", "", "IMG_7\0", "x" * 3000],
)
def test_an_id_that_is_none_reaches_no_file(server, image_id):
    for path in (f"/image/{quote(image_id, safe='')}", f"/api/look?{urlencode({'image': image_id})}"):
        status, _, told = request(server, path)
        assert status in (400, 404) and set(told) == {"error"}
    status, _, told = ask(server, images=(image_id,))
    assert status == 404 and "no image of this name" in told["error"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_only_its_own_host_name_is_answered(server, host):
    for path in ("/", "/api/start", f"/image/{FIRST}"):
        status, _, told = request(server, path, Host=host.format(port=server.server_port))
        assert status == 403 and "is not this server" in told["error"]
    assert request(server, "/", Host=f"localhost:{server.server_port}")[0] == 200


def test_pages_of_others_cannot_ask(server):
    body = json.dumps({"images": [FIRST], "question": QUESTION})
    form = {"Content-Type": "text/plain"}
    assert request(server, "/api/ask", body, **form)[0] == 415
    status, _, told = ask(server)
    assert status == 200
    headers = {"Content-Type": "application/json", "Origin": "http://evil.example"}
    status, _, told = request(server, "/api/ask", body, **headers)
    assert status == 403 and "evil.example" in told["error"]
    own = {**headers, "Origin": server.url.rstrip("/")}
    assert request(server, "/api/ask", body, **own)[0] == 200


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"question": "what " * 20_000}, 413, "a request of 100,0"),
        ({"question": "x" * 3000}, 400, "3,000 characters"),
        ({"question": " "}, 400, "is no question"),
        ({"question": "你好"}, 400, "no word of it is in the model's vocabulary"),
        ({"question": 3}, 400, "question=3 is of the wrong type"),
        ({"images": [1]}, 400, "expected image ids"),
        ({"images": []}, 400, "0 images; this model is asked about 1"),
        ({"images": ["nowhere"]}, 404, "no image of this name"),
        ({"answer": "a hat"}, 400, "'a hat' is none of the model's 7 answers"),
        ({"method": "magic"}, 400, "expected one of relevancy"),
        ({"kept": []}, 400, "keep at least one"),
        ({"kept": [4]}, 400, "expected numbers from 0 to 3"),
        ({"kept": [True]}, 400, "expected numbers of regions"),
        ({"path": "/etc"}, 400, "unknown keys"),
    ],
)
def test_bad_questions_get_one_clear_error(server, change, status, said):
    for path in ("/api/ask", "/api/page"):
        got, _, told = request(server, path, {"images": [FIRST], "question": QUESTION, **change})
        assert got == status and said in told["error"], told


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/ask", "{", 400),
        ("POST", "/api/ask", "[]", 400),
        ("POST", "/api/ask", '{"images": ["IMG_7"]}', 400),
        ("POST", "/api/ask", "[" * 50_000, 400),
        ("POST", "/", "{}", 404),
        ("GET", "/favicon.ico", None, 404),
        ("GET", "/api/images?start=-1", None, 400),
        ("GET", "/api/look?" + "&".join(["image=a"] * 20), None, 400),
        ("PUT", "/", "{}", 501),
        ("GET", "/" + "x" * 70_000, None, 414),
    ],
)
def test_what_is_no_request_of_the_page_gets_json_and_no_traceback(server, capfd, method, path, body, status):
    got, headers, told = request(server, path, body, method, **{"Content-Type": "application/json"})
    assert got == status and isinstance(told["error"], str)
    assert "'none'" in headers["Content-Security-Policy"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_body_without_its_length_is_refused(server):
    for length in ("-5", "1e3", "٣"):
        headers = {"Content-Type": "application/json", "Content-Length": length.encode()}
        assert request(server, "/api/ask", b"", "POST", **headers)[0] == 411


def test_a_fault_of_the_server_is_told_and_it_goes_on(server, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        patch.setattr(server.service, "ask", lambda _: 1 / 0)
        status, _, told = ask(server)
    assert status == 500 and "ZeroDivisionError" in told["error"] and "ZeroDivisionError" in capfd.readouterr().err
    assert ask(server)[0] == 200


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "gradcam", "IMG_7"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=60)
@given(
    VALUES
    | st.fixed_dictionaries({"images": VALUES, "question": VALUES}, optional={"answer": VALUES, "kept": VALUES})
)
def test_whatever_comes_is_a_question_or_an_input_error(content):
    try:
        asked = Asked.from_json(content)
    except InputError:
        return
    assert isinstance(asked.question, str) and all(isinstance(each, str) for each in asked.images)


# ------------------------------------------------------------------------------------------ pages as files


def data_of(page):
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_the_page_as_a_file_has_its_picture_all_answers_and_other_methods(server):
    question = "what is red ? </script><script>alert(1)</script> <!--"
    status, _, page = request(server, "/api/page", {"images": [FIRST], "question": question, "kept": [0, 1]})
    page = page.decode()
    assert status == 200 and "<script>alert" not in page and page.count("</script>") == 2
    data = data_of(page)
    assert data["exchanges"][0]["asked"]["question"] == question and data["pictures"][0].startswith(
        "data:image/png"
    )
    found = {(each["asked"]["method"], each["replies"][0]["explained"]) for each in data["exchanges"][1:]}
    answers = [each["answer"] for each in data["exchanges"][0]["replies"][0]["answers"]]
    others = {("gradcam", answers[0]), ("rollout", answers[0])}
    assert found == {("relevancy", answer) for answer in answers[1:]} | others
    assert all(each["asked"]["kept"] == [0, 1] for each in data["exchanges"])
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "default-src &#39;none&#39;" in page and "connect-src" not in page


def test_replies_are_written_without_a_server_too(folder, tmp_path):
    asker = Asker.open(folder / "pretrained", store=folder / "regions.h5")
    reply = asker.ask(BLIND, QUESTION, explain="relevancy", attentions=True)
    write_static([reply, *every_way(asker, reply)], tmp_path / "page.html", "pretrained", asker)
    data = data_of((tmp_path / "page.html").read_text())
    assert data["pictures"] == [None] and len(data["exchanges"]) == 7
    assert data["exchanges"][0]["replies"][0]["explained"] == reply.answer
    assert data["models"] == [describe("pretrained", asker)]
    pictures = asker.see(FIRST)
    write_static(asker.ask(pictures, QUESTION), tmp_path / "plain.html")  # nothing explained, no maps
    assert len(data_of((tmp_path / "plain.html").read_text())["exchanges"]) == 1


# ---------------------------------------------------------------------------------------------- the command


def test_a_taken_port_and_sources_that_do_not_do_are_named(server, folder, tmp_path, capsys):
    model, store = str(folder / "pretrained"), str(folder / "regions.h5")
    for arguments, said in (
        ([model, "--store", store, "--port", str(server.server_port)], "is taken; choose another with --port"),
        ([model, "--store", store, "--port", "70000"], "port 70000: expected 0 to 65535"),
        ([model], "no pictures to ask about"),
        ([model, "--pictures", str(folder / "pictures")], "there is no detector"),
        ([model, "--store", store, "--data", "data.root=/x"], "name one with --split"),
        ([model, "--split", "minival"], "config.yaml"),
        ([model, "--store", store, "--pictures", str(tmp_path / "gone")], "no such folder of pictures"),
        ([str(tmp_path / "gone"), "--store", store], "gone"),
    ):
        assert main(arguments) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ") and said in told and told.count("\n") == 1, told
    with pytest.raises(SystemExit):
        main([model, model, model])


@pytest.mark.parametrize("task", ["vqa", "nlvr2"])
def test_a_split_of_a_run_gives_its_pictures_questions_and_answers(sizes, tmp_path, task):
    data = tmp_path / "data"
    if task == "vqa":
        asked = [("IMG_9", "red", "2"), ("IMG_7", "cat", "no"), ("IMG_9", "one", "dog")]
        rows = [
            {"question_id": number, "img_id": image, "sent": f"what is {word} ?", "label": {answer: 1.0}}
            for number, (image, word, answer) in enumerate(asked)
        ]
        write_rows(data / "vqa" / "minival.json", rows)
        write_rows(data / "vqa" / "trainval_label2ans.json", ANSWERS)
        write_regions(data / "mscoco_imgfeat" / "val2014_obj36.tsv", IMAGES)
        run, split = save(tmp_path / "run", sizes, LxmertForQuestionAnswering), "minival"
        expected = {
            ("IMG_9",): [("what is red ?", "2"), ("what is one ?", "dog")],
            ("IMG_7",): [("what is cat ?", "no")],
        }
    else:
        rows = [
            {
                **{"identifier": f"dev-1-{pair}-{number}", "uid": f"v{number}", "sent": f"there are {number}"},
                **{"img0": f"dev-1-{pair}-img0", "img1": f"dev-1-{pair}-img1", "label": number},
            }
            for number, pair in enumerate([3, 2])
        ]
        write_rows(data / "nlvr2" / "valid.json", rows)
        images = {row[image]: 1 for row in rows for image in ("img0", "img1")}
        write_regions(data / "nlvr2_imgfeat" / "valid_obj36.tsv", images)
        run = save(tmp_path / "run", sizes, LxmertForVisualReasoning, answers=["False", "True"], num_qa_labels=2)
        split = "valid"
        expected = {
            ("dev-1-3-img0", "dev-1-3-img1"): [("there are 0", "False")],
            ("dev-1-2-img0", "dev-1-2-img1"): [("there are 1", "True")],
        }
    (data / "images").mkdir()
    Image.new("RGB", (100, 50)).save(data / "images" / f"{rows[0].get('img_id', 'dev-1-3-img0')}.png")
    write_vocabulary(tmp_path / "vocab.txt")
    target = {"vqa": "datamodules.vqa.VqaDataModule", "nlvr2": "datamodules.nlvr2.Nlvr2DataModule"}[task]
    node = {"_target_": target, "root": str(data), "tokenizer": str(tmp_path / "vocab.txt"), "feature_dim": F}
    (run / "config.yaml").write_text(json.dumps({"data": node}))
    service = open_service(options_parser().parse_args([str(run), "--split", split]))
    assert service.gallery.entries == list(expected)
    for images, questions in expected.items():
        looked = service.look(images)
        assert [(each["question"], each["answer"]) for each in looked["questions"]] == questions
    assert service.look(next(iter(expected)))["pictures"][0]["found"] and not looked["pictures"][0]["found"]
    assert service.ask(Asked(next(iter(expected)), "what is red"))["replies"][0]["explained"]


def as_in_a_terminal():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what is started in the background, as tests may be, ignores it


def test_ctrl_c_ends_it_cleanly(folder):
    command = [sys.executable, "-m", "lxmert.serve", str(folder / "tuned"), "--store", str(folder / "regions.h5")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT, "env": environment}
    options["preexec_fn"] = as_in_a_terminal
    with subprocess.Popen([*command, "--port", "0"], **options) as process:
        try:
            line = process.stdout.readline()
            assert re.match(r"http://127\.0\.0\.1:\d+/ ", line), process.stderr.read()
            process.send_signal(signal.SIGINT)
            said, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0 and said.strip() == "ended" and errors == ""
