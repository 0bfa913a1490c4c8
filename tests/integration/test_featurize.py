"""`vggft featurize`: what is computed, reused and refused."""

import csv
import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import PICTURES, make_classes, paint, refused, rewrite, snapshot, strict_json, vggft
from small_tuning import keras_outputs
from tiny import TINY

from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from featurize.pixels import images
from vggft.steps import featurize
from vggft.steps.options import FeaturizeOptions
from vggft.workspace import backbone, filling
from vggft.workspace.workspace import Workspace


def test_featurize_and_again(featurized):
    base, first = featurized
    assert first["images"] == first["computed"] == 24
    assert first["reused"] == first["duplicates"] == first["rejected"] == 0
    assert first["classes"] == ["bugs", "flowers"]
    assert first["splits"] == {"train": 20, "validate": 4, "test": 0}
    assert first["layers"] == ["block2_pool", "block3_pool"]
    assert first["images_per_second"] > 0
    before = snapshot(base / "work" / "cache")
    again = vggft("featurize", base / "data", "-w", base / "work", "--json")
    found = strict_json(again.stdout)
    assert (again.returncode, found["computed"], found["reused"], found["engine"]) == (0, 0, 24, None)
    assert snapshot(base / "work" / "cache") == before
    said = vggft("featurize", base / "data", "-w", base / "work")
    assert "nothing to compute" in said.stdout


def test_every_file_resolves_to_the_row_of_its_digest_with_its_own_label(featurized, weights):
    """Features against this network in Keras, on the decoder's pixels."""
    base, _ = featurized
    workspace = Workspace(base / "work", TINY)
    with (base / "work" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"path", "label", "split", "group", "digest", "status", "reason"} <= set(rows[0])
    assert len(rows) == 24
    for row in rows:
        data = (base / "data" / row["path"]).read_bytes()
        assert row["digest"] == hashlib.sha256(data).hexdigest()
        assert row["label"] == row["path"].split("/")[0]
    pixels = np.stack([images.decode_resized((base / "data" / r["path"]).read_bytes(), TINY.size) for r in rows])
    expected = keras_outputs(weights, pixels, ["block3_pool"])["block3_pool"]
    found = workspace.cache().read("block3_pool", [r["digest"] for r in rows]).astype(np.float64)
    difference = np.linalg.norm((found - expected).reshape(24, -1), axis=1)
    assert (difference / np.linalg.norm(expected.reshape(24, -1), axis=1)).max() <= 1e-3


def test_names_with_everything_in_them(tmp_path):
    odd = ["a b", "Ünï 日本", "new\nline", "-dash", os.fsdecode(b"not\xffutf8"), "[bold]x[/bold]"]
    for label in ("one [red]", "two\nlines"):
        for i, name in enumerate(odd):
            paint(
                tmp_path / "data" / label / f"{name}.png",
                (0, 20 * i, 50 + len(label)) if label[0] == "o" else (0, 20 * i, 1),
            )
    (tmp_path / "data" / "one [red]" / "bad\n[x]name.jpg").write_text("text")
    done = vggft("featurize", tmp_path / "data", "-w", tmp_path / "work", "--json")
    found = strict_json(done.stdout)
    assert (done.returncode, found["images"], found["rejected"]) == (3, 12, 1)
    json.dumps(found, ensure_ascii=False).encode("utf-8")  # text, no lone surrogates
    assert found["classes"] == ["one [red]", "two\nlines"]
    assert vggft("featurize", tmp_path / "data", "-w", tmp_path / "work").returncode == 3


def test_rejected_files_are_listed_and_looked_at_again(copied):
    (copied / "data" / "bugs" / "empty.png").write_bytes(b"")
    (copied / "data" / "bugs" / "text.jpg").write_text("not a picture")
    done = vggft("featurize", copied / "data", "-w", copied / "work", "--json")
    found = strict_json(done.stdout)
    assert (done.returncode, found["images"], found["computed"], found["rejected"]) == (3, 24, 0, 2)
    rows = {s.path: s for s in Workspace(copied / "work", TINY).dataset.samples}
    assert rows["bugs/empty.png"].reason == "empty file (0 bytes)"
    assert rows["bugs/text.jpg"].status == "rejected"
    shutil.copy(PICTURES / "bugs" / "spider.png", copied / "data" / "bugs" / "text.jpg")
    (copied / "data" / "bugs" / "empty.png").unlink()
    mended = strict_json(vggft("featurize", copied / "data", "-w", copied / "work", "--json").stdout)
    assert (mended["images"], mended["rejected"]) == (25, 0)


