"""Scanning folders: layouts, classes, ignored and refused files."""

import os

import pytest
from conftest import make_classes, paint

from featurize.data import folders, manifest
from featurize.data.dataset import Dataset
from featurize.data.scan import Rules, scan
from featurize.errors import VggftError


def test_class_folders(tmp_path):
    make_classes(tmp_path, zebra=2, Ant=3, bee=2)
    paint(tmp_path / "bee" / "nested" / "more.png", (1, 2, 3))
    paint(tmp_path / ".hidden" / "x.png", (1, 2, 3))
    paint(tmp_path / "bee" / ".x.png", (1, 2, 3))
    (tmp_path / "bee" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    found = scan(tmp_path)
    assert found.classes == ("Ant", "bee", "zebra")  # code-point order, as sorted() has it
    assert [s.path for s in found.samples] == [
        *(f"Ant/{i}.png" for i in range(3)),
        *("bee/0.png", "bee/1.png", "bee/nested/more.png"),
        *(f"zebra/{i}.png" for i in range(2)),
    ]
    assert {s.split for s in found.samples} == {""}
    assert found.loose == 1


@pytest.mark.parametrize("alias", ["validate", "validation", "val", "valid"])
def test_split_folders(tmp_path, alias):
    make_classes(tmp_path / "train", a=2, b=2)
    make_classes(tmp_path / alias, a=1, b=1)
    make_classes(tmp_path / "test", a=1)
    found = scan(tmp_path)
    assert found.classes == ("a", "b")
    assert found.stored_splits == {"train", "validate", "test"}
    assert {(s.path.split("/")[0], s.split) for s in found.samples} == {
        ("train", "train"),
        (alias, "validate"),
        ("test", "test"),
    }


def test_a_class_called_train_beside_others_is_a_class(tmp_path):
    make_classes(tmp_path, bus=2, train=2)
    assert scan(tmp_path).classes == ("bus", "train")


def test_two_folders_for_one_split(tmp_path):
    for name in ("train", "val", "valid"):
        make_classes(tmp_path / name, a=2, b=2)
    with pytest.raises(VggftError, match="two folders for the same split"):
        scan(tmp_path)


def test_a_folder_beside_the_splits_is_refused(tmp_path):
    for name in ("train", "validate"):
        make_classes(tmp_path / name, a=2, b=2)
    (tmp_path / "__MACOSX").mkdir()
    assert scan(tmp_path).classes == ("a", "b")
    (tmp_path / "extra").mkdir()
    with pytest.raises(VggftError, match="unexpected beside train/: extra"):
        scan(tmp_path)


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "VAL")])
def test_names_of_splits_in_any_case(tmp_path, names):
    for name in names:
        make_classes(tmp_path / name, a=2, b=2)
    assert scan(tmp_path).classes == ("a", "b")


@pytest.mark.parametrize("names", [("val", "test"), ("test1", "test2"), ("val", "cats")])
def test_layouts_that_look_like_splits_but_are_not_are_refused(tmp_path, names):
    for name in names:
        make_classes(tmp_path / name, a=2, b=2)
    with pytest.raises(VggftError, match="looks like a split folder"):
        scan(tmp_path)


def test_splits_without_class_folders_are_refused(tmp_path):
    paint(tmp_path / "train" / "a.png", (1, 1, 1))
    paint(tmp_path / "val" / "b.png", (1, 1, 1))
    with pytest.raises(VggftError, match="train: no class folders"):
        scan(tmp_path)


def test_a_link_to_the_data_folder_is_not_followed(tmp_path):
    make_classes(tmp_path, a=2, b=2)
    (tmp_path / "a" / "up").symlink_to("..")
    found = scan(tmp_path).samples
    assert [s.path for s in found] == ["a/0.png", "a/1.png", "a/up", "b/0.png", "b/1.png"]
    assert found[2].reason == "a link back to a folder above it"
    (tmp_path / "c").symlink_to(".")
    with pytest.raises(VggftError, match="c: holds a, b once more"):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such folder"),
        (lambda p: p.write_text("x"), "not a folder"),
        (lambda p: p.mkdir(), "no class folders"),
        (lambda p: paint(p / "a.png", (1, 1, 1)), "1 picture but no folders"),
        (lambda p: make_classes(p, only=3), "only one class"),
        (lambda p: make_classes(p, a=3, b=1), "'b' has only one image"),
        (lambda p: [make_classes(p, a=3, b=3), (p / "c").mkdir()], "'c' has no images"),
        (
            lambda p: [make_classes(p / "train", a=3, b=3), make_classes(p / "val", c=3)],
            r"'c' \(val/c/0.png\) has no images in the training split",
        ),
    ],
)
def test_refused_folders(tmp_path, make, message):
    folder = tmp_path / "data"
    make(folder)
    with pytest.raises(VggftError, match=message):
        scan(folder)


