"""Sorting without a page: what keys record, what comes next, what undo brings back, and the file of decisions."""

import json
import os

import pytest
from conftest import paint
from small_disk import PAGE, leave
from small_labelling import KnowsAll, Window, photos, session, stored

from featurize.errors import VggftError
from vggft.labelling import classes, decisions, queue
from vggft.labelling.decisions import FILE, Decision, Decisions, Unwritable
from vggft.labelling.pictures import Pictures, number
from vggft.labelling.session import Busy, Choice

HEADER = "file,label,suggested,probability,step,size\r\n"


@pytest.fixture
def root(tmp_path):
    return photos(tmp_path / "photos", 8)


def test_each_key_is_a_row_that_the_next_start_reads(root):
    window = Window(session(root, "cats", "dogs"))
    assert window.decide("cats", "000.png") == {"step": 1}
    assert window.decide("dogs", "001.png", "002.png") == {"step": 2}
    assert window.decide("", "003.png") == {"step": 3}
    assert (root / FILE).read_bytes().startswith(HEADER.encode())
    expected = [("000.png", "cats", 1), ("001.png", "dogs", 2), ("002.png", "dogs", 2), ("003.png", "", 3)]
    assert stored(root) == expected
    again = Window(session(root, "cats", "dogs"))
    assert again.session.sorted == (4, 8)
    assert again.next() == ["004.png", "005.png", "006.png"]
    assert again.decide("cats", "004.png") == {"step": 4}
    state = again.session.state("w")
    assert [(c["name"], c["count"]) for c in state["classes"]] == [("cats", 2), ("dogs", 2)]
    assert state["cannot_tell"] == 1


def test_a_press_that_is_sent_twice_is_taken_once(root):
    window = Window(session(root, "cats"))
    first, second = window.decides("cats", "000.png"), window.decides("cats", "001.png")
    assert window.session.take([first, second]) == [{"step": 1}, {"step": 2}]
    assert window.session.take([first, second]) == [{"step": 1}, {"step": 2}]
    undo = window.press("undo", step=2)
    assert [p["name"] for p in window.session.take([undo])[0]["undone"]] == ["001.png"]
    window.decide("cats", "002.png")
    assert window.session.take([undo]) == [{}]
    assert stored(root) == [("000.png", "cats", 1), ("002.png", "cats", 3)]


