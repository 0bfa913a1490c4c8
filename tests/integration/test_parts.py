"""`featurize --part` and `cache merge`: parts computed apart give the features, the data set and the models of one run."""

import os
import shutil

import pytest
from conftest import drawings, paint, refused, snapshot, strict_json, vggft
from tiny import TINY

from featurize.backbone.architecture import POOLED
from featurize.errors import VggftError
from vggft.steps import featurize, merge, parts
from vggft.steps.options import FeaturizeOptions, MergeOptions
from vggft.workspace.part import Part
from vggft.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Thirty drawings, an unreadable file, a copy, and their features in three parts."""
    base = tmp_path_factory.mktemp("parts")
    drawings(base / "data", 15, "birds", "fruit")
    (base / "data" / "birds" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    shutil.copy(next((base / "data" / "fruit").iterdir()), base / "data" / "fruit" / "copy.png")
    results = [
        vggft("featurize", base / "data", "--part", f"{k}/3", "-w", base / f"part{k}", "--shard", "4", "--json")
        for k in (1, 2, 3)
    ]
    assert sorted(done.returncode for done in results) == [0, 0, 3]  # the one with the unreadable file
    return base, [strict_json(done.stdout) for done in results]


@pytest.fixture
def base(three, tmp_path):
    shutil.copytree(three[0], tmp_path / "base")
    return tmp_path / "base"


def merged(base, *numbers, into="work"):
    return vggft("cache", "merge", *(base / f"part{k}" for k in numbers), "-w", base / into, "--json")


def test_every_image_is_in_one_part(three):
    _, results = three
    assert sum(result["images"] for result in results) == 30
    assert all(result["computed"] == result["images"] for result in results)
    digests = [f"{i * 2654435761 % 2**32:08x}" * 8 for i in range(3000)]
    sizes = [sum(Part(k, 3).has(digest) for digest in digests) for k in (1, 2, 3)]
    assert sum(sizes) == 3000
    assert min(sizes) > 900


def test_parts_merge_into_what_one_run_computes(base, ui):
    done = merged(base, 1, 2, 3)
    found = strict_json(done.stdout)
    assert (done.returncode, found["images"], found["new_images"], found["present"]) == (0, 30, 30, 0)
    linked = base / "work" / "cache"
    assert all(file.stat().st_nlink == 2 for file in linked.rglob("shards/*.h5"))
    again = strict_json(merged(base, 1, 2, 3).stdout)
    assert (again["files"], again["present"], again["new_images"]) == (0, found["files"], 0)

    work, alone = Workspace(base / "work", TINY), Workspace(base / "alone", TINY)
    assert featurize.run(work, FeaturizeOptions(base / "data"), ui)["computed"] == 0
    featurize.run(alone, FeaturizeOptions(base / "data"), ui)
    assert work.dataset.identity == alone.dataset.identity
    digests = [sample.digest for sample in work.dataset.accepted()]
    for layer in work.settings.layers:
        one, other = (workspace.cache().read(layer, digests).astype("f4") for workspace in (work, alone))
        assert abs(one - other).max() <= 1e-3 * abs(other).max()


def test_features_of_an_existing_workspace_grow(base, ui):
    work = Workspace(base / "work", TINY)
    few = drawings(base / "few", 4, "birds", "fruit")
    featurize.run(work, FeaturizeOptions(few), ui)
    found = merge.run(work, MergeOptions(tuple(base / f"part{k}" for k in (1, 2, 3))), ui)
    assert found["images"] == 30
    assert featurize.run(work, FeaturizeOptions(base / "data"), ui)["computed"] == 0


def test_a_missing_part_and_one_that_is_there_twice_are_named(base):
    shutil.copytree(base / "part1", base / "part9")
    done = merged(base, 1, 3, 9)
    found = strict_json(done.stdout)
    assert done.returncode == 3
    assert found["problems"] == [{"part": "2/3", "reason": "missing"}]
    assert "part 2/3: missing" in done.stderr
    assert f"part 1/3 is given 2 times: {base / 'part1'}, {base / 'part9'}" in done.stderr
    completed = vggft("featurize", base / "data", "-w", base / "work", "--json")
    assert strict_json(completed.stdout)["computed"] == 30 - found["images"]


def test_images_of_parts_with_other_layers_are_counted(base):
    options = ("--part", "1/3", "--layers", POOLED)
    assert vggft("featurize", base / "data", *options, "-w", base / "part9").returncode == 0
    done = merged(base, 2, 3, 9)
    joined = strict_json(done.stdout)
    assert (joined["images"], joined["new_images"]) == (30, 30)
    assert "has other layers than" in done.stderr


def test_a_damaged_file_is_named_and_computed_again(base):
    shard = sorted((base / "part2" / "cache").rglob("shards/*.h5"))[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    done = merged(base, 1, 2, 3)
    assert done.returncode == 3
    assert f"left out: {shard} is damaged (sha256 differs from the file name)" in done.stderr
    completed = strict_json(vggft("featurize", base / "data", "-w", base / "work", "--json").stdout)
    assert completed["computed"] == 30 - strict_json(done.stdout)["images"] > 0


def test_copies_where_no_links_can_be_made(base, ui, monkeypatch):
    def refuse(source, target, **options):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    found = merge.run(Workspace(base / "work", TINY), MergeOptions((base / "part1",)), ui)
    assert found["files"] > 0
    files = list((base / "work" / "cache").rglob("shards/*.h5"))
    assert {file.stat().st_nlink for file in files} == {1}
    assert {file.name: file.read_bytes() for file in files} == {
        file.name: file.read_bytes() for file in (base / "part1" / "cache").rglob("shards/*.h5")
    }


def test_what_cannot_be_merged_changes_nothing(base, tmp_path, ui):
    work = Workspace(base / "work", TINY)
    parts.featurize(Workspace(base / "raw", TINY), FeaturizeOptions(base / "data", part="2/3", preprocess="raw"), ui)
    parts.featurize(Workspace(base / "half", TINY), FeaturizeOptions(base / "data", part="1/2"), ui)
    paint(tmp_path / "other" / "a.png", (1, 2, 3))
    before = snapshot(base)
    for folders, message in (
        (("part1", "raw"), "raw: its features differ from those of .*part1: preprocess raw instead of caffe"),
        (("part1", "half"), r"parts of different divisions: .*part1 \(1/3\), .*half \(1/2\)"),
        (("part1", "nothing"), "nothing: no features in .*cache. Expected a workspace of vggft featurize --part"),
        (("work",), "this is the workspace that the parts are merged into"),
    ):
        with pytest.raises(VggftError, match=message):
            merge.run(work, MergeOptions(tuple(base / folder for folder in folders)), ui)
    assert snapshot(base) == before


def test_a_part_is_no_data_set_and_no_other_part(base):
    message = refused("head", "-w", base / "part1")
    assert "part 1/3 of the features, and no data set. Merge all parts" in message
    message = refused("featurize", base / "data", "--part", "2/3", "-w", base / "part1")
    assert "--part 2/3:" in message and "holds part 1/3" in message
    for wrong in ("0/3", "4/3", "x", "1/0", "-1/3", "1/3/3"):
        assert f"--part {wrong}: expected K/N" in refused(
            "featurize", base / "data", f"--part={wrong}", "-w", base / "new"
        )
    assert "--part with --views 2" in refused(
        "featurize", base / "data", "--part", "1/3", "--views", "2", "-w", base / "new"
    )
    assert not (base / "new").exists()


def test_a_part_again_computes_only_what_is_new(base):
    paint(base / "data" / "birds" / "new.png", (9, 9, 9))
    results = [
        strict_json(vggft("featurize", base / "data", "--part", f"{k}/3", "-w", base / f"part{k}", "--json").stdout)
        for k in (1, 2, 3)
    ]
    assert sum(result["computed"] for result in results) == 1
    assert sum(result["reused"] for result in results) == 30


def test_a_merged_workspace_goes_on_with_the_features_it_has(base, ui):
    for number in (1, 2):
        raw = FeaturizeOptions(base / "data", part=f"{number}/2", preprocess="raw")
        parts.featurize(Workspace(base / f"raw{number}", TINY), raw, ui)
    work = Workspace(base / "work", TINY)
    merge.run(work, MergeOptions((base / "raw1", base / "raw2")), ui)
    assert vggft("cache", "verify", "-w", base / "work").returncode == 0
    merge.run(Workspace(base / "again", TINY), MergeOptions((base / "work",)), ui)  # in two stages
    assert featurize.run(work, FeaturizeOptions(base / "data"), ui)["computed"] == 0
    assert work.settings.fingerprint.preprocess == "raw"


def test_an_empty_part_an_unfinished_one_and_one_of_other_images(base, ui):
    few = drawings(base / "few", 2, "birds", "fruit")
    for number in range(1, 13):
        parts.featurize(Workspace(base / f"of12-{number}", TINY), FeaturizeOptions(few, part=f"{number}/12"), ui)
    twelve = tuple(base / f"of12-{number}" for number in range(1, 13))
    found = merge.run(Workspace(base / "twelve", TINY), MergeOptions(twelve), ui)
    assert (found["images"], found["problems"]) == (4, [])

    paint(base / "data" / "birds" / "new.png", (9, 9, 9))
    for number in (1, 2):
        parts.featurize(
            Workspace(base / f"part{number}", TINY), FeaturizeOptions(base / "data", part=f"{number}/3"), ui
        )
    (base / "part2" / "part.json").unlink()
    done = merged(base, 1, 2, 3)
    assert done.returncode == 3
    reasons = [problem["reason"] for problem in strict_json(done.stdout)["problems"]]
    assert reasons == ["missing", f"{base / 'part3'} has other images than {base / 'part1'}"]
    assert f"{base / 'part2'} is not a finished part" in done.stderr


def test_a_damaged_file_here_is_replaced_by_the_sound_one_of_a_part(base, ui):
    work = Workspace(base / "work", TINY)
    merge.run(work, MergeOptions((base / "part1",)), ui)
    shard = sorted((base / "work" / "cache").rglob("shards/*.h5"))[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.unlink()  # the link, not the file of the part
    shard.write_bytes(data)
    merge.run(work, MergeOptions((base / "part1",)), ui)
    assert vggft("cache", "verify", "-w", base / "work").returncode == 0