def test_renamed_moved_and_edited_files(copied):
    before = {s.digest: s.split for s in Workspace(copied / "work", TINY).dataset.samples}
    files = sorted((copied / "data" / "bugs").iterdir())
    files[0].rename(files[0].with_name("renamed.png"))
    files[1].rename(copied / "data" / "flowers" / files[1].name)  # re-labelled
    paint(files[2], (1, 2, 3))  # edited
    (copied / "data").rename(copied / "moved")
    found = strict_json(vggft("featurize", copied / "moved", "-w", copied / "work", "--json").stdout)
    assert (found["computed"], found["reused"], found["images"]) == (1, 23, 24)
    found = strict_json(vggft("featurize", copied / "moved", "-w", copied / "work", "--json", "--rehash").stdout)
    assert (found["computed"], found["reused"]) == (0, 24)
    workspace = Workspace(copied / "work", TINY)
    after = {s.digest: s.split for s in workspace.dataset.samples}
    assert all(after[d] == split for d, split in before.items() if d in after)
    assert workspace.dataset.root == copied / "moved"


def test_a_lost_or_edited_manifest_is_made_again_with_the_same_split(copied):
    work = copied / "work"
    before = {s.path: s.split for s in Workspace(work, TINY).dataset.samples}
    for damage in (
        (work / "manifest.csv").unlink,
        lambda: (work / "manifest.csv").write_text("path,label\nx,y\n"),
        (work / "workspace.json").unlink,
        (work / "splits.csv").unlink,
    ):
        damage()
        if (work / "splits.csv").exists():
            assert "vggft featurize" in refused("head", "-w", work)
        done = vggft("featurize", copied / "data", "-w", work, "--json")
        assert (done.returncode, strict_json(done.stdout)["computed"]) == (0, 0), done.stderr
        assert {s.path: s.split for s in Workspace(work, TINY).dataset.samples} == before


def test_without_workspace_json_no_setting_changes_silently(copied):
    work, data = copied / "work", copied / "data"
    assert vggft("featurize", data, "-w", work).returncode == 0
    settings, written = work / "workspace.json", Workspace(work, TINY).settings
    settings.unlink()
    assert f"{settings} is missing. Restore it, or run vggft featurize again" in refused("head", "-w", work)
    before = snapshot(work)
    for other in (
        ("--preprocess", "raw"),
        ("--validation", "0.3"),
        ("--seed", "5"),
        ("--layers", "block3_pool"),
        ("--cache", copied / "apart"),
    ):
        assert "its settings would change" in refused("featurize", data, "-w", work, *other)
    assert snapshot(work) == before
    done = vggft("featurize", data, "-w", work)
    assert f"{settings} was missing: it is written again" in done.stderr
    assert replace(Workspace(work, TINY).settings, manifest_sha256=written.manifest_sha256) == written
    settings.unlink()
    (work / "checksums.json").unlink()  # as workspaces of earlier versions
    done = vggft("featurize", data, "-w", work, "--seed", "5")
    assert done.returncode == 0, done.stderr
    settings.unlink()
    settings.mkdir()
    for command in (("featurize", data), ("head",)):
        assert f"{settings}: damaged" in refused(*command, "-w", work)


def test_other_data_do_not_take_over_a_workspace(copied, tmp_path):
    other = make_classes(tmp_path / "other", dogs=3, cats=3)
    before = snapshot(copied / "work")
    assert "--workspace for other data" in refused("featurize", other, "-w", copied / "work")
    assert snapshot(copied / "work") == before


def test_copies_under_two_labels(copied):
    sample = Workspace(copied / "work", TINY).dataset.accepted("validate")[0]
    other = "flowers" if sample.label == "bugs" else "bugs"
    shutil.copy(copied / "data" / sample.path, copied / "data" / other / "copy.png")
    done = vggft("featurize", copied / "data", "-w", copied / "work", "--json")
    found = strict_json(done.stdout)
    assert (found["computed"], found["duplicates"], found["images"]) == (0, 2, 23)
    assert "identical files under two labels" in done.stderr
    assert [sorted(paths) for paths in found["conflicts"]] == [sorted([sample.path, f"{other}/copy.png"])]


