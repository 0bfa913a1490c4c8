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
    "flat splits beside notes": ([*pictures("train2017", "val2017"), "annotations"], ["train2017 --labels TABLE, or "]),
    "class folders in splits beside notes": (
        pictures("train/a", "train/b", "val/a", "notes"),
        ["unexpected beside train/: notes", "--layout splits, which leaves out all but train, val"],
    ),
    "flat splits": (pictures("train", "test1"), ["train: no class folders (2 files)", "/train --labels TABLE"]),
    "unlabelled test pictures": (
        [*pictures("train/a", "train/b"), *pictures("test")],
        [
            "test: no class folders (2 files)",
            "Later, to classify them: vggft predict ",
            "vggft featurize ",
            "/train. Later",
        ],
    ),
    "an empty split": ([*pictures("train/a", "train/b"), "val"], ["val: empty.", "remove it"]),
    "flat test pictures in a folder of their own": (
        [*pictures("asl_train/asl_train/a", "asl_train/asl_train/b", "asl_test")],
        ["asl_test: no class folders (2 files)", "/asl_train/asl_train. Later"],
    ),
    "pictures beside annotations": (
        [*pictures("images"), *pictures("annotations/trimaps")],
        ["images/ beside annotations may be images and their annotations", "/images --labels TABLE"],
    ),
    "class folders beside annotations": (
        [*pictures("images/a", "images/b"), *pictures("annotations/a", "annotations/b")],
        ["images/ beside annotations may be", "If its folders are classes: vggft featurize "],
    ),
    "frames beside masks": (pictures("frames", "masks"), ["frames/ beside masks may be"]),
    "originals beside ground truth": (pictures("Original", "Ground Truth"), ["Original/ beside Ground Truth may be"]),
    "Food-101": ([*pictures("images/pie", "images/soup"), "meta"], ["images/ beside meta may be", "/images."]),
    "VOC": (
        [*pictures("JPEGImages", "SegmentationClass"), "Annotations", "ImageSets"],
        ["JPEGImages/ beside", "--labels"],
    ),
    "YOLO": (
        pictures("train/images", "valid/images", "train/labels"),
        ["train: images/ beside labels may be", "--layout splits"],
    ),
    "YOLO, types first": (pictures("images/train", "images/val", "labels/train"), ["images/ beside labels may be"]),
    "masks in classes": (
        pictures("COVID/images", "COVID/masks", "Normal/images", "Normal/masks"),
        ["all hold images, masks, of which masks may be annotations", "Move masks away"],
    ),
    "masks in classes in splits": (
        pictures(
            *(f"{s}/{c}/{k}" for s in ("Train", "Val") for c in ("COVID", "Normal") for k in ("images", "lung masks"))
        ),
        ["of which lung masks may be annotations", "--layout splits"],
    ),
    "class first": (
        pictures("cats/train", "cats/test", "dogs/train", "dogs/test"),
        ["cats: a class holds splits (test, train)", "Expected train/cats rather than cats/train"],
    ),
    "class first, with a cover": (
        [*pictures("cats/cats_train", "cats/cats_test", "dogs/dogs_train", "dogs/dogs_test"), "cats/cover.jpg"],
        ["cats: a class holds splits"],
    ),
    "one class with splits": (
        [*pictures("cats/train", "cats/test"), *pictures("dogs")],
        ["cats: holds splits (test, train)"],
    ),
    "the data set beside notes": (
        pictures("dataset/train/a", "dataset/val/a", "docs"),
        ["holds splits", "/dataset. If dataset/"],
    ),
    "class and split in one name": (
        pictures("cat_train", "cat_test", "dog_train", "dog_test"),
        ["these names combine class and split", "cat_test, cat_train, dog_test, dog_train"],
    ),
    "splits a level too deep": (
        pictures("archive/train/a", "archive/test/a"),
        ["holds splits", "vggft featurize ", "/archive."],
    ),
    "splits two levels too deep": (pictures("car/car/train/a", "car/car/test/a"), ["holds splits", "/car/car."]),
    "classes a level too deep": (
        pictures("dataset/cats", "dataset/dogs", "dataset/__MACOSX"),
        ["only one class ('dataset'), which holds 2 folders (cats, dogs)", "/dataset"],
    ),
    "classes a level too deep in all folders": (
        pictures("part1/cats", "part1/dogs", "part2/cats", "part2/dogs"),
        ["part1, part2 all hold the folders cats, dogs", "a level too deep", "--layout classes"],
    ),
    "splits with other names": (
        pictures("Xtrain/a", "Xtrain/b", "Xtest/a", "Xtest/b"),
        ["Xtest, Xtrain all hold the folders a, b", "name them train, validate and test"],
    ),
    "Office-31": (
        pictures("amazon/images/a", "amazon/images/b", "dslr/images/a", "dslr/images/b"),
        ["amazon, dslr all hold the folders a, b"],
    ),
    "classes once more": (
        pictures("daisy", "rose", "flowers/daisy", "flowers/rose"),
        ["flowers: holds daisy, rose once more"],
    ),
    "numbered parts": (pictures("images_001", "images_002"), ["may be parts of one set", "--labels TABLE"]),
    "folds": (pictures("fold_0", "fold_1"), ["may be parts of one set"]),
    "two training folders": (
        pictures("train1/a", "train2/a", "test/a"),
        ["two folders for the same split", "--layout splits"],
    ),
    "a test folder beside classes": (
        pictures("cats", "dogs", "test"),
        ["test: looks like a split", "--layout classes"],
    ),
    "no training folder": (pictures("val/a", "test/a"), ["looks like a split folder", "--layout classes"]),
    "only a test folder": (
        pictures("test/a", "test/b"),
        ["looks like a split folder", "If it holds the classes: vggft featurize "],
    ),
    "tiny-imagenet": (
        pictures("train/n1/images", "train/n2/images", "val/images", "test/images"),
        [
            "val/images: no class folders (2 files)",
            "To draw validation images from the training folder: vggft featurize ",
        ],
    ),
    "ASL": (
        pictures("asl_train/asl_train/a", "asl_train/asl_train/b", "asl_test/asl_test"),
        ["asl_test/asl_test: no class folders (2 files)", "Later, to classify them: vggft predict "],
    ),
    "a class that only validation has": (
        pictures("train/a", "train/b", "val/a", "val/c"),
        ["class 'c' (val/c/0.png) has no images in the training split"],
    ),
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
    "folders of systems in classes": pictures(
        "cats/x", "cats/__MACOSX", "cats/@eaDir", "dogs/x", "dogs/__MACOSX", "dogs/@eaDir"
    ),
    "pictures in classes": pictures("cats/images", "dogs/images"),
    "one of images": pictures("images", "drawings"),
    "labels and tags": pictures("labels", "tags"),
    "digits": pictures("0", "1", "2"),
    "numbered classes": pictures("001.Albatross", "002.Crow"),
    "classes with numbers": pictures("bus1", "bus2"),
    "other scripts": pictures("猫", "犬"),
}


