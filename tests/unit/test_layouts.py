"""Layouts of data folders as people have them: splits in any usual spelling, and what is refused because it is not clear."""

import pytest
from conftest import make_classes, paint

from featurize.data.scan import Rules, scan
from featurize.data.split_names import parse
from featurize.errors import VggftError


@pytest.mark.parametrize(
    ("name", "split", "others"),
    [
        *(("train", "train", ()), ("Training", "train", ()), ("TRAIN_SET", "train", ()), ("trainset", "train", ())),
        *(
            ("train2017", "train", ()),
            ("trainImages", "train", ()),
            ("images-train", "train", ()),
            ("trn", "train", ()),
        ),
        *(
            ("val2017", "validate", ()),
            ("ValidationData", "validate", ()),
            ("dev", "validate", ()),
            ("valid 1", "validate", ()),
        ),
        *(("test1", "test", ()), ("Test_Images", "test", ()), ("testing_set", "test", ()), ("holdout", "test", ())),
        *(("seg_train", "train", ()), ("pets_test", "test", ("pets",)), ("test tube", "test", ("tube",))),
    ],
)
def test_names_that_tell_a_split(name, split, others):
    assert parse(name) == (split, others)


@pytest.mark.parametrize(
    "name", ["cats", "trains", "strain", "train_val", "validated", "contest", "testudo", "猫", "2017", ""]
)
def test_names_that_tell_none(name):
    assert parse(name) is None


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("seg_train", "seg_test", "test"),
        ("training_set", "test_set", "test"),
        ("train2017", "val2017", "validate"),
        ("Training", "Testing", "test"),
        ("pets-train", "pets-valid", "validate"),
        ("TrainImages", "DevImages", "validate"),
        ("train", "eval", "test"),
    ],
)
def test_folders_that_are_splits(tmp_path, train, other, split):
    make_classes(tmp_path / train, a=2, b=3)
    make_classes(tmp_path / other, a=1, b=1)
    found = scan(tmp_path)
    assert found.classes == ("a", "b")
    assert found.stored_splits == {"train", split}
    assert {(s.path.split("/")[0], s.split) for s in found.samples} == {(train, "train"), (other, split)}


def test_a_split_folder_in_one_of_the_same_name(tmp_path):
    for split in ("seg_train", "seg_test"):
        make_classes(tmp_path / split / split, forest=2, sea=2)
    found = scan(tmp_path)
    assert found.classes == ("forest", "sea")
    assert found.samples[-1].path == "seg_train/seg_train/sea/1.png"
    assert found.stored_splits == {"train", "test"}


def make(root, *files):
    """Write a picture or, without a suffix, a folder for each path."""
    for number, path in enumerate(files):
        if "." in path:
            paint(root / path, (number, 50, 100))
        else:
            (root / path).mkdir(parents=True)


def pictures(*folders, number=2):
    return [f"{folder}/{i}.png" for folder in folders for i in range(number)]


