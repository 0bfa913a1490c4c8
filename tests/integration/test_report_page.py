"""The page of a comparison in a real browser: it shows what was measured, loads nothing, and works with keys alone."""

import base64
import io
import json
import re
import struct
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import chromium
from PIL import Image
from small_compare import compared, predictions

from vggft.comparison import plots
from vggft.comparison.advice import Tune, TuneAgain
from vggft.comparison.page import gallery
from vggft.comparison.page.gallery import HeatMaps
from vggft.comparison.page.page import MOST, Page
from vggft.comparison.page.thumbnails import smallest_loss
from vggft.comparison.perturbations import PerturbedPredictions
from vggft.comparison.report.record import Record
from vggft.ui.visible import visible

HOSTILE = ["</script><script>window.hacked = 1</script>\x01\udcff\u202e", "<img src=x onerror='window.hacked = 2'>"]


def recorded(of, perturbed=None):
    return Record(compared(of), {"vggft": "0"}, "validation", {}, None, perturbed=perturbed, perturbed_split="test")


def grey(of):
    """The network predicts class 0 for every grey image."""
    rng = np.random.default_rng(0)
    by_model = {c.name: c.probabilities.argmax(axis=1) for c in of.candidates}
    predicted = {name: {"none": p, "grey": np.zeros_like(p)} for name, p in by_model.items()}
    scores = {name: {key: rng.random(len(p)) for key, p in each.items()} for name, each in predicted.items()}
    return PerturbedPredictions(of.samples, of.targets, predicted, scores, 0)


def page_of(of, perturbed=None, thumbnail=b"", **more):
    record = recorded(of, perturbed)
    encoded = base64.b64encode(thumbnail).decode()
    pictures = {s.digest: encoded for s in of.samples} if thumbnail else {}
    return Page(record, plots.draw(record, ()), replace(gallery.of(record), thumbnails=pictures, **more))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def many():
    """300 images of two classes, of which fine-tuning fixes some and breaks others."""
    of = predictions(0.8)
    return replace(of, candidates=[replace(c, kind="tuned" if c.name == "net" else c.kind) for c in of.candidates])


@pytest.fixture(scope="module")
def page(many, tmp_path_factory):
    """The page with perturbations, thumbnails and heat maps of half of the images."""
    rng = np.random.default_rng(0)
    thumbnail = smallest_loss(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8), 2000)
    heat = {s.digest: rng.random((14, 14), np.float32) for s in many.samples[::2]}
    made = page_of(many, grey(many), thumbnail, heat=[HeatMaps("net", heat)])
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(made.render())
    return path


@pytest.fixture
def opened(browser, page):
    browser.open(page)
    return browser


def listed(browser):
    """Return the paths of all cards, in order."""
    while not browser.run("return document.getElementById('more').hidden"):
        browser.click("#more")
    return browser.run("return Array.from(document.querySelectorAll('#cards img'), e => e.alt)")


def by_name(of):
    return {candidate.name: candidate.probabilities for candidate in of.candidates}


def test_it_loads_nothing_and_logs_nothing(opened, page):
    assert opened.texts(".verdict") == [recorded_sentence(page)]
    assert opened.requests() == [page.as_uri()]
    listed(opened)
    opened.click("#cards button", 3)
    opened.click("#next")
    assert opened.errors() == []
    assert opened.requests() == []


def recorded_sentence(page):
    return re.search(r'<p class="verdict">(.*?)</p>', page.read_text()).group(1)


def test_filters_show_what_they_say(opened, many):
    right = {name: p.argmax(axis=1) == many.targets for name, p in by_name(many).items()}
    assert opened.texts(".verdict")[0].startswith("Use net: ")
    expected = {
        "all": np.ones(300, bool),
        "wrong": ~right["net"],
        "wrong-by-all": ~right["net"] & ~right["head"] & ~right["other"] & ~right["poor"],
        "fixed": right["net"] & ~right["head"],
        "broken": right["head"] & ~right["net"],
        "suspects": np.sum([~right[name] for name in ("head", "other", "poor")], axis=0) >= 3,
        "grey": by_name(many)["net"].argmax(axis=1) != 0,
    }
    for i, (name, shows) in enumerate(expected.items()):
        opened.click(".chips span", i)
        assert opened.run("return new FormData(document.getElementById('controls')).get('filter')") == name
        assert shows.sum() > 0
        assert opened.texts(".chips b")[i] == str(shows.sum())
        assert opened.texts("#count")[0].startswith(f"{shows.sum()} of 300 images. ")
        assert set(listed(opened)) == {f"{k}.png" for k in np.flatnonzero(shows)}