def test_windows_get_different_pictures_and_a_closed_one_gives_its_back(root, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vggft.labelling.session.time.monotonic", lambda: now[0])
    one, two = Window(of := session(root, "cats"), "one"), Window(of, "two")
    assert one.next() == ["000.png", "001.png", "002.png"]
    assert two.next() == ["003.png", "004.png", "005.png"]
    assert one.next(have=["001.png", "002.png"], count=1) == ["000.png"]
    assert two.next(count=8) == ["003.png", "004.png", "005.png", "006.png", "007.png"]
    one.decide("cats", *(f"00{i}.png" for i in range(3, 8)))
    assert two.next(count=8) == ["000.png", "001.png", "002.png"]  # nothing else is left
    assert of.state("two")["windows"] == 2
    now[0] = 60.0
    assert two.next() == ["000.png", "001.png", "002.png"]
    assert of.state("two")["windows"] == 1


def test_skipped_pictures_come_last(root):
    window = Window(session(root, "cats"))
    window.session.take([window.press("skip", ids=(number("000.png"), number("001.png")))])
    assert window.next(count=6) == [f"00{i}.png" for i in range(2, 8)]
    window.session.take([window.press("unskip", ids=(number("001.png"),))])
    assert window.next(count=2) == ["001.png", "002.png"]
    window.decide("cats", *(f"00{i}.png" for i in range(1, 8)))
    assert window.next() == ["000.png"]


def test_orders_follow_the_suggestions(root, monkeypatch):
    probable = {
        "000.png": ("cats", 0.9),
        "001.png": ("dogs", 0.6),
        "002.png": ("cats", 0.95),
        "004.png": ("dogs", 0.99),
    }
    monkeypatch.setattr(queue, "FEWEST", 1)
    learner = KnowsAll(probable)
    window = Window(session(root, "cats", "dogs", learner=learner))
    assert window.next("doubtful", 5) == ["001.png", "000.png", "002.png", "004.png", "003.png"]
    assert window.next("surest", 5) == ["002.png", "000.png"]  # the class with most sure suggestions
    assert window.next("surest", 5, "dogs") == ["004.png"]  # none below 0.9
    assert window.session.state("w")["suggested"] == {"cats": 2, "dogs": 1}
    window.decide("cats", "002.png")
    assert learner.learned == [{"002.png": "cats"}]
    assert window.next("doubtful", 2) == ["001.png", "000.png"]
    window.session.take([window.press("doubt", ids=(number("000.png"),))])  # taken out of the grid
    assert window.next("surest", 5, "cats") == []
    assert window.next("doubtful", 5) == ["000.png", "001.png", "004.png", "003.png", "005.png"]
    assert window.next("order", 3) == ["000.png", "001.png", "003.png"]


def test_a_grid_holds_the_surest_of_one_class(tmp_path):
    files = [f"{i:03}.png" for i in range(40)]
    probable = {file: ("cats", 0.9 + i / 1000) for i, file in enumerate(files[:30])}
    probable |= {file: ("dogs", 0.95) for file in files[30:33]} | {file: ("cats", 0.89) for file in files[33:]}
    window = Window(session(photos(tmp_path / "many", 40), "cats", "dogs", learner=KnowsAll(probable)))
    assert window.next("surest", 60) == files[29:5:-1]
    assert window.session.state("w")["suggested"] == {"cats": 30}  # three dogs are not worth a grid
    assert window.next("surest", 60, "dogs") == []
    window.decide("cats", *files[3:30])
    assert window.next("surest", 60) == []
    assert window.session.state("w")["suggested"] == {}


def test_the_share_of_right_suggestions_counts_what_was_shown(root):
    window = Window(session(root, "cats", "dogs"))
    shown = (("000.png", "cats", "cats"), ("001.png", "dogs", "cats"), ("002.png", "", "cats"), ("003.png", "cats", ""))
    for file, label, suggested in shown:
        choice = {"id": number(file), "label": label, "suggested": suggested, "probability": 0.5 if suggested else None}
        press = window.press("decide", choices=(Choice(**choice),))
        window.session.take([press])
    state = window.session.state("w")
    assert (state["right"], state["judged"]) == (1, 2)
    size = (root / "000.png").stat().st_size
    assert (root / FILE).read_text().splitlines()[1] == f"000.png,cats,cats,0.5000,1,{size}"


def test_classes_are_added_and_odd_ones_refused(root):
    window = Window(session(root, "cats"))
    assert window.session.take([window.press("class", name="<script>")]) == [{}]
    assert window.session.classes == ["cats", "<script>"]
    for name, why in (("Cats", "only in spelling"), ("a/b", "slash"), ("..", "dot"), (" ", "empty"), ("a\n", "space")):
        result = window.session.take([window.press("class", name=name)])[0]
        assert why in result["error"], name
    assert "control character" in window.session.take([window.press("class", name="a\nb")])[0]["error"]
    assert window.session.classes == ["cats", "<script>"]
    assert (
        "no longer" in window.session.take([window.press("decide", choices=(Choice(id=1, label="cats"),))])[0]["error"]
    )
    odd = window.press("decide", choices=(Choice(number("000.png"), "cats", "\ud800", 0.5),))
    assert "control character" in window.session.take([odd])[0]["error"]
    assert not (root / FILE).exists()
    with pytest.raises(VggftError, match="longer than 255 bytes"):
        classes.merged(["é" * 128])


BROKEN = {
    "other columns": "path,label\r\na,b\r\n",
    "a row too short": HEADER + "a.png,cats\r\n",
    "two rows of a file": HEADER + "a.png,cats,,,1,9\r\na.png,cats,,,2,9\r\n",
    "a path upwards": HEADER + "../a.png,cats,,,1,9\r\n",
    "an absolute path": HEADER + "/a.png,cats,,,1,9\r\n",
    "no number": HEADER + "a.png,cats,,,one,9\r\n",
    "a probability": HEADER + "a.png,cats,dogs,nan,1,9\r\n",
    "no size": HEADER + "a.png,cats,,,1,\r\n",
    "a class": HEADER + "a.png,../cats,,,1,9\r\n",
    "empty": "",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_damaged_file_is_an_error_and_stays(root, text):
    (root / FILE).write_text(text, newline="")
    with pytest.raises(VggftError, match="no list of decisions") as error:
        session(root)
    assert str(root / FILE) in str(error.value)
    assert (root / FILE).read_text() == text.replace("\r\n", "\n")


def test_a_row_that_a_crash_cut_off_is_left_out(root):
    size = (root / "000.png").stat().st_size
    (root / FILE).write_bytes((HEADER + f"000.png,cats,,,1,{size}\r\n001.png,ca").encode())
    window = Window(session(root, "cats"))
    assert window.next(count=1) == ["001.png"]
    window.decide("cats", "002.png")
    assert stored(root) == [("000.png", "cats", 1), ("002.png", "cats", 2)]


def test_a_file_that_another_program_changed_is_not_overwritten(root):
    window = Window(session(root, "cats"))
    window.decide("cats", "000.png")
    changed = (root / FILE).read_bytes() + f"001.png,cats,,,2,{(root / '001.png').stat().st_size}\r\n".encode()
    (root / FILE).write_bytes(changed)
    for press in (window.decides("cats", "002.png"), window.press("undo", step=1)):
        with pytest.raises(Unwritable, match="another program has changed"):
            window.session.take([press])
    (root / FILE).unlink()
    with pytest.raises(Unwritable, match="deleted it"):
        window.decide("cats", "002.png")
    (root / FILE).write_bytes(changed)
    assert Window(session(root, "cats")).session.sorted == (2, 8)


def test_files_that_are_gone_keep_their_rows(root):
    window = Window(session(root, "cats"))
    window.decide("cats", "000.png", "001.png")
    (root / "000.png").unlink()
    again = Window(session(root, "cats"))
    assert again.session.sorted == (1, 7)
    again.decide("cats", "002.png")
    again.undo(2)
    assert [file for file, _, _ in stored(root)] == ["000.png", "001.png"]


@pytest.mark.parametrize("name", [b"a\nb.png", b"caf\xe9.png", b'a",b.png', b"=1+1.png", b"<script>.png", b" .png"])
def test_any_name_of_a_file_is_kept(root, name):
    file = os.fsdecode(name)
    (root / "000.png").rename(root / file)
    window = Window(session(root, "cats"))
    shown = next(name for name in window.next(count=9) if not name.startswith("00"))
    assert json.dumps(shown).encode()
    assert "\n" not in shown
    window.decide("cats", file)
    window.decide("cats", "001.png")
    assert list(Decisions(root / FILE).rows) == [file, "001.png"]
    window.undo(2)
    assert list(Decisions(root / FILE).rows) == [file]


def test_a_full_disk_loses_no_key_that_was_recorded(disk):
    """Rows are added until no page of the disk is left; the row that does not fit is cut off again."""
    window = Window(session(photos(disk / "photos", 40), "cats"))
    path = disk / "photos" / FILE
    window.decide("x" * 200, "000.png")
    ballast = leave(disk, 0)
    presses = [window.decides("x" * 200, f"{i:03}.png") for i in range(1, 40)]
    with pytest.raises(Unwritable, match="No space left"):
        for taken in presses:
            window.session.take([taken])
    before = path.read_bytes()
    assert PAGE - 250 < len(before) <= PAGE
    assert list(Decisions(path).rows) == list(window.session.decisions.rows)
    with pytest.raises(Unwritable, match="No space left"):  # the undoing of a key rewrites the file
        window.undo(1)
    assert path.read_bytes() == before
    ballast.unlink()
    window.session.take(presses[presses.index(taken) :])
    assert list(Decisions(path).rows) == [f"{i:03}.png" for i in range(40)]


def test_a_row_that_cannot_be_cut_off_again_is_written_once(root, monkeypatch):
    window = Window(session(root, "cats"))
    window.decide("cats", "000.png")

    def broken(*given):
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patch:
        patch.setattr(decisions.durable, "sync_file", broken)
        patch.setattr(decisions, "_cut", broken)
        key = window.decides("cats", "001.png")
        with pytest.raises(Unwritable, match="Input/output error"):
            window.session.take([key])
    window.session.take([key])
    assert list(Decisions(root / FILE).rows) == ["000.png", "001.png"]


def test_no_keys_while_files_are_put_into_folders(root):
    window = Window(session(root, "cats"))
    window.decide("cats", "000.png")
    window.session.begin("putting")
    with pytest.raises(Busy):
        window.decide("cats", "001.png")
    (root / "000.png").unlink()
    window.session.end()
    window.decide("cats", "001.png")
    assert window.session.sorted == (1, 7)


def test_a_file_that_was_moved_gets_no_other_decision(root):
    window = Window(session(root, "cats", "dogs"))
    window.decide("cats", "000.png")
    (root / "000.png").rename(root.parent / "moved.png")
    assert "no longer in the folder" in window.decide("dogs", "000.png")["error"]
    assert "000.png: not undone" in window.undo(1)["error"]
    assert stored(root) == [("000.png", "cats", 1)]


def test_a_grid_without_a_file_that_is_gone_can_be_decided(root):
    window = Window(session(root, "cats"))
    (root / "001.png").unlink()
    assert "001.png is no longer in the folder" in window.decide("cats", "000.png", "001.png")["error"]
    assert window.next() == ["000.png", "002.png", "003.png"]
    assert window.session.sorted == (0, 7)


def test_another_file_with_the_name_of_a_decided_one_is_shown(root):
    window = Window(session(root, "cats", "dogs"))
    window.decide("cats", "000.png", "001.png")
    (root / "000.png").rename(root.parent / "moved.png")
    paint(root / "000.png", (255, 255, 255), (99, 77))
    again = Window(session(root, "cats", "dogs"))
    assert again.session.changed_files == ["000.png"]
    assert (again.session.sorted, again.next(count=1)) == ((1, 8), ["000.png"])
    again.decide("dogs", "000.png")
    assert stored(root) == [("001.png", "cats", 1), ("000.png", "dogs", 2)]
    assert session(root).changed_files == []


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(VggftError, match="no such folder"):
        Pictures.below(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(VggftError, match="no pictures there"):
        Pictures.below(tmp_path)


def test_rows_are_what_the_columns_say():
    assert decisions.COLUMNS == ("file", "label", "suggested", "probability", "step", "size")
    assert Decision("a", "b", "c", 0.12345, 7, 8).row == ("a", "b", "c", "0.1235", "7", "8")
