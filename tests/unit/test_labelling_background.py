"""Putting files into folders while the page is open: what it takes, and how it ends."""

import time

from small_labelling import Window, photos, session

from vggft.labelling import applying
from vggft.labelling.applying import ClassFolders
from vggft.labelling.background import Applying
from vggft.labelling.session import Busy


def ended(of):
    """Wait until files have been put, and return what the page says."""
    deadline = time.monotonic() + 10
    while of.state.get("running", True):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return of.state


def test_no_key_is_taken_between_the_check_and_the_start(tmp_path, ui):
    window = Window(of := session(photos(tmp_path / "photos", 2), "cats"))
    step = window.decide("cats", "000.png")["step"]
    folders = ClassFolders.of(of.pictures.root, None)
    refused = []

    class Slow(ClassFolders):
        def require(self, labels):
            if not refused:
                try:
                    window.undo(step)
                except Busy as error:
                    refused.append(str(error))
            super().require(labels)

    putting = Applying(of, Slow(folders.root, folders.folder), ui)
    putting.start("move")
    assert "1 file moved" in ended(putting)["message"]
    assert len(refused) == 1
    assert of.decisions.labels == {"000.png": "cats"}


def test_an_unexpected_error_ends_it_and_is_shown(tmp_path, ui, monkeypatch):
    window = Window(of := session(photos(tmp_path / "photos", 2), "cats"))
    window.decide("cats", "000.png")

    def broken(*given):
        raise MemoryError("no memory")

    monkeypatch.setattr(applying, "apply", broken)
    putting = Applying(of, ClassFolders.of(of.pictures.root, None), ui)
    putting.start("copy")
    assert "MemoryError('no memory')" in ended(putting)["error"]
    assert window.decide("cats", "001.png") == {"step": 2}


def test_what_is_refused_at_the_start_leaves_keys_alone(tmp_path, ui):
    window = Window(of := session(photos(tmp_path / "photos", 2), "cats"))
    root = of.pictures.root
    putting = Applying(of, ClassFolders(root, root / "sorted"), ui)
    try:
        putting.start("copy")
    except applying.VggftError as error:
        assert "the folder that is sorted" in str(error)
    assert window.decide("cats", "000.png") == {"step": 1}
