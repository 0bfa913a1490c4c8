"""Undoing keys of sorting by hand: grids, other windows, and keys that are sent again after a restart."""

import pytest
from small_labelling import Window, photos, session, stored

from vggft.labelling.pictures import number


@pytest.fixture
def root(tmp_path):
    return photos(tmp_path / "photos", 8)


def test_a_key_that_is_sent_again_after_a_restart_is_undone_as_a_whole(root):
    window = Window(session(root, "cats"))
    key = window.decides("cats", "000.png")
    window.session.take([key])  # the process is killed before it has answered
    window.session = session(root, "cats")
    assert window.session.take([key]) == [{"step": 2}]
    undo = window.press("undo", step=2, ids=(number("000.png"),))
    assert [picture["name"] for picture in window.session.take([undo])[0]["undone"]] == ["000.png"]
    assert stored(root) == []


def test_an_undo_that_is_sent_again_after_a_restart_undoes_nothing_of_another_window(root):
    one, two = Window(of := session(root, "cats", "dogs"), "one"), Window(of, "two")
    one.decide("cats", "000.png")
    undo = one.undoes(one.decide("cats", "001.png")["step"])
    of.take([undo])
    two.session = session(root, "cats", "dogs")
    assert two.decide("dogs", "003.png") == {"step": 2}
    assert two.session.take([undo]) == [{"undone": []}]
    assert stored(root) == [("000.png", "cats", 1), ("003.png", "dogs", 2)]


def test_the_last_key_of_all_windows_is_undone_only_if_it_is_still_the_last(root):
    one, two = Window(of := session(root, "cats"), "one"), Window(of, "two")
    one.decide("cats", "000.png")
    two.decide("cats", "001.png")
    third = Window(of, "three")
    assert "meanwhile" in of.take([third.press("undo", step=1)])[0]["error"]
    assert of.take([third.press("undo", step=0)]) == [{"undone": []}]
    assert [picture["name"] for picture in of.take([third.press("undo", step=2)])[0]["undone"]] == ["001.png"]
    assert stored(root) == [("000.png", "cats", 1)]


def test_undo_takes_a_grid_back_together_and_brings_earlier_labels_back(root):
    one, two = Window(of := session(root, "cats", "dogs"), "one"), Window(of, "two")
    one.decide("cats", "000.png", "001.png")
    two.decide("dogs", "001.png")  # the later key wins
    assert stored(root) == [("000.png", "cats", 1), ("001.png", "dogs", 2)]
    assert [p["name"] for p in two.undo(2)["undone"]] == ["001.png"]
    assert stored(root) == [("000.png", "cats", 1), ("001.png", "cats", 1)]
    assert [p["name"] for p in one.undo(1)["undone"]] == ["000.png", "001.png"]
    assert stored(root) == []
    assert one.undo(1) == {"undone": []}
    assert one.next() == ["000.png", "001.png", "002.png"]