@pytest.mark.parametrize("layout", CLASSES)
def test_class_folders_that_only_resemble_something_else(tmp_path, layout):
    make(tmp_path, *CLASSES[layout])
    assert scan(tmp_path).classes == tuple(sorted({path.split("/")[0] for path in CLASSES[layout]}))


def test_folders_that_are_said_to_be_classes(tmp_path):
    make(tmp_path, *pictures("valid", "invalid", "test"), *pictures("images/a", "annotations/a"))
    with pytest.raises(VggftError):
        scan(tmp_path)
    assert scan(tmp_path, rules=Rules(layout="classes")).classes == (
        "annotations",
        "images",
        "invalid",
        "test",
        "valid",
    )


@pytest.mark.parametrize("inner", ["images", "train"])
def test_a_folder_between_split_and_classes_that_says_nothing(tmp_path, inner):
    make(tmp_path, *pictures(f"train/{inner}/a", f"train/{inner}/b", "val/a", "val/b"))
    found = scan(tmp_path)
    assert found.classes == ("a", "b")
    assert found.stored_splits == {"train", "validate"}


def test_a_split_with_one_class_whose_name_says_nothing(tmp_path):
    make(tmp_path, *pictures("train/photo", "train/drawing", "test/photo"))
    assert scan(tmp_path).classes == ("drawing", "photo")


def test_classes_called_like_their_split_folder_stay_classes(tmp_path):
    make(tmp_path, *pictures("train/bus", "train/train", "train/car"))
    assert scan(tmp_path).classes == scan(tmp_path, spelt=("bus", "car", "train")).classes == ("bus", "car", "train")


def test_labels_beside_splits_are_no_second_pair_of_splits(tmp_path):
    make(tmp_path, *pictures("train/a", "train/b", "test/a", "test/b", "train_labels", "test_labels"))
    with pytest.raises(VggftError, match="unexpected beside train/: test_labels, train_labels"):
        scan(tmp_path)
    assert scan(tmp_path, rules=Rules(layout="splits")).classes == ("a", "b")


def test_a_link_to_a_folder_above_ends(tmp_path):
    make(tmp_path, *pictures("a", "b"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "again").symlink_to("..")
    with pytest.raises(VggftError, match="c: holds a, b once more"):
        scan(tmp_path)
    (tmp_path / "c" / "again").unlink()
    (tmp_path / "c" / "c").symlink_to(".")
    with pytest.raises(VggftError, match="'c' has no images"):
        scan(tmp_path)


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
