"""The page in a browser: Debian's chromium, driven by playwright. No browser is downloaded."""

import json
import shutil
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from serving import IMAGES, make_service, save, serving, write_images

from lxmert import Asker, LxmertForQuestionAnswering
from lxmert.report import Example, View, write_report
from lxmert.serve import every_way, write_static

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (apt-get install chromium)")
FIRST, SECOND, BLIND = IMAGES
QUESTION = "what is red ?"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        # Without a sandbox, as root has none, and with nothing said to others.
        quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        browser = running.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(sizes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    save(folder / "first", sizes)
    save(folder / "second", sizes, LxmertForQuestionAnswering, seed=1)
    write_images(folder)
    return folder


@pytest.fixture(scope="module")
def url(folder):
    with serving(make_service([folder / "first"], folder / "regions.h5", folder / "pictures")) as server:
        yield server.url


@pytest.fixture
def page(browser):
    """A window; what it asks of others than this machine, and what goes wrong in it, fails the test."""
    page = browser.new_page(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(f"error {error}"))
    page.on("console", lambda message: message.type == "error" and wrong.append(f"console {message.text}"))
    page.on(
        "request",
        lambda request: (
            urlsplit(request.url).hostname not in ("127.0.0.1", "", None) and wrong.append(request.url)
        ),
    )
    page.on("dialog", lambda dialog: (wrong.append("a script ran"), dialog.dismiss()))
    page.set_default_timeout(20_000)
    yield page
    page.close()
    assert not wrong, wrong


def ask(page, url, question=QUESTION):
    page.goto(url)
    page.fill("#question", question)
    page.click("#go")
    page.wait_for_selector(".answers .answer")


def settled(page):
    page.wait_for_function("() => !document.body.classList.contains('busy')")


def chosen(page):
    return page.inner_text(".told > .answers .answer[aria-pressed=true] .text")


def probabilities(page):
    return [float(text) for text in page.locator(".told > .answers").first.locator(".number").all_inner_texts()]


def address(page):
    return parse_qs(urlsplit(page.url).fragment)


def test_a_question_is_asked_and_another_answer_explained(page, url, folder):
    ask(page, url)
    asker = Asker.open(folder / "first", store=folder / "regions.h5")
    reply = asker.ask(FIRST, QUESTION, explain="relevancy")
    texts = page.locator("button.answer .text").all_inner_texts()
    assert texts == [answer for answer, _ in reply.answers] and chosen(page) == reply.answer
    assert probabilities(page) == pytest.approx([chance for _, chance in reply.answers], abs=1e-3)
    assert page.locator("button.word").all_inner_texts() == reply.words
    before = page.locator("#regions td.number").all_inner_texts()
    page.click("button.answer:nth-child(4)")
    page.wait_for_function(
        "text => document.querySelector('.answer[aria-pressed=true] .text').textContent === text", arg=texts[3]
    )
    other = asker.ask(FIRST, QUESTION, explain="relevancy", answer=texts[3])
    after = page.locator("#regions td.number").all_inner_texts()
    assert after != before and after == [f"{score:.2f}" for score in other.region_scores[0]]
    assert address(page)["answer"] == [texts[3]]


def test_a_region_is_taken_away_and_the_question_asked_again(page, url, folder):
    ask(page, url)
    page.locator("#regions input").nth(1).uncheck()
    page.wait_for_selector("#regions tr.gone")
    settled(page)
    asker = Asker.open(folder / "first", store=folder / "regions.h5")
    reply = asker.ask(FIRST, QUESTION, regions=[0, 2, 3])
    assert probabilities(page) == pytest.approx([chance for _, chance in reply.answers], abs=1e-3)
    assert page.inner_text("#picking .note") == "3 of 4 looked at" and page.locator(".bar .was").count() > 0
    assert page.locator(".picture rect.gone").count() == 1
    page.get_by_role("button", name="all", exact=True).click()
    page.wait_for_selector("#regions tr.gone", state="detached")
    for region in (0, 1, 2, 3):
        page.locator("#regions input").nth(region).click()
        settled(page)
    page.wait_for_selector("#message.error")
    assert "at least one" in page.inner_text("#message") and page.locator("#regions tr.gone").count() == 3


def test_the_address_holds_all_that_is_chosen(page, url):
    ask(page, url, "what [MASK] there")
    page.click("#next")
    page.wait_for_function("() => document.getElementById('place').textContent.startsWith('2 of')")
    page.get_by_role("button", name="attention", exact=True).click()
    page.select_option("#layer", "1")
    page.select_option("#head", "3")
    page.locator("button.word").nth(2).click()
    page.select_option("#direction", "regions")
    page.locator("#matrix td[data-word='2'][data-region='3']").click()
    page.locator("#regions input").nth(1).click()
    page.wait_for_selector("#regions tr.gone")
    settled(page)

    def shown():
        boxes = "all => all.map(each => [each.style.fill, each.style.stroke, each.classList.value])"
        looks = [page.inner_html(part) for part in ("#regions", "#matrix", "#tools", "#cell", ".told")]
        return looks, page.locator(".picture rect").evaluate_all(boxes)

    before, held = shown(), page.url
    query = address(page)
    assert query["image"] == [SECOND] and query["off"] == ["1"] and query["region"] == ["3"]
    assert (query["layer"], query["head"], query["method"], query["word"]) == (["1"], ["3"], ["attention"], ["2"])
    page.goto("about:blank")
    page.goto(held)
    page.wait_for_selector("#regions tr.gone")
    settled(page)
    assert shown() == before and page.locator(".told h3").count() == 2  # fits, and a guess for [MASK]
    page.go_back()  # from where the address was typed


def test_markup_in_a_question_and_an_answer_stays_text(page, url):
    question = "what is <script>alert(1)</script><img src=x onerror=alert(2)> ?"
    ask(page, url, question)
    assert page.input_value("#question") == question
    assert "<b>blue</b>" in " ".join(page.locator("button.answer .text").all_inner_texts())
    assert page.locator(".told script, .told img, .told b").count() == 0


def test_what_is_wrong_is_said_on_the_page(browser, url):
    page = browser.new_page()  # whose console tells of the refused requests
    page.goto(url)
    for question, said in (("x" * 100_000, "a request of 100,"), ("你好", "vocabulary")):
        page.fill("#question", question)
        page.click("#go")
        page.wait_for_function("text => document.getElementById('message').textContent.includes(text)", arg=said)
        assert page.locator(".answers").count() == 0
    page.fill("#ids input", "../../etc/passwd")
    page.press("#ids input", "Enter")
    page.wait_for_function(
        "() => document.getElementById('message').textContent.includes('no image of this name')"
    )
    page.close()


def test_a_keyboard_is_enough(page, url):
    page.goto(url)
    page.wait_for_selector(".picture rect")
    page.keyboard.press("/")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    page.wait_for_selector("button.answer")
    page.keyboard.press("Escape")
    page.keyboard.press("]")
    page.wait_for_function("() => document.getElementById('place').textContent.startsWith('2 of')")
    settled(page)
    page.focus(".picture")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".picture .name.chosen")
    assert address(page)["region"] == ["1"]
    page.keyboard.press(" ")
    page.wait_for_selector(".picture rect.gone.chosen")
    settled(page)
    page.focus("#matrix table")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert address(page)["word"] == ["2"] and page.locator("#matrix td.on").get_attribute("data-region") == "0"