def test_a_test_split_can_be_reserved_later_and_then_stays(copied):
    before = {s.path: s.split for s in Workspace(copied / "work", TINY).dataset.samples}
    found = strict_json(vggft("featurize", copied / "data", "-w", copied / "work", "--test", "0.25", "--json").stdout)
    assert found["splits"] == {"train": 14, "validate": 4, "test": 6}
    after = {s.path: s.split for s in Workspace(copied / "work", TINY).dataset.samples}
    assert all(after[p] == "validate" for p, split in before.items() if split == "validate")
    again = strict_json(vggft("featurize", copied / "data", "-w", copied / "work", "--json").stdout)
    assert again["splits"] == found["splits"]
    assert "test" not in {before[p] for p in before}
    assert all(before[p] == "train" for p, split in after.items() if split == "test")
    assert {s.path: s.split for s in Workspace(copied / "work", TINY).dataset.samples} == after
    (copied / "work" / "workspace.json").unlink()  # with the settings gone, nothing is reserved a second time
    before = snapshot(copied / "work")
    assert "workspace.json is missing, and with these" in refused("featurize", copied / "data", "-w", copied / "work")
    assert snapshot(copied / "work") == before
    for arguments in (["--test", "0.25"], []):
        done = vggft("featurize", copied / "data", "-w", copied / "work", "--json", *arguments)
        assert strict_json(done.stdout)["splits"] == found["splits"]
    assert "--cache shares the features" in refused(
        "featurize", copied / "data", "-w", copied / "work", "--group-by", "(x)"
    )


def split_of(work):
    return {s.path: s.split for s in Workspace(work, TINY).dataset.samples}


def test_shares_and_seed_change_in_place(copied):
    """The split is drawn as in a new workspace; nothing is computed; the old options give the old split again."""
    work = copied / "work"
    before, identity = split_of(work), Workspace(work, TINY).dataset.identity
    (work / "heads" / "mine").mkdir(parents=True)
    (work / "heads" / "mine" / "head.json").touch()
    unfinished = work / "finetune" / "killed" / "unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "settings.json").write_text("{}")
    for i, options in enumerate(
        (["--validation", "0.5"], ["--seed", "3"], ["--test", "0.25", "--validation", "0.25"], ["--test", "0"])
    ):
        done = vggft("featurize", copied / "data", "-w", work, *options, "--json")
        assert strict_json(done.stdout)["computed"] == 0, done.stderr
        after = split_of(work)
        assert (
            f"the split was drawn again: {sum(after[p] != before[p] for p in after)} images changed splits"
            in done.stderr
        )
        assert "1 head, 1 unfinished run are stale now" in done.stderr
        settings = Workspace(work, TINY).settings.shares
        new = ["--validation", settings.validate, "--test", settings.test, "--seed", settings.seed]
        assert vggft("featurize", copied / "data", "-w", copied / f"new{i}", *new).returncode == 0
        assert split_of(copied / f"new{i}") == after
        done = vggft("featurize", copied / "data", "-w", work, *new, "--json")  # the same again: nothing changes
        assert "drawn again" not in done.stderr
        assert "stale" not in done.stderr
        before = after
    assert vggft("featurize", copied / "data", "-w", work, "--validation", "0.2", "--seed", "0").returncode == 0
    assert Workspace(work, TINY).dataset.identity == identity
    before = snapshot(work)
    assert "Expected a sum below 1" in refused("featurize", copied / "data", "-w", work, "--test", "0.9")
    assert snapshot(work) == before


def test_features_of_another_decoder_are_computed_again(copied):
    """Nothing is mixed, and the old ones stay."""
    path = copied / "work" / "workspace.json"
    settings = json.loads(path.read_text())
    rewrite(path, {**settings, "fingerprint": {**settings["fingerprint"], "decoder": 1}})
    before = Workspace(copied / "work", TINY).cache()
    before.write(["0" * 64], {"block3_pool": np.ones((1, 4, 4, 16), np.float16)}, {})
    before.save_index()
    assert "Run: vggft featurize" in refused("head", "--head", "logistic-avg", "-w", copied / "work")
    work = ("featurize", copied / "data", "-w", copied / "work", "--json")
    done = vggft(*work)
    assert strict_json(done.stdout)["computed"] == 0  # they lie in the cache as of 2
    said = "the features made with version 1 of the decoder were computed again with version 2. To delete the old ones: vggft"
    assert said in done.stderr
    assert Workspace(copied / "work", TINY).settings.fingerprint.decoder == 2
    assert before.folder.is_dir()
    assert "of the decoder" not in vggft(*work).stderr


def test_another_decoder_is_not_used_for_the_features_of_one():
    for version in (1, 3):
        with pytest.raises(
            VggftError, match=f"made with version {version} of the decoder, and this vggft has version 2"
        ):
            backbone.decoder(replace(Fingerprint.of(TINY), decoder=version))


