"""The page of `vggft sort` in a real browser: keys, grids, two windows, kills of the server, full disks, hostile names."""

import io
import os
import time

import numpy as np
import pytest
from browser import chromium
from conftest import paint
from PIL import Image
from processes import start
from small_labelling import KnowsAll, Window, labels, photos, serving, session, wait_for, wait_for_picture

from featurize.disk import durable
from vggft.labelling.decisions import FILE

pytest.importorskip("uvicorn", reason="the extra 'sort' is not installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def root(tmp_path):
    return photos(tmp_path / "photos", 12)


def wait_for_tiles(browser, number):
    wait_for(lambda: browser.run("return document.querySelectorAll('.tile[data-loaded]').length") == number)


def test_keys_sort_undo_skip_and_add_classes(browser, root, ui):
    with serving(session(root, "cats", "dogs"), ui) as address:
        browser.open(address)
        wait_for_picture(browser, "000.png")
        for key, following in (("1", "001.png"), ("2", "002.png"), ("0", "003.png"), ("\ue014", "004.png")):
            browser.press(key)
            wait_for_picture(browser, following)
        wait_for(lambda: labels(root) == {"000.png": "cats", "001.png": "dogs", "002.png": ""})
        browser.press("\ue003")  # Backspace: the skipped picture is back
        wait_for_picture(browser, "003.png")
        browser.press("\ue003")
        wait_for_picture(browser, "002.png")
        wait_for(lambda: labels(root) == {"000.png": "cats", "001.png": "dogs"})
        browser.press("+", *"birds", "\ue007")
        wait_for(lambda: browser.texts("#classes bdi") == ["cats", "dogs", "birds"])
        browser.press("3")
        wait_for(lambda: labels(root).get("002.png") == "birds")
        wait_for(lambda: browser.texts("#numbers") == ["3 of 12 pictures sorted"])
        assert browser.texts("#classes .count") == ["1", "1", "1"]
        browser.press(" ")
        wait_for(lambda: browser.run("return document.getElementById('frame').className") == "zoomed")
        browser.driver.refresh()  # what was pressed before can be undone by any window
        wait_for_picture(browser, "003.png")
        browser.press("\ue003")
        wait_for_picture(browser, "002.png")
        wait_for(lambda: "002.png" not in labels(root))
        assert browser.errors() == []


def test_the_page_asks_for_nothing_elsewhere(browser, root, ui):
    browser.open("about:blank")
    with serving(session(root, "cats"), ui) as address:
        browser.open(address)
        wait_for_picture(browser, "000.png")
        origin = address.partition("#")[0]
        requested = browser.requests()
        assert len(requested) > 5
        assert all(url.startswith((origin, f"blob:{origin}")) for url in requested)
        assert not any("png" in url for url in requested)
        assert browser.errors() == []


def test_suggestions_are_accepted_and_a_grid_is_confirmed_with_one_key(browser, root, ui):
    probable = {f"{i:03}.png": ("cats" if i % 2 else "dogs", 0.9 + i / 200) for i in range(12)}
    with serving(session(root, "cats", "dogs", learner=KnowsAll(probable)), ui) as address:
        browser.open(address)
        browser.click("#modes span", 1)
        wait_for_picture(browser, "000.png")
        assert browser.texts("#suggestion") == ["dogs 90%"]
        browser.press("\ue007")
        wait_for_picture(browser, "001.png")
        wait_for(lambda: labels(root) == {"000.png": "dogs"})
        browser.click("#modes span", 3)
        wait_for_tiles(browser, 6)
        assert browser.texts(".tile bdi") == [f"{i:03}.png" for i in (11, 9, 7, 5, 3, 1)]
        browser.click(".tile", 1)
        assert "confirms 5 pictures" in browser.texts("#about")[0]
        browser.press("\ue007")
        expected = {"000.png": "dogs", **{f"{i:03}.png": "cats" for i in (11, 7, 5, 3, 1)}}
        wait_for(lambda: labels(root) == expected)
        wait_for(lambda: browser.texts(".tile bdi") == [f"{i:03}.png" for i in (10, 8, 6, 4, 2)])
        wait_for(lambda: browser.texts("#numbers") == ["6 of 12 pictures sorted · suggestions right: 100% of 6"])
        browser.press("\ue003")
        wait_for(lambda: labels(root) == {"000.png": "dogs"})
        wait_for(lambda: browser.texts(".tile bdi") == [f"{i:03}.png" for i in (11, 7, 5, 3, 1)])
        wait_for(lambda: "Suggested: cats" in browser.texts("#about")[0] and "confirms 5" in browser.texts("#about")[0])
        browser.press("\ue007")
        wait_for(lambda: labels(root) == expected)


def test_many_alike_are_sorted_at_once(browser, root, ui):
    with serving(session(root, "cats", "dogs"), ui) as address:
        browser.open(address)
        browser.press(".")
        wait_for_tiles(browser, 12)
        browser.run(
            "window.moved = 0;"
            "new MutationObserver(() => window.moved++).observe(document.getElementById('grid'), {childList: true})"
        )
        browser.click(".tile", 1)
        assert browser.run("return window.moved") == 0  # a tile that moves while a key is down gets no click
        browser.run(
            "document.querySelectorAll('.tile')[4].dispatchEvent(new MouseEvent('click', {bubbles: true, shiftKey: true}))"
        )
        browser.press("2")
        wait_for(lambda: labels(root) == {f"00{i}.png": "dogs" for i in (1, 2, 3, 4)})
        wait_for(lambda: len(browser.texts(".tile")) == 8)
        browser.run("document.querySelector('.tile').focus()")
        browser.press("\ue014", " ", "1")  # the second tile
        wait_for(lambda: labels(root).get("005.png") == "cats")
        browser.press("*", "1")
        wait_for(lambda: len(labels(root)) == 12)
        assert labels(root)["000.png"] == "cats"
        wait_for(lambda: browser.texts("#about") == ["All 12 pictures are sorted."])


def test_without_the_token_the_page_says_what_to_open(browser, root, ui):
    with serving(session(root, "cats"), ui) as address:
        browser.open("about:blank")
        browser.open(address.partition("#")[0])
        wait_for(lambda: "Open the address that vggft sort has printed" in browser.texts("#problem")[0])
        browser.run("location.hash = arguments[0]", address.partition("#")[2])
        wait_for_picture(browser, "000.png")


@pytest.mark.slow
def test_two_windows_share_one_list(browser, tmp_path, ui):
    root = photos(tmp_path / "photos", 24)
    with serving(session(root, "cats"), ui) as address:
        browser.open(address)
        wait_for_picture(browser, "000.png")
        first = browser.driver.current_window_handle
        browser.driver.switch_to.new_window("window")
        try:
            browser.open(address)
            wait_for_picture(browser, "010.png")  # the first window has ten
            browser.press("1")
            browser.press("+", *"dogs", "\ue007")
            wait_for_picture(browser, "011.png")
            browser.driver.switch_to.window(first)
            wait_for(lambda: browser.texts("#classes bdi") == ["cats", "dogs"])
            browser.press("2", "2")
            wait_for(lambda: labels(root) == {"010.png": "cats", "000.png": "dogs", "001.png": "dogs"})
            wait_for(lambda: browser.texts("#numbers") == ["3 of 24 pictures sorted"])
            browser.press("\ue003")  # the last key of this window
            wait_for(lambda: labels(root) == {"010.png": "cats", "000.png": "dogs"})
        finally:
            for handle in browser.driver.window_handles:
                if handle != first:
                    browser.driver.switch_to.window(handle)
                    browser.driver.close()
            browser.driver.switch_to.window(first)


def test_a_window_that_slept_shows_nothing_that_another_has_sorted(browser, root, ui):
    of = session(root, "cats", "dogs")
    with serving(of, ui) as address:
        browser.open(address)
        wait_for_picture(browser, "000.png")
        Window(of, "another").decide("dogs", "000.png", "001.png")
        browser.run(
            "const now = Date.now; Date.now = () => now() + 20000; document.dispatchEvent(new Event('visibilitychange'))"
        )
        wait_for_picture(browser, "002.png")
        assert browser.texts("#message") == ["Other windows have sorted meanwhile."]
        browser.press("1")
        wait_for(lambda: labels(root) == {"000.png": "dogs", "001.png": "dogs", "002.png": "cats"})


@pytest.mark.slow
def test_the_decision_for_a_file_that_was_moved_is_not_undone(browser, root, ui):
    """Else its picture would be shown again, from memory, and get a decision that changes nothing."""
    with serving(session(root, "cats", "dogs"), ui) as address:
        browser.open(address)
        wait_for_picture(browser, "000.png")
        browser.press("1")
        wait_for_picture(browser, "001.png")
        wait_for(lambda: labels(root) == {"000.png": "cats"})
        browser.click("#apply")
        browser.run("document.querySelector('input[name=how][value=move]').checked = true")
        browser.click("#go")
        wait_for(lambda: "1 file moved" in browser.texts("#applied")[0])
        browser.press("\ue003")
        wait_for(lambda: "000.png: not undone" in browser.texts("#message")[0])
        wait_for_picture(browser, "001.png")
        assert labels(root) == {"000.png": "cats"}


def five_a_second(browser, keys):
    """Press keys at five a second, each when its time has come."""
    begin = time.monotonic()
    for i, key in enumerate(keys):
        time.sleep(max(0.0, begin + i / 5 - time.monotonic()))
        browser.press(key)
    return time.monotonic() - begin


def photographs(root, count):
    """Write JPEG files of 3 MB with 12 million pixels, each with other bytes after its end."""
    root.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(coarse).resize((4000, 3000)).save(root / "000.jpg", quality=88)
    for i in range(1, count):
        (root / f"{i:03}.jpg").write_bytes((root / "000.jpg").read_bytes() + b"%d" % i)


def many(root, count):
    """Write small pictures in folders of 500, each with other bytes after its end."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "JPEG")
    for i in range(count):
        folder = root / f"{i // 500:02}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:05}.jpg").write_bytes(file.getvalue() + b"%d" % i)


@pytest.mark.slow
@pytest.mark.parametrize(("write", "count"), [(photographs, 101), (many, 20_000)], ids=["12 MP", "20,000 files"])
def test_five_keys_a_second_lose_none(browser, tmp_path, ui, write, count):
    """A hundred keys of five classes; each belongs to the picture that was shown. `-s` prints how long requests took."""
    root = tmp_path / "photos"
    write(root, count)
    begin = time.monotonic()
    of = session(root, *"abcde")
    listed = time.monotonic() - begin
    files = [picture.file for picture in of.pictures.by_id.values()]
    with serving(of, ui) as address:
        browser.open(address)
        wait_for_picture(browser, files[0])
        seconds = five_a_second(browser, [str(1 + i % 5) for i in range(100)])
        wait_for(lambda: len(labels(root)) == 100)
        assert seconds < 24
        assert labels(root) == {file: "abcde"[i % 5] for i, file in enumerate(files[:100])}
        script = "return performance.getEntriesByType('resource').filter(e => e.name.includes(arguments[0])).map(e => e.duration)"
        took = {
            what: np.percentile(browser.run(script, f"/api/{what}"), (50, 100)).round()
            for what in ("presses", "picture")
        }
        print(f"{count} files listed in {listed:.1f} s; median and longest request in ms: {took}")
        assert browser.errors() == []
    assert listed < 20


@pytest.mark.slow
def test_a_kill_loses_no_key_and_the_page_goes_on(browser, root):
    """Keys that are pressed while the server is dead are taken when it is started again."""
    process = start("sort", root, "--class", "cats", "--class", "dogs", "--no-open")
    wait_for(lambda: "page: " in process.written()[0])
    address = process.written()[0].split()[1]
    browser.open(address)
    wait_for_picture(browser, "000.png")
    browser.press("1", "2")
    wait_for(lambda: len(labels(root)) == 2)
    wait_for(lambda: browser.run("return performance.getEntriesByType('resource').length") > 0)
    time.sleep(0.5)  # the next pictures are loaded
    process.kill()
    process.communicate()
    browser.press("1")
    wait_for(lambda: browser.texts("#problem")[0].startswith("vggft sort does not answer"))
    browser.press("2")
    wait_for(lambda: "2 keys waiting" in browser.texts("#problem")[0])
    assert len(labels(root)) == 2
    again = start("sort", root, "--no-open")
    try:
        wait_for(lambda: len(labels(root)) == 4)
        assert again.written()[0].split()[1] == address
        assert labels(root) == {"000.png": "cats", "001.png": "dogs", "002.png": "cats", "003.png": "dogs"}
        wait_for(lambda: browser.run("return document.getElementById('problem').hidden"))
        wait_for(lambda: browser.texts("#numbers") == ["4 of 12 pictures sorted"])
        browser.press("\ue003")
        wait_for(lambda: len(labels(root)) == 3)
    finally:
        again.send_signal(2)
        err = again.communicate()[1]
    assert again.poll() == 130
    assert f"3 of 12 pictures sorted: {root / FILE}" in err
    assert "--labels" in err


@pytest.mark.slow
def test_a_full_disk_is_said_and_keys_wait(browser, root, ui, monkeypatch):
    with serving(session(root, "cats"), ui) as address:
        browser.open(address)
        wait_for_picture(browser, "000.png")
        browser.press("1")
        wait_for(lambda: len(labels(root)) == 1)

        def full(path):
            raise OSError(28, os.strerror(28))

        with monkeypatch.context() as patch:
            patch.setattr(durable, "sync_file", full)
            browser.press("1")
            wait_for_picture(browser, "002.png")
            browser.press("1")
            wait_for(lambda: "No space left on device" in browser.texts("#problem")[0])
            wait_for(lambda: "2 keys waiting" in browser.texts("#problem")[0])
            browser.press("1", "\ue003")  # of which the second undoes the first
            wait_for(lambda: "4 keys waiting" in browser.texts("#problem")[0])
            assert len(labels(root)) == 1
        wait_for(lambda: labels(root) == {f"00{i}.png": "cats" for i in range(3)})
        wait_for_picture(browser, "003.png")
        wait_for(lambda: browser.run("return document.getElementById('problem').hidden"))


@pytest.mark.slow
def test_names_are_text_only(browser, tmp_path, ui):
    root = tmp_path / "photos"
    hostile = ["<img src=x onerror='window.hacked=1'>.png", "a\nb\u202e.png", os.fsdecode(b"caf\xe9.png")]
    for i, name in enumerate(hostile):
        paint(root / name, (0, 90 * i, 0))
    (root / "page.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='window.hacked=2'/>")
    labelled = "<script>window.hacked=3</script>".replace("/", "∕")
    with serving(session(root, labelled), ui) as address:
        browser.open(address)
        for _ in hostile:
            wait_for(lambda: not browser.run("return document.getElementById('picture').hidden"))
            time.sleep(0.3)
            browser.press("1")
        wait_for(lambda: labels(root) == dict.fromkeys(hostile, labelled))
        wait_for(lambda: browser.texts("#unreadable summary") == ["1 file left out"])
        assert "SVG" in browser.texts("#unreadable li")[0]
        assert browser.texts("#classes bdi") == [labelled]
        assert browser.run("return window.hacked") is None


def test_the_button_puts_files_into_folders(browser, root, ui):
    with serving(session(root, "cats", "dogs"), ui) as address:
        browser.open(address)
        for key, following in (("1", "001.png"), ("2", "002.png")):
            browser.press(key) if key == "2" else (wait_for_picture(browser, "000.png"), browser.press(key))
            wait_for_picture(browser, following)
        browser.click("#apply")
        assert browser.texts("#confirm-text")[0].startswith(f"cats 1, dogs 1, into {root}-sorted.")
        browser.press("1")  # no key of a class while the question is open
        browser.click("#go")
        wait_for(lambda: browser.texts("#applied")[0].startswith(f"2 files copied into {root}-sorted."))
        assert sorted(p.name for p in root.with_name("photos-sorted").rglob("*.png")) == ["000.png", "001.png"]
        assert len(labels(root)) == 2


@pytest.mark.parametrize("width", [1280, 820, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_at_any_width(browser, root, ui, width, scheme):
    with serving(session(root, "cats", "a class with a rather long name that needs two lines"), ui) as address:
        browser.open(address, width, 850, scheme)
        wait_for_picture(browser, "000.png")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        assert browser.run("return document.getElementById('frame').clientHeight") > 200
        background = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