def test_two_checkpoints_stand_side_by_side_with_their_difference(page, folder):
    models = [folder / "first", folder / "second"]
    with serving(make_service(models, folder / "regions.h5", folder / "pictures")) as server:
        ask(page, server.url)
        titles = page.locator(".panel h2").all_inner_texts()
        assert titles == ["first", "second", "second \u2212 first"]
        first, second = (
            Asker.open(model, store=folder / "regions.h5").ask(FIRST, QUESTION, explain="relevancy")
            for model in models
        )
        title = page.locator(".panel").nth(2).locator("rect title").nth(0)
        differences = second.region_scores[0] - first.region_scores[0]
        told = {
            float(text.split("· ")[1])
            for text in page.locator(".panel").nth(2).locator("rect title").all_text_contents()
        }
        assert title and told == {float(f"{value:.2f}") for value in differences}
        page.select_option("#of", "difference")
        page.wait_for_function("() => location.hash.includes('of=difference')")
        assert page.locator("#matrix td").count() == 4 * len(first.words)


def test_a_picture_that_is_not_there_is_its_boxes(page, url):
    page.goto(f"{url}#image={BLIND}&question=what")
    page.wait_for_selector("button.answer")
    assert page.locator(".picture.blank rect").count() == 4 and page.locator(".picture img").count() == 0
    box = page.locator(".picture rect").last.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#regions tr.chosen")