def test_labels_and_predictions_can_be_selected(opened, many):
    predicted = by_name(many)["net"].argmax(axis=1)
    opened.choose("label", "1")
    opened.choose("predicted", "0")
    shows = (many.targets == 1) & (predicted == 0)
    assert set(listed(opened)) == {f"{k}.png" for k in np.flatnonzero(shows)} != set()


@pytest.mark.parametrize("order", ["loss", "doubt", "sure", "path"])
def test_orders(opened, many, order):
    opened.choose("order", order)
    p = by_name(many)["net"]
    key = {
        "loss": lambda i: p[i, many.targets[i]],
        "doubt": lambda i: p[i].max(),
        "sure": lambda i: -p[i].max(),
        "path": lambda i: f"{i}.png",
    }[order]
    paths = listed(opened)
    assert len(set(paths)) == 300
    keys = [key(int(path.removesuffix(".png"))) for path in paths]
    rounded = keys if order == "path" else np.round(keys, 3).tolist()
    assert rounded == sorted(rounded)


def test_an_image_and_its_neighbours_with_keys_alone(opened, many):
    from selenium.webdriver.common.keys import Keys

    opened.run("document.querySelector('#controls input').focus()")
    opened.press(Keys.ARROW_RIGHT)  # to the next filter
    assert opened.texts("#count")[0].startswith(f"{(by_name(many)['net'].argmax(axis=1) != many.targets).sum()} of ")
    first, second = listed(opened)[:2]
    opened.run("document.querySelector('select[name=order]').focus()")
    while opened.run("return document.activeElement.closest('#cards') === null"):
        opened.press(Keys.TAB)
    opened.press(Keys.ENTER)
    assert opened.run("return document.getElementById('image').open")
    assert opened.texts("#path") == [first]
    opened.press(Keys.ARROW_RIGHT)
    assert opened.texts("#path") == [second]
    i = int(second.removesuffix(".png"))
    rows = [
        row.split()
        for row in opened.run("return Array.from(document.querySelectorAll('#scores tr'), r => r.innerText)")
    ]
    shown = {name: (mark, label, float(score), float(of_label)) for name, mark, label, score, of_label in rows}
    for name, p in by_name(many).items():
        k = int(p[i].argmax())
        mark = "✓" if k == many.targets[i] else "✗"
        assert shown[name] == (
            mark,
            f"class{k}",
            round(float(p[i, k]), 3),
            pytest.approx(p[i, many.targets[i]], abs=6e-4),
        )
    opened.click("#previous")
    opened.click("#previous")  # before the first one there is none
    opened.press(Keys.ARROW_RIGHT)
    assert opened.texts("#path") == [second]
    opened.press(Keys.ESCAPE)
    assert not opened.run("return document.getElementById('image').open")
    assert opened.run("return document.activeElement.querySelector('img').alt") == second


def test_heat_maps_lie_over_the_pictures_that_have_some(opened, page):
    assert opened.run("return document.querySelectorAll('#cards canvas').length") == 0
    opened.choose("heat", "0")
    listed(opened)
    assert opened.run("return document.querySelectorAll('#cards canvas').length") == 150
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL).group(1))
    i = next(i for i, heat in enumerate(data["heat"][0]["maps"]) if heat)
    values = base64.b64decode(data["heat"][0]["maps"][i])
    alpha = opened.run(
        """
        const boxes = Array.from(document.querySelectorAll("#cards .picture"));
        const canvas = boxes.find((box) => box.querySelector("img").alt === arguments[0]).querySelector("canvas");
        return Array.from(canvas.getContext("2d").getImageData(0, 0, 14, 14).data).filter((_, k) => k % 4 === 3);
        """,
        data["paths"][i],
    )
    assert np.abs(np.array(alpha) - 0.8 * np.frombuffer(values, np.uint8)).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("classes", [*(pytest.param(n, marks=pytest.mark.slow) for n in (2, 10)), 101])
def test_any_number_of_classes_fits_any_window(browser, tmp_path, classes):
    path = tmp_path / "report.html"
    path.write_bytes(page_of(predictions(1.0, n=600, classes=classes)).render())
    grounds = set()
    for width in (360, 800, 1280):
        for scheme in ("light", "dark"):
            browser.open(path, width, scheme=scheme)
            assert browser.run("return document.documentElement.scrollWidth") <= width
            grounds.add(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert grounds == {"rgb(255, 255, 255)", "rgb(20, 23, 27)"}
    assert browser.errors() == []
    unnamed = "return document.querySelectorAll('img:not([alt]), svg:not([role=img] svg), figure:not(:has(figcaption))').length"
    assert browser.run(unnamed) == 0
    ids = browser.run("return Array.from(document.querySelectorAll('[id]'), e => e.id)")
    assert len(ids) == len(set(ids))
    assert len(browser.run("return document.querySelector('select[name=label]').options")) == classes + 1


@pytest.mark.slow
def test_the_network_fits_the_ground_and_keeps_its_colours(browser, tmp_path):
    halves = '<rect width="40" height="40" fill="#ffffff"/><rect x="20" width="20" height="40" fill="#e36209"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40" width="40" height="40">{halves}</svg>'
    path = tmp_path / "report.html"
    path.write_bytes(replace(page_of(predictions(0.5, n=60)), network=svg).render())
    for scheme, ground in (("light", 255), ("dark", 22)):
        browser.open(path, 800, scheme=scheme)
        drawn = browser.driver.find_element("css selector", ".network").screenshot_as_png
        pixels = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)
        assert np.abs(pixels[20, 10] - ground).max() < 10
        red, green, blue = pixels[20, 30]
        assert red > green + 30 > blue + 30  # orange