@pytest.mark.parametrize(("layers", "images"), [((), 24), (("--layers", "block3_conv1"), 0)])
def test_engines_are_measured_for_what_is_computed_from_pixels(copied, monkeypatch, layers, images):
    """A layer between cached ones is computed from the one below it."""
    asked = []
    start_engine = filling.start_engine

    def start(*arguments, images):
        asked.append(images)
        return start_engine(*arguments, images=images)

    monkeypatch.setattr(filling, "start_engine", start)
    if not layers:
        shutil.rmtree(copied / "work")
    assert vggft("featurize", copied / "data", "-w", copied / "work", *layers).returncode == 0
    assert asked == [images]


def test_other_layers_and_preprocessing(copied):
    for arguments, computed in ((["--layers", "block1_pool"], 24), (["--preprocess", "raw"], 24), ([], 0)):
        found = strict_json(vggft("featurize", copied / "data", "-w", copied / "work", "--json", *arguments).stdout)
        assert found["computed"] == computed
    assert Workspace(copied / "work", TINY).settings.fingerprint.preprocess == "raw"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, ["Expected a folder of class folders"]),
        (lambda p: p.mkdir(), ["no class folders"]),
        (lambda p: make_classes(p, only=3), ["only one class", "'only'"]),
        (lambda p: make_classes(p, a=3, b=1), ["class 'b' has only one image", "at least two"]),
    ],
)
def test_bad_folders_change_nothing(tmp_path, make, words):
    make(tmp_path / "data")
    message = refused("featurize", tmp_path / "data", "-w", tmp_path / "work")
    assert all(word in message for word in words)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layers", "fc1"], ["unknown layer 'fc1'", *TINY.names]),
        (["--shard", "0"], ["--shard 0"]),
        (["--shard", "513"], ["--shard 513", "1 to 512"]),
        (["--validation", "1.5"], ["--validation 1.5", "expected"]),
        (["--preprocess", "torch"], ["caffe or raw"]),
        (["--engine", "tpu"], ["auto, keras, winograd or mnn"]),
        (["--nonsense"], ["--nonsense", "vggft featurize --help"]),
        (["--seed", "x"], ["--seed"]),
        (["--test", "0.4"], ["no training images left", "--test"]),
        (["--weights", "nowhere.h5"], ["no such file"]),
        (["--group-by", "x"], ["has no capture group"]),
    ],
)
def test_bad_options_change_nothing(tmp_path, arguments, words):
    make_classes(tmp_path / "data", a=2, b=3)
    message = refused("featurize", tmp_path / "data", "-w", tmp_path / "work", *arguments)
    assert all(word in message for word in words)
    assert not (tmp_path / "work").exists()


def test_a_workspace_among_the_classes_is_refused(tmp_path):
    make_classes(tmp_path / "data", a=3, b=3)
    before = snapshot(tmp_path)
    assert "overlap: one lies inside the other" in refused("featurize", ".", cwd=tmp_path / "data")
    assert snapshot(tmp_path) == before


def test_a_workspace_that_another_process_made_in_the_meantime_is_not_overwritten(copied, monkeypatch, ui):
    from featurize.data import scan
    from vggft.steps import featurize

    new = copied / "new"
    look = scan.scan

    def slow(*arguments):
        found = look(*arguments)
        shutil.copytree(copied / "work", new)  # while this one was hashing, another finished
        return found

    monkeypatch.setattr(scan, "scan", slow)
    with pytest.raises(VggftError, match=r"--group-by \(\.\+\): the split of this workspace uses None"):
        featurize.run(Workspace(new, TINY), FeaturizeOptions(copied / "data", group_by="(.+)", seed=7), ui)
    assert snapshot(new).keys() - {"lock"} == snapshot(copied / "work").keys() - {"lock"}
    assert Workspace(new, TINY).settings.shares.seed == 0


@pytest.mark.parametrize("lost", [False, True])
def test_a_class_keeps_its_spelling_where_all_files_are_read_again(tmp_path, ui, lost):
    one, two = "caf\u00e9", "cafe\u0301"
    work = Workspace(tmp_path / "work", TINY)
    make_classes(tmp_path / "data", **{one: 2, "tea": 2})
    featurize.run(work, FeaturizeOptions(tmp_path / "data"), ui)
    (tmp_path / "data" / one).rename(tmp_path / "data" / two)
    if lost:
        work.manifest.unlink()
    found = featurize.run(work, FeaturizeOptions(tmp_path / "data", rehash=not lost), ui)
    assert found["classes"] == [one, "tea"]
