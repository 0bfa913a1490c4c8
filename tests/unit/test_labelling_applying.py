"""Putting sorted pictures into class folders, corrected ones into the folder of their other class, and undoing both."""

import pytest
from conftest import snapshot
from small_labelling import Window, photos, session
from small_sorting import undo_all, write

from featurize.errors import VggftError
from vggft.labelling import applying
from vggft.labelling.applying import ClassFolders, OtherClass
from vggft.labelling.decisions import Decision


@pytest.fixture
def root(tmp_path):
    return photos(tmp_path / "photos", 4)


@pytest.fixture
def decided(root):
    window = Window(session(root, "cats", "dogs"))
    window.decide("cats", "000.png")
    window.decide("dogs", "001.png")
    window.decide("", "002.png")
    return list(window.session.decisions.rows.values())


def decision(root, file, label, step=1):
    return Decision(file, label, "", None, step, (root / file).stat().st_size)


def apply(decided, root, destination, how, ui):
    return applying.apply(decided, root, destination, how, ui, lambda done: None)


def pictures(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_each_file_goes_into_its_class_folder_and_comes_back(root, decided, ui, how):
    before = snapshot(root)
    destination = ClassFolders.of(root, None)
    result = apply(decided, root, destination, how, ui)
    target = root.with_name("photos-sorted")
    assert result["into"]["put"] == {"cats": 1, "dogs": 1}
    assert result["failed"] == []
    assert pictures(target) == ["cats/000.png", "dogs/001.png"]
    assert pictures(root) == (["002.png", "003.png"] if how == "move" else [f"00{i}.png" for i in range(4)])
    again = apply(decided, root, destination, how, ui)
    assert (again["into"]["put"], again["into"]["there"], again["failed"]) == ({}, 2, [])
    assert undo_all(target) == []
    assert snapshot(root) == before
    assert pictures(target) == []


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_another_class_waits_until_the_first_is_undone(root, ui, how):
    """A file is never in the folders of two classes."""
    destination, target = ClassFolders.of(root, None), root.with_name("photos-sorted")
    first = [decision(root, "000.png", "cats")]
    other = [decision(root, "000.png", "dogs", 2), decision(root, "001.png", "dogs", 3)]
    made = apply(first, root, destination, how, ui)["into"]["list"]
    result = apply(other, root, destination, how, ui)
    assert (result["into"]["put"], result["into"]["there"]) == ({"dogs": 1}, 0)
    why = f"it is in {target / 'cats'} from an earlier run. Undo that first: vggft undo {made}"
    assert result["failed"] == [{"path": str(root / "000.png"), "reason": why}]
    assert pictures(target) == ["cats/000.png", "dogs/001.png"]
    assert undo_all(target) == []
    assert apply(other, root, destination, how, ui)["into"]["put"] == {"dogs": 2}
    assert pictures(target) == ["dogs/000.png", "dogs/001.png"]


def test_a_copy_of_an_earlier_file_of_the_same_name_is_no_obstacle(root, ui):
    destination = ClassFolders.of(root, None)
    apply([decision(root, "000.png", "cats")], root, destination, "copy", ui)
    write(root / "000.png", b"another")
    assert apply([decision(root, "000.png", "dogs", 2)], root, destination, "copy", ui)["failed"] == []


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_another_file_with_the_name_of_a_sorted_one_stays(root, decided, ui, how):
    destination = ClassFolders.of(root, None)
    apply(decided, root, destination, "move", ui)
    write(root / "000.png", b"a new photograph with the number of an earlier one")
    result = apply(decided[:1], root, destination, how, ui)
    assert result["failed"] == [
        {"path": str(root / "000.png"), "reason": "it has another size than when it was sorted: sort it again"}
    ]
    assert pictures(destination.folder) == ["cats/000.png", "dogs/001.png"]


@pytest.mark.parametrize(("how", "put"), [("copy", {"cats": 1}), ("link", {"cats": 1}), ("move", {})])
def test_what_a_link_leads_to_is_not_moved(root, ui, tmp_path, how, put):
    elsewhere = photos(tmp_path / "elsewhere", 1)
    (root / "link").symlink_to(elsewhere)
    result = apply([decision(root, "link/000.png", "cats")], root, ClassFolders.of(root, None), how, ui)
    assert result["into"]["put"] == put
    assert pictures(elsewhere) == ["000.png"]
    assert [f"outside of {root}, in {elsewhere}" in left["reason"] for left in result["failed"]] == [True] * (
        how == "move"
    )


def test_nothing_is_overwritten_and_missing_files_are_named(root, decided, ui, tmp_path):
    mine = write(tmp_path / "out" / "cats" / "000.png", b"mine")
    (root / "001.png").unlink()
    result = apply(decided, root, ClassFolders.of(root, tmp_path / "out"), "move", ui)
    assert mine.read_bytes() == b"mine"
    assert len(pictures(tmp_path / "out" / "cats")) == 2
    assert [(left["path"], left["reason"]) for left in result["failed"]] == [
        (str(root / "001.png"), "No such file or directory")
    ]


@pytest.mark.parametrize("into", ["photos", "photos/sorted", ".", "link"])
def test_sorted_pictures_never_come_into_the_folder_that_is_sorted(root, decided, ui, tmp_path, into):
    (tmp_path / "link").symlink_to(root)
    label = [decision(root, "000.png", "photos")] if into == "." else decided
    with pytest.raises(VggftError, match="the folder that is sorted"):
        apply(label, root, ClassFolders.of(root, tmp_path / into), "copy", ui)
    assert "vggft-into" not in str(list(tmp_path.rglob("*")))


def test_a_file_in_the_way_is_named(root, decided, ui, tmp_path):
    write(tmp_path / "out" / "dogs", b"")
    with pytest.raises(VggftError, match="out/dogs is not a folder"):
        apply(decided, root, ClassFolders.of(root, tmp_path / "out"), "copy", ui)


def test_corrected_images_change_their_class_folder(tmp_path, ui):
    data = tmp_path / "data"
    for file in ("train/ants/a.png", "train/ants/nest/b.png", "validate/bees/c.png", "train/bees/d.png", "ants/e.png"):
        write(data / file, file.encode())
    write(data / "train/bees/a.png", b"another")
    before = snapshot(data)
    labels = {"train/ants/a.png": "ants", "train/ants/nest/b.png": "ants", "validate/bees/c.png": "bees"}
    labels |= {"train/bees/d.png": "bees", "ants/e.png": "ants"}
    corrected = {"train/ants/a.png": "bees", "train/ants/nest/b.png": "bees", "validate/bees/c.png": "ants"}
    corrected |= {"train/bees/d.png": "bees", "ants/e.png": ""}
    decided = [decision(data, file, label, step) for step, (file, label) in enumerate(corrected.items(), 1)]
    result = apply(decided, data, OtherClass(data, labels), "move", ui)
    assert result["failed"] == []
    assert (data / "train/bees/nest/b.png").read_bytes() == b"train/ants/nest/b.png"
    assert (data / "validate/ants/c.png").read_bytes() == b"validate/bees/c.png"
    assert (data / "train/bees/a.png").read_bytes() == b"another"
    assert [p.read_bytes() for p in (data / "train/bees").glob("a-*.png")] == [b"train/ants/a.png"]
    assert (data / "train/bees/d.png").exists()
    assert (data / "ants/e.png").exists()
    assert apply(decided, data, OtherClass(data, labels), "move", ui)["into"]["there"] == 3
    assert undo_all(data) == []
    assert {name: content for name, content in snapshot(data).items() if not name.startswith("vggft-into")} == before
    with pytest.raises(VggftError, match="Expected --how move"):
        apply(decided, data, OtherClass(data, labels), "copy", ui)
