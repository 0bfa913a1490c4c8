"""Labels from a table: `featurize --labels`, what the workspace remembers of it, and `evaluate --labels`."""

import csv
import shutil

import pytest
from conftest import drawings, paint, refused, snapshot, strict_json, vggft
from tiny import TINY

from featurize.data.frames import frame_name
from featurize.errors import VggftError
from vggft.labelling.decisions import FILE, Decision, Decisions
from vggft.labelling.suggestions import CANNOT_TELL
from vggft.steps import evaluate, featurize
from vggft.steps.options import EvaluateOptions, FeaturizeOptions
from vggft.workspace.workspace import Workspace


@pytest.fixture
def flat(tmp_path):
    """Twelve drawings of each of two classes in one folder, a table of their labels, and a picture without a row."""
    drawings(tmp_path / "classes", 12, "bugs", "flowers")
    folder, rows = tmp_path / "pictures", []
    folder.mkdir()
    for path in sorted((tmp_path / "classes").rglob("*.png")):
        name = f"{path.parent.name[0]}{path.name}"
        shutil.copy(path, folder / name)
        rows.append((name, path.parent.name))
    paint(folder / "unknown.png", (1, 2, 3))
    return folder, rows


def write(path, rows, header=("file", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_a_table_instead_of_class_folders(flat, tmp_path, ui, capfd):
    folder, rows = flat
    table = write(tmp_path / "labels.csv", rows, ("image_id", "category"))
    done = vggft("featurize", folder, "--labels", table, "-w", tmp_path / "work", "--json")
    found = strict_json(done.stdout)
    assert (done.returncode, found["images"], found["classes"]) == (0, 24, ["bugs", "flowers"])
    assert f"labels: {table}, file from column 'image_id', label from column 'category'" in done.stderr
    assert "no label for 1 file (unknown.png)" in done.stderr
    work = Workspace(tmp_path / "work", TINY)
    assert {(s.path, s.label) for s in work.dataset.samples} == set(rows)

    # The same as from class folders: the same data set, whose features are there.
    other = featurize.run(
        Workspace(tmp_path / "other", TINY),
        FeaturizeOptions(tmp_path / "classes", cache=tmp_path / "work" / "cache"),
        ui,
    )
    assert other["computed"] == 0
    assert Workspace(tmp_path / "other", TINY).dataset.identity == work.dataset.identity

    # The workspace remembers the table, until the folders are said to be the labels.
    write(table, [(rows[0][0], "flowers"), *rows[1:]])
    featurize.run(work, FeaturizeOptions(folder), ui)
    assert {s.label for s in work.dataset.samples if s.path == rows[0][0]} == {"flowers"}
    with pytest.raises(VggftError, match="25 pictures but no folders"):
        featurize.run(work, FeaturizeOptions(folder, layout="classes"), ui)
    table.unlink()
    with pytest.raises(VggftError, match=r"No such file.*The workspace remembers this table.*--layout auto"):
        featurize.run(work, FeaturizeOptions(folder), ui)
    featurize.run(work, FeaturizeOptions(tmp_path / "classes", layout="auto"), ui)
    assert work.settings.labels is None


def test_splits_groups_and_rows_without_files(flat, tmp_path):
    folder, rows = flat
    described = [
        (name, label, ("train", "train", "val", "test")[i % 4], f"g{i // 4}") for i, (name, label) in enumerate(rows)
    ]
    table = write(
        tmp_path / "labels.csv", [*described, ("gone.png", "bugs", "train", "g9")], ("file", "label", "split", "group")
    )
    done = vggft("featurize", folder, "--labels", table, "-w", tmp_path / "work", "--json")
    found = strict_json(done.stdout)
    assert (done.returncode, found["rejected"]) == (3, 1)
    assert found["splits"] == {"train": 12, "validate": 6, "test": 6}
    assert "rejected gone.png: labels.csv has a row for it, but there is no such file" in done.stderr
    samples = Workspace(tmp_path / "work", TINY).dataset.accepted()
    assert {s.group for s in samples} == {f"g{i}" for i in range(6)}
    assert "6 groups in several splits, as given by folders or table (g0, g1, g2, g3, g4)" in done.stderr
    described[0] = (*described[0][:2], "val", "g0")  # the user's to change
    write(table, described, ("file", "label", "split", "group"))
    again = strict_json(vggft("featurize", folder, "-w", tmp_path / "work", "--json").stdout)
    assert (again["splits"], again["computed"]) == ({"train": 11, "validate": 7, "test": 6}, 0)
    message = refused("featurize", folder, "--labels", table, "--test", "0.2", "-w", tmp_path / "work")
    assert "--test 0.2: the table of labels has the test split" in message


def test_a_table_that_cannot_be_used_changes_nothing(flat, tmp_path):
    folder, rows = flat
    table = write(tmp_path / "labels.csv", [*rows, (rows[0][0], "fish")])
    before = snapshot(tmp_path)
    message = refused("featurize", folder, "--labels", table, "-w", tmp_path / "work")
    assert f"line 26: {rows[0][0]} has another row, which says 'bugs'; this one says 'fish'" in message
    message = refused("featurize", folder, "--labels", table, "--layout", "classes", "-w", tmp_path / "work")
    assert "--labels with --layout classes" in message
    assert snapshot(tmp_path) == before


def test_a_layout_is_remembered(flat, tmp_path, ui):
    work = Workspace(tmp_path / "work", TINY)
    (tmp_path / "classes" / "bugs").rename(tmp_path / "classes" / "test")
    with pytest.raises(VggftError, match="If flowers, test are classes: --layout classes"):
        featurize.run(work, FeaturizeOptions(tmp_path / "classes"), ui)
    featurize.run(work, FeaturizeOptions(tmp_path / "classes", layout="classes"), ui)
    assert featurize.run(work, FeaturizeOptions(tmp_path / "classes"), ui)["classes"] == ["flowers", "test"]
    with pytest.raises(VggftError, match="--layout classes"):
        featurize.run(work, FeaturizeOptions(tmp_path / "classes", layout="auto"), ui)


def test_the_decisions_of_sort_are_a_table(flat, tmp_path, ui):
    folder, rows = flat
    decided = [Decision(name, label, "bugs", 0.5, step, 9) for step, (name, label) in enumerate(rows, 1)]
    Decisions(folder / FILE).add([*decided, Decision("unknown.png", CANNOT_TELL, "", None, 99, 9)])
    found = featurize.run(Workspace(tmp_path / "work", TINY), FeaturizeOptions(folder, labels=folder / FILE), ui)
    assert (found["images"], found["rejected"], found["classes"]) == (24, 0, ["bugs", "flowers"])
    samples = Workspace(tmp_path / "work", TINY).dataset.samples
    assert {(s.path, s.label) for s in samples} == set(rows)


def test_evaluate_on_a_table(trained, flat, tmp_path, ui):
    shutil.copytree(trained[0].root, tmp_path / "work")
    work = Workspace(tmp_path / "work", TINY)
    one, other = work.settings.classes
    folder, rows = flat
    labelled = [(name, one if label == "bugs" else other) for name, label in rows]
    table = write(tmp_path / "labels.csv", [*labelled, ("gone.png", one)])
    found = evaluate.run(work, EvaluateOptions(folder, labels=table), ui)
    assert found["metrics"]["n"] == 24
    assert [rejected["path"] for rejected in found["rejected"]] == [str(folder / "gone.png")]
    for name, label in labelled:
        target = tmp_path / "folders" / label / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, target)
    assert evaluate.run(work, EvaluateOptions(tmp_path / "folders"), ui)["confusion"] == found["confusion"]
    write(table, [(name, label.upper()) for name, label in labelled])
    with pytest.raises(VggftError, match=f"not classes of the model: {one.upper()}, {other.upper()}"):
        evaluate.run(work, EvaluateOptions(folder, labels=table), ui)


def test_frames_of_a_video_stay_in_one_split(tmp_path, ui):
    for label, videos in (("miku", ("one", "two", "three")), ("rin", ("one", "four", "five"))):
        for shade, video in enumerate(videos):
            for second in range(4):
                paint(
                    tmp_path / "data" / label / frame_name(video, second / 2),
                    (0, 60 * second, 60 * shade + len(label)),
                )
    found = featurize.run(Workspace(tmp_path / "work", TINY), FeaturizeOptions(tmp_path / "data"), ui)
    assert found["splits"]["validate"] > 0
    samples = Workspace(tmp_path / "work", TINY).dataset.accepted()
    assert {s.group for s in samples} == {"one", "two", "three", "four", "five"}
    splits = {s.group: {t.split for t in samples if t.group == s.group} for s in samples}
    assert {len(of_video) for of_video in splits.values()} == {1}


def test_one_video_for_a_class_is_refused_with_what_to_do(tmp_path, ui):
    for label in ("miku", "rin"):
        for second in range(4):
            paint(tmp_path / "data" / label / frame_name(label, second), (0, 60 * second, len(label)))
    with pytest.raises(
        VggftError, match=r"only one group of usable images: .* frames of one video.*--group-by '\(.\*\)'"
    ):
        featurize.run(Workspace(tmp_path / "work", TINY), FeaturizeOptions(tmp_path / "data"), ui)
    found = featurize.run(Workspace(tmp_path / "work", TINY), FeaturizeOptions(tmp_path / "data", group_by="(.*)"), ui)
    assert found["images"] == 8


def test_groups_that_join_images_of_different_splits_are_refused(flat, tmp_path, ui):
    folder, rows = flat
    work = Workspace(tmp_path / "work", TINY)
    table = write(tmp_path / "labels.csv", rows)
    featurize.run(work, FeaturizeOptions(folder, labels=table), ui)
    before = {s.path: s.split for s in work.dataset.samples}
    write(table, [(*row, f"g{i // 6}") for i, row in enumerate(rows)], ("file", "label", "group"))
    with pytest.raises(VggftError, match=r"group 'g\d' joins images that were assigned to train and validate"):
        featurize.run(work, FeaturizeOptions(folder), ui)
    write(table, [(*row, f"{before[row[0]]}{i // 6}") for i, row in enumerate(rows)], ("file", "label", "group"))
    featurize.run(work, FeaturizeOptions(folder), ui)
    assert {s.path: s.split for s in work.dataset.samples} == before