def test_a_narrow_dark_window_has_nothing_to_scroll_sideways(browser, url):
    page = browser.new_page(viewport={"width": 360, "height": 700}, color_scheme="dark")
    ask(page, url, "what is " * 60)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 23, 29)"
    page.close()


def test_numbers_and_the_page_are_saved_and_the_file_works_alone(page, browser, url, tmp_path):
    ask(page, url)
    with page.expect_download() as numbers:
        page.click("#json")
    saved = json.loads(numbers.value.path().read_text())
    assert saved["replies"][0]["answers"][0]["answer"] == chosen(page) and saved["asked"]["question"] == QUESTION
    with page.expect_download() as written:
        page.click("#save")
    written.value.save_as(tmp_path / "saved.html")
    answers = page.locator("button.answer .text").all_inner_texts()
    page.goto((tmp_path / "saved.html").as_uri())
    page.wait_for_selector("button.answer")
    assert page.inner_text("#asked") == QUESTION and page.locator("#ask").is_hidden()
    assert page.evaluate("document.querySelector('.picture img').naturalWidth") == 100
    page.locator("button.answer").nth(2).click()
    assert chosen(page) == answers[2]
    held = page.url
    page.get_by_role("button", name="gradcam", exact=True).click()
    assert chosen(page) == answers[0] and page.locator("#methods [aria-pressed=true]").inner_text() == "gradcam"
    page.goto("about:blank")
    page.goto(held)
    page.wait_for_selector("button.answer")
    assert chosen(page) == answers[2] and page.locator("#methods [aria-pressed=true]").inner_text() == "relevancy"


def test_a_written_page_without_a_script_is_text(browser, folder, tmp_path):
    asker = Asker.open(folder / "first", store=folder / "regions.h5", pictures=folder / "pictures")
    reply = asker.ask(FIRST, QUESTION, explain="relevancy", attentions=True)
    write_static([reply, *every_way(asker, reply)], tmp_path / "page.html")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert QUESTION in page.inner_text("body") and f"{reply.answer} {reply.answers[0][1]:.3f}" in page.inner_text(
        "body"
    )
    context.close()


def test_the_report_of_a_run_is_the_same_drawing(page, folder, tmp_path):
    boxes = [[0.1, 0.1, 0.4, 0.5], [0.5, 0.2, 0.9, 0.9], [0.0, 0.0, 1.0, 1.0]]
    views = [
        View(folder / "pictures" / f"{FIRST}.png", boxes, [0.0, 1.0, 0.25]),
        View(None, boxes, [0.5, 0.0, 0.0]),
    ]
    example = Example(
        "is <b>it</b>?", views, [("yes", 0.75), ("no", 0.25)], {"yes": 1.0}, [("is", 0.5), ("it", 1.0)]
    )
    write_report(
        tmp_path / "report.html",
        {"val/answering/accuracy": 0.5},
        "a run",
        "<svg style='color:red'></svg>",
        [example] * 2,
    )
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector(".card .picture rect")
    assert page.locator(".card .picture rect").count() == 12 and page.locator(".card .picture.blank").count() == 2
    widths = page.locator(".card").first.locator(".fill").evaluate_all("bars => bars.map(bar => bar.style.width)")
    assert widths == ["75%", "25%"] and page.locator(".card .word").first.inner_text() == "is"
    strong = (
        page.locator(".card .picture")
        .first.locator("rect")
        .evaluate_all("all => all.map(each => [each.style.stroke, each.querySelector('title').textContent])")
    )
    assert sorted(title for stroke, title in strong if stroke) == ["1  · 1.00", "2  · 0.25"]
    page.locator(".card .picture rect").nth(1).click()
    assert page.locator(".card .picture rect.chosen").count() == 1


def test_regions_of_another_detector_are_told_of_but_not_what_one_leaves_open(page, folder, tmp_path):
    asker = Asker.open(folder / "first", store=folder / "regions.h5")
    ours = "mine [weights 0123456789ab, boxes 36]"
    for trained_on, differs in (
        ("mine", False),
        (ours, False),
        ("mine [weights ff, boxes 36]", True),
        ("it", True),
    ):
        asker.model.config.detector = trained_on
        seen = replace(asker.see(FIRST), detector=ours)
        write_static(asker.ask(seen, QUESTION, explain="relevancy"), tmp_path / "page.html", "first", asker)
        page.goto((tmp_path / "page.html").as_uri())
        said = page.locator("#honesty").inner_text()
        assert ours in said and ("Not the same detector" in said) == differs, said
