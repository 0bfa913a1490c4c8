"""Keys on the page of `vggft sort` while pictures load: each counts for the picture that is shown when its turn comes."""

import threading

import pytest
from browser import chromium
from small_labelling import KnowsAll, labels, photos, serving, session, wait_for, wait_for_picture

from featurize.pixels import images
from vggft.labelling.decisions import FILE, Decisions
from vggft.labelling.pictures import Picture, Pictures, number
from vggft.labelling.session import Session

pytest.importorskip("uvicorn", reason="the extra 'sort' is not installed")

ENTER, BACKSPACE = "\ue007", "\ue003"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def root(tmp_path):
    return photos(tmp_path / "photos", 6)


@pytest.fixture
def may_load(monkeypatch):
    """Set it, and pictures load."""
    event = threading.Event()
    decode = images.decode_fitting
    monkeypatch.setattr(images, "decode_fitting", lambda data, side: event.wait(20) and decode(data, side))
    return event


def held(browser, number):
    wait_for(lambda: f"{number} key" in browser.texts("#message")[0])


@pytest.mark.slow
def test_each_key_counts_for_the_next_picture_and_backspace_takes_the_last_back(browser, root, ui, may_load):
    with serving(session(root, "cats", "dogs"), ui) as address:
        browser.open(address)
        wait_for(lambda: browser.texts("#name") == ["000.png"])
        browser.press("1", "2", "1", "1", BACKSPACE)
        assert browser.texts("#name") == ["000.png"]
        assert not labels(root)
        may_load.set()
        wait_for(lambda: len(labels(root)) == 3)
        wait_for_picture(browser, "003.png")
        assert labels(root) == {"000.png": "cats", "001.png": "dogs", "002.png": "cats"}


def test_enter_accepts_the_suggestion_of_the_picture_that_is_shown_then(browser, root, ui, may_load):
    learner = KnowsAll({f"{i:03}.png": (("cats", "dogs")[i % 2], 0.8) for i in range(6)})
    with serving(session(root, "cats", "dogs", learner=learner), ui) as address:
        browser.open(address)
        wait_for(lambda: browser.texts("#name") == ["000.png"])
        browser.press(ENTER, ENTER, ENTER)
        held(browser, 3)
        may_load.set()
        wait_for(lambda: labels(root) == {"000.png": "cats", "001.png": "dogs", "002.png": "cats"})


def test_enter_keeps_the_label_of_the_picture_that_is_shown_then(browser, root, ui, may_load):
    other = {"cats": "dogs", "dogs": "cats"}
    present = {f"{i:03}.png": ("cats", "dogs")[i % 2] for i in range(4)}
    pictures = [Picture(number(file), file, label, other[label], 0.9, "?") for file, label in present.items()]
    of = Session(Pictures.of(root, pictures, {}), Decisions(root / FILE), ["cats", "dogs"])
    with serving(of, ui) as address:
        browser.open(address)
        wait_for(lambda: browser.texts("#name") == ["000.png"])
        browser.press(ENTER, ENTER)
        held(browser, 2)
        may_load.set()
        wait_for(lambda: labels(root) == {"000.png": "cats", "001.png": "dogs"})


def test_the_way_of_showing_stays_while_keys_wait(browser, root, ui, may_load):
    with serving(session(root, "cats"), ui) as address:
        browser.open(address)
        wait_for(lambda: browser.texts("#name") == ["000.png"])
        browser.press("1", ".")
        browser.click("#modes span", 2)
        wait_for(lambda: "Keys are waiting" in browser.texts("#message")[0])
        assert browser.run("return document.querySelector('input[name=mode]:checked').value") == "order"
        may_load.set()
        wait_for(lambda: labels(root) == {"000.png": "cats"})
        browser.press(".")
        assert browser.run("return document.querySelector('input[name=mode]:checked').value") == "grid"


def test_keys_behind_an_enter_without_a_suggestion_are_dropped(browser, root, ui, may_load):
    """They were meant for later pictures."""
    with serving(session(root, "cats"), ui) as address:
        browser.open(address)
        wait_for(lambda: browser.texts("#name") == ["000.png"])
        browser.press(ENTER, "1")
        held(browser, 2)
        may_load.set()
        wait_for(lambda: "Nothing is suggested for 000.png. Dropped: 1 key" in browser.texts("#message")[0])
        browser.press("0")
        wait_for(lambda: labels(root) == {"000.png": ""})