def test_a_command_is_shown_as_one():
    made = page_of(predictions(0.5, n=60))
    advice = (Tune("vggft finetune -w 'a<b'"), TuneAgain("net"))
    page = replace(made, record=replace(made.record, advice=advice)).render().decode()
    assert "and compare again: <code>vggft finetune -w &#39;a&lt;b&#39;</code></li>" in page
    assert page.count("<code>") == 1


def test_it_prints(opened):
    pdf = base64.b64decode(opened.driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20


@pytest.mark.slow
def test_names_are_text(browser, tmp_path):
    of = predictions(0.5, n=60)
    samples = [
        replace(s, path=f"{HOSTILE[t]}/{i}\n\u202e\udcff.png", label=HOSTILE[t])
        for i, (s, t) in enumerate(zip(of.samples, of.targets, strict=True))
    ]
    path = tmp_path / "report.html"
    made = page_of(replace(of, classes=HOSTILE, samples=samples))
    path.write_bytes(made.render())
    for plot in made.plots:
        ElementTree.fromstring(plot.svg)
    browser.open(path)
    browser.click("#cards button")
    assert browser.run("return window.hacked") is None
    assert re.fullmatch(r".*/\d+\\n\\u202e\\udcff\.png", browser.texts("#path")[0])
    assert browser.texts("select[name=label] option")[1:] == list(map(visible, HOSTILE))
    assert not set("\x01\udcff\u202e") & set(path.read_text())
    assert browser.errors() == []
    assert browser.requests() == [path.as_uri()]


@pytest.mark.slow
def test_heads_alone_have_no_filters_of_fine_tuning(browser, tmp_path):
    of = predictions(0.5, n=60)
    heads = [c for c in of.candidates if c.name != "net"]
    path = tmp_path / "report.html"
    path.write_bytes(page_of(replace(of, candidates=heads, network=None)).render())
    browser.open(path)
    assert not {"fixed by fine-tuning", "broken by fine-tuning"} & {
        t.rsplit(" ", 1)[0] for t in browser.texts(".chips span")
    }
    assert browser.errors() == []


def test_thumbnails_take_their_share():
    rng = np.random.default_rng(0)
    flat = np.full((224, 224, 3), 128, np.uint8)
    noise = rng.integers(0, 255, (224, 224, 3)).astype(np.uint8)
    assert side(smallest_loss(flat, 500)) == 160
    assert side(smallest_loss(noise, 2000)) < 160
    assert len(smallest_loss(noise, 2000)) <= 2000
    assert side(smallest_loss(noise, 0)) == 32


def side(webp):
    """Return the width of a lossy WebP (RFC 9649, section 2.5)."""
    assert webp[:4] + webp[8:16] == b"RIFFWEBPVP8 "
    return struct.unpack("<H", webp[26:28])[0] & 0x3FFF


@pytest.mark.slow
def test_ten_thousand_images_fit_and_stay_quick(browser, tmp_path):
    of = predictions(0.5, n=10_500, classes=20)
    rng = np.random.default_rng(0)
    record = recorded(of)
    shown = gallery.of(record)
    first = {s.digest: rng.random((14, 14), np.float32) for s in shown.samples[:500]}
    page = Page(record, plots.draw(record, ()), replace(shown, heat=[HeatMaps("net", first), HeatMaps("head", first)]))
    share = page.room * 3 // 4 // 10_000
    assert share > 500  # enough for a photograph of 56 pixels
    thumbnail = base64.b64encode(rng.bytes(share)).decode()
    whole = replace(page, gallery=replace(page.gallery, thumbnails={s.digest: thumbnail for s in shown.samples}))
    path = tmp_path / "report.html"
    path.write_bytes(whole.render())
    assert MOST * 0.97 < path.stat().st_size <= MOST
    browser.open(path)
    assert browser.texts("#count") == ["10000 of 10000 images. All images."]
    script = "const t = performance.now(); update(); return performance.now() - t"
    assert min(browser.run(script) for _ in range(5)) < 1000  # ms; 30 on two idle cores