REFUSED = {
    "flat splits beside notes": (
        [*pictures("train2017", "val2017"), "annotations"],
        ["unexpected beside train2017/: annotations", "--layout splits"],
    ),
    "flat splits": (pictures("train", "test1"), ["train: no class folders (2 files)", "--labels TABLE"]),
    "unlabelled test pictures": (
        [*pictures("train/a", "train/b"), *pictures("test")],
        ["test: no class folders", "vggft predict is for", "vggft featurize ", "/train,"],
    ),
    "pictures beside annotations": (
        [*pictures("images"), *pictures("annotations/trimaps")],
        ["images/ beside annotations is no class", "/images --labels TABLE"],
    ),
    "class folders beside annotations": (
        [*pictures("images/a", "images/b"), *pictures("annotations/a", "annotations/b")],
        ["images/ beside annotations is no class", "if they are classes: vggft featurize "],
    ),
    "VOC": (
        [*pictures("JPEGImages", "SegmentationClass"), "Annotations", "ImageSets"],
        ["JPEGImages/ beside", "--labels"],
    ),
    "YOLO": (
        [*pictures("train/images", "valid/images"), *pictures("train/labels")],
        ["images/ beside labels is no class"],
    ),
    "YOLO, types first": (
        [*pictures("images/train", "images/val", "labels/train")],
        ["images/ beside labels is no class"],
    ),
    "class first": (
        pictures("cats/train", "cats/test", "dogs/train", "dogs/test"),
        ["cats: a class holds splits (test, train)", "Expected train/cats rather than cats/train"],
    ),
    "one class with splits": (
        [*pictures("cats/train", "cats/test"), *pictures("dogs")],
        ["cats: a class holds splits (test, train)"],
    ),
    "class and split in one name": (
        pictures("cat_train", "cat_test", "dog_train", "dog_test"),
        ["class and split in one name", "cat_test, cat_train, dog_test, dog_train"],
    ),
    "splits a level too deep": (pictures("archive/train/a", "archive/test/a"), ["the folder holds splits", "/archive"]),
    "classes a level too deep": (
        pictures("dataset/cats", "dataset/dogs"),
        ["only one class ('dataset'), which holds 2 folders (cats, dogs)", "/dataset"],
    ),
    "classes a level too deep in all folders": (
        pictures("part1/cats", "part1/dogs", "part2/cats", "part2/dogs"),
        ["part1, part2 all hold the folders cats, dogs", "a level too deep", "--layout classes"],
    ),
    "two training folders": (pictures("train1/a", "train2/a", "test/a"), ["two folders for the same split"]),
    "a test folder beside classes": (
        pictures("cats", "dogs", "test"),
        ["test: looks like a split", "--layout classes"],
    ),
    "no training folder": (pictures("val/a", "test/a"), ["looks like a split folder"]),
    "flat": (pictures("."), ["2 pictures but no folders", "--labels TABLE", "vggft predict"]),
    "one flat folder": (pictures("images"), ["only one class ('images')", "--labels TABLE"]),
    "nothing": ([], ["no class folders"]),
}


@pytest.mark.parametrize("layout", REFUSED)
def test_layouts_that_are_not_clear_are_refused_with_the_next_step(tmp_path, layout):
    files, words = REFUSED[layout]
    make(tmp_path, *files)
    with pytest.raises(VggftError) as refused:
        scan(tmp_path)
    assert [word for word in words if word not in str(refused.value)] == []


CLASSES = {
    "train beside vehicles": pictures("bus", "train", "tram"),
    "words of splits in names": pictures("test tube", "train station", "bus stop"),
    "folders in classes": [*pictures("cats/day", "cats/night"), *pictures("dogs/day")],
    "pictures in classes": pictures("cats/images", "dogs/images"),
    "one of images": pictures("images", "drawings"),
    "labels and tags": pictures("labels", "tags"),
}


@pytest.mark.parametrize("layout", CLASSES)
def test_class_folders_that_only_resemble_something_else(tmp_path, layout):
    make(tmp_path, *CLASSES[layout])
    assert scan(tmp_path).classes == tuple(sorted({path.split("/")[0] for path in CLASSES[layout]}))


def test_folders_that_are_said_to_be_classes(tmp_path):
    make(tmp_path, *pictures("valid", "invalid", "test"), *pictures("images/a", "annotations/a"))
    with pytest.raises(VggftError):
        scan(tmp_path)
    names = ("annotations", "images", "invalid", "test", "valid")
    assert scan(tmp_path, rules=Rules(layout="classes")).classes == names
    assert scan(tmp_path, spelt=names).classes == names  # said once: they are the classes of the workspace


def test_folders_that_are_said_to_be_splits(tmp_path):
    make(tmp_path, *pictures("train/a", "train/b", "test/a", "test/b"), *pictures("ground_truth/a", "notes"))
    with pytest.raises(VggftError, match="unexpected beside train/: ground_truth, notes"):
        scan(tmp_path)
    found = scan(tmp_path, rules=Rules(layout="splits"))
    assert found.classes == ("a", "b")
    assert [folder.name for folder in found.left_out] == ["ground_truth", "notes"]
    make(tmp_path / "odd", *pictures("train/images", "train/labels", "val/images"))
    with pytest.raises(VggftError, match="If they are classes: --layout splits"):
        scan(tmp_path / "odd")
    assert scan(tmp_path / "odd", rules=Rules(layout="splits")).classes == ("images", "labels")
    make(tmp_path / "other", *pictures("cats", "dogs"))
    with pytest.raises(VggftError, match=r"--layout splits: no split folders.*there are cats, dogs"):
        scan(tmp_path / "other", rules=Rules(layout="splits"))