def test_what_is_no_regular_file_is_rejected_with_a_reason(tmp_path):
    make_classes(tmp_path, a=2, b=2)
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "a" / "folder.jpg").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b" / "link.png").symlink_to(tmp_path / "a" / "0.png")
    found = {s.path: s for s in scan(tmp_path).samples}
    assert {path: s.reason for path, s in found.items() if s.status == "rejected"} == {
        "a/pipe.jpg": "not a regular file (a pipe, socket or device)",
        "a/folder.jpg": "a folder, not a picture",
        "a/loop": "a link back to a folder above it",
        "a/gone.png": "broken link",
    }
    assert found["b/link.png"].digest == found["a/0.png"].digest


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    make_classes(tmp_path, a=3, b=2)
    (tmp_path / "a" / "0.png").chmod(0)
    found = {s.path: s for s in scan(tmp_path).samples}
    assert "Permission denied" in found["a/0.png"].reason


def test_unchanged_files_are_not_read_again(tmp_path):
    make_classes(tmp_path, a=2, b=2)
    path = tmp_path / "a" / "0.png"
    for file in tmp_path.glob("*/*"):
        os.utime(file, (1_000_000, 1_000_000))
    first = scan(tmp_path)
    before = path.stat()
    changed = path.read_bytes()[:-1] + b"x"
    path.write_bytes(changed)  # same size, and then the same time: only reading it would tell
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = scan(tmp_path, first.samples)
    assert [s.digest for s in again.samples] == [s.digest for s in first.samples]
    assert scan(tmp_path).samples[0].digest != first.samples[0].digest


def test_a_file_just_written_is_read_again(tmp_path):
    make_classes(tmp_path, a=2, b=2)
    path = tmp_path / "a" / "0.png"
    first = scan(tmp_path)
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = scan(tmp_path, first.samples)
    assert again.samples[0].digest != first.samples[0].digest


def test_groups(tmp_path):
    for name in ("clip1_001", "clip1_002", "clip2_001"):
        paint(tmp_path / "a" / f"{name}.png", (0, hash(name) % 256, 1))
    make_classes(tmp_path, b=2)
    found = {s.path: s.group for s in scan(tmp_path, rules=Rules(r"(clip\d+)_")).samples}
    assert found["a/clip1_001.png"] == found["a/clip1_002.png"] == "clip1"
    assert found["a/clip2_001.png"] == "clip2"
    assert len(found["b/0.png"]) == 64  # no match: its digest
    for pattern, message in (
        ("(", "not a valid regular expression"),
        ("clip", "has no capture group"),
        (r"(scene\d)", r"matches none of 5 files \(the first: a/clip1_001.png\)"),
    ):
        with pytest.raises(VggftError, match=message):
            scan(tmp_path, rules=Rules(pattern))


def test_manifest_keeps_every_name(tmp_path):
    names = ["with space", "Ünïcödé 日本", "new\nline", "comma,quote\"'", os.fsdecode(b"not\xffutf8")]
    for i, name in enumerate(names):
        paint(tmp_path / "a" / f"{name}.png", (0, i, 0))
    make_classes(tmp_path, b=2)
    found = scan(tmp_path)
    (tmp_path / "manifest.csv").write_bytes(manifest.table(Dataset(found.root, found.classes, found.samples)))
    assert tuple(manifest.read(tmp_path / "manifest.csv")) == found.samples
    assert {f"a/{name}.png" for name in names} <= {s.path for s in found.samples}


NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path):
    make_classes(tmp_path / "train", **{NFC: 2, "tea": 2})
    make_classes(tmp_path / "val", **{NFD: 1, "tea": 1})
    found = scan(tmp_path)
    assert len(found.classes) == 2
    assert {s.label for s in found.samples if "caf" in s.path} == {found.classes[0]}
    assert {s.path.split("/")[1] for s in found.samples} == {NFC, NFD, "tea"}  # paths keep their bytes
    assert all((tmp_path / s.path).is_file() for s in found.samples)


def test_a_class_keeps_its_spelling_when_its_folder_moves_to_another_system(tmp_path):
    make_classes(tmp_path / "mac", **{NFD: 2, "tea": 2})
    before = scan(tmp_path / "mac")
    assert before.classes == (NFD, "tea")
    (tmp_path / "mac" / NFD).rename(tmp_path / "mac" / NFC)
    assert scan(tmp_path / "mac", spelt=before.classes).classes == (NFD, "tea")


def test_a_class_in_upper_and_lower_case(tmp_path):
    make_classes(tmp_path / "letters", A=2, a=2)
    assert scan(tmp_path / "letters").classes == ("A", "a")  # two letters; featurize warns
    assert folders.differ_in_case(["A", "a", "b"]) == [["A", "a"]]
    make_classes(tmp_path / "pets" / "train", Cat=2, dog=2)
    make_classes(tmp_path / "pets" / "val", cat=1, dog=1)
    with pytest.raises(VggftError, match=r"val/cat: the class is called 'Cat' in the training folder, and 'cat' here"):
        scan(tmp_path / "pets")


SYSTEM = ("$RECYCLE.BIN", "System Volume Information", "@eaDir", "#recycle", "lost+found", "__MACOSX", "@Recycle")
SYSTEM += (
    "found.000",
    "FOUND.001",
    "$Extend",
    "MSOCache",
    "WPSystem",
    "~snapshot",
    "@sharesnap",
    "@SynoResource",
    "@Recently-Snapshot",
)


@pytest.mark.parametrize("name", SYSTEM)
def test_system_folders_are_no_classes(tmp_path, name):
    make_classes(tmp_path, cat=2, dog=2, **{name: 1})
    paint(tmp_path / "cat" / name / "thumb.png", (1, 2, 3))
    found = scan(tmp_path)
    assert found.classes == ("cat", "dog")
    assert len(found.samples) == 4


@pytest.mark.parametrize("name", ["found.it", "lost.000", "a@b", "@nasa", "@apple", "US$", "$5", "~cat", "recycled"])
def test_folders_that_only_resemble_those_of_systems_are_classes(tmp_path, name):
    make_classes(tmp_path, dog=2, **{name: 2})
    assert scan(tmp_path).classes == tuple(sorted(["dog", name]))


NOTES = ("a.tfw", "a.JGW", "a.prj", "README", "License", "SHA256SUMS", "a.cfg", "a.html")


@pytest.mark.parametrize("name", NOTES)
def test_files_that_come_with_a_data_set_are_no_rejections(tmp_path, name):
    make_classes(tmp_path, cat=2, dog=2)
    (tmp_path / "cat" / name).write_text("<html>0.5\n")
    found = scan(tmp_path)
    assert len(found.samples) == 4
    (note,) = found.notes
    assert note.name == name
    assert folders.ignored(found.notes).endswith(f"({note.suffix.lower() or name})")


def test_no_suffix_of_pictures_is_one_of_notes():
    assert not folders.SIDE_SUFFIXES & folders.PICTURE_SUFFIXES


def test_side_files_are_counted_and_no_rejections(tmp_path):
    make_classes(tmp_path, cat=3, dog=2)
    notes = {"0.txt": b"0 0.5 0.5 1 1\n", "0.xml": b"<annotation/>", "1.JSON": b"{}", "empty.txt": b""}
    for name, data in notes.items():
        (tmp_path / "cat" / name).write_bytes(data)
    (tmp_path / "cat" / "2.png").rename(tmp_path / "cat" / "picture.txt")
    found = scan(tmp_path)
    assert {path.name for path in found.notes} == set(notes)
    assert [s.path for s in found.samples if s.label == "cat"] == ["cat/0.png", "cat/1.png", "cat/picture.txt"]
    assert folders.ignored(found.notes) == "ignored beside the images: 4 files (.json, .txt, .xml)"
