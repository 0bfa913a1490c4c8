"""The manifest as columns: the same samples as from the CSV file, made one by one, and never from columns of another file."""

import hashlib
import os
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY

from featurize.cache.fingerprint import Fingerprint
from featurize.data import manifest
from featurize.data.dataset import Dataset, Sample, Samples, digests_of
from featurize.disk import arrays, checked
from featurize.disk.digests import unpack
from featurize.errors import VggftError
from vggft.workspace import earlier
from vggft.workspace.workspace import Settings, Workspace

CLASSES = ("ants", "bees", "été")
ODD = (
    "=1+1.jpg",
    "'quoted'.jpg",
    'a "b", c.jpg',
    "two\r\nlines.jpg",
    "caf\udce9.jpg",  # not UTF-8
    "日本.jpg",
    "..hidden..jpg",
    "a..b/c.jpg",
)


def digest(i):
    return hashlib.sha256(str(i).encode()).hexdigest()


def samples(number=300):
    """Return samples of every kind, sorted by path."""
    made = []
    for i in range(number):
        d, name = digest(i // 2 if i % 50 == 0 else i), ODD[i % len(ODD)] if i < 2 * len(ODD) else f"{i}.jpg"
        group = d if i % 3 else f"video {i // 9}"
        split = ("train", "validate", "test")[i % 5 % 3]
        made.append(
            Sample(f"{i:06}/{name}", CLASSES[i % 3], split, group, d, "ok", "", i, -i if i == 7 else i, 2**63 + i)
        )
    made[5] = replace(made[5], status="rejected", reason="=no picture", split="")
    made[6] = Sample(made[6].path, "ants", status="rejected", reason="cannot be read")
    made[10] = replace(made[10], group="")
    made[8] = replace(made[8], status="duplicate", reason="same bytes as 'x'")
    return made


def identity(classes, rows):
    """Return the identity as it is defined."""
    lines = sorted(f"{s.digest} {s.split} {s.label}" for s in rows if s.status == "ok")
    return hashlib.sha256("\n".join([*classes, "", *lines]).encode("utf-8", "surrogateescape")).hexdigest()


def written(folder, rows):
    """Write a manifest, and return its path and sha256."""
    data = manifest.table(Dataset(Path("data"), CLASSES, rows))
    checked.write_checked(folder, {"manifest.csv": data})
    return folder / "manifest.csv", hashlib.sha256(data).hexdigest()


def opened(folder, rows):
    return manifest.dataset(folder / "manifest.csv", Path("data"), CLASSES, written(folder, rows)[1])


def check(dataset, rows):
    assert list(dataset.samples) == rows
    assert dataset.samples == rows
    assert [dataset.samples[i] for i in (0, 5, 6, -1)] == [rows[i] for i in (0, 5, 6, -1)]
    assert list(dataset.samples[3:200:7]) == rows[3:200:7]
    for split in (None, "train", "validate", "test", "nothing"):
        assert list(dataset.accepted(split)) == [s for s in rows if s.status == "ok" and split in (None, s.split)]
    assert list(dataset.rejected) == [s for s in rows if s.status == "rejected"]
    assert list(dataset.duplicates) == [s for s in rows if s.status == "duplicate"]
    counts = Counter(s.split for s in rows if s.status == "ok")
    assert dataset.split_counts == {split: counts[split] for split in ("train", "validate", "test")}
    assert dataset.identity == replace(dataset, known_identity=None).identity == identity(CLASSES, rows)
    train = dataset.accepted("train")
    assert dataset.targets(train) == dataset.targets(list(train)) == [CLASSES.index(s.label) for s in train]
    assert unpack(digests_of(train)) == unpack(digests_of(list(train))) == [s.digest for s in train]
    both = train + dataset.accepted("test")
    assert list(both) == [*train, *dataset.accepted("test")]
    assert train.counts("label") == Counter(s.label for s in train)


def test_columns_are_the_samples():
    rows = samples()
    check(Dataset(Path("data"), CLASSES, rows), rows)
    assert list(Samples.of([])) == []
    assert Dataset(Path("data"), CLASSES, ()).identity == identity(CLASSES, [])
    with pytest.raises(KeyError):
        Dataset(Path("data"), CLASSES[:2], rows).targets(rows)


def test_columns_of_a_file_are_its_rows(tmp_path, monkeypatch):
    rows = samples()
    check(opened(tmp_path, rows), rows)
    assert not (tmp_path / "manifest.h5").exists()  # a small one
    monkeypatch.setattr(manifest, "_LARGE", 1)
    check(opened(tmp_path, rows), rows)
    assert (tmp_path / "manifest.h5").exists()
    monkeypatch.setattr(manifest, "_parsed", lambda file: pytest.fail("the CSV file was read"))
    check(opened_again(tmp_path), rows)


def opened_again(folder):
    sha256 = hashlib.sha256((folder / "manifest.csv").read_bytes()).hexdigest()
    return manifest.dataset(folder / "manifest.csv", Path("data"), CLASSES, sha256)


def test_columns_are_written_from_those_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_LARGE", 1)
    monkeypatch.setattr(manifest, "_parsed", lambda file: pytest.fail("the CSV file was read"))
    rows = samples()
    some = Samples.of(rows)[::-3][::-1]
    for given in (tuple(rows), Samples.of(rows), some):
        path, sha256 = written(tmp_path, given)
        manifest.derive(path, Dataset(Path("data"), CLASSES, given), sha256)
        dataset = opened_again(tmp_path)
        assert dataset.samples == list(given)
        assert dataset.known_identity == identity(CLASSES, given)


def test_a_workspace_that_was_just_written_is_opened_from_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_LARGE", 1)
    rows, workspace = samples(), Workspace(tmp_path, TINY)
    settings = Settings("data", CLASSES, Fingerprint.of(TINY))
    workspace.settle(Dataset(Path("data"), CLASSES, rows), settings, ())
    monkeypatch.setattr(manifest, "_parsed", lambda file: pytest.fail("the CSV file was read"))
    check(workspace.dataset, rows)


def test_columns_of_another_file_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_LARGE", 1)
    rows = samples()
    check(opened(tmp_path, rows), rows)
    before = (tmp_path / "manifest.h5").read_bytes()
    others = [*rows[:100], *samples(330)[300:]]
    check(opened(tmp_path, others), others)
    (tmp_path / "manifest.h5").write_bytes(before)
    check(opened_again(tmp_path), others)
    assert (tmp_path / "manifest.h5").read_bytes() != before
    path, sha256 = written(tmp_path, others)
    with pytest.raises(ValueError, match=r"classes that workspace\.json does not have: été"):
        manifest.dataset(path, Path("data"), CLASSES[:2], sha256)
    again = manifest.dataset(path, Path("data"), CLASSES[::-1], sha256)
    assert again.identity == identity(CLASSES[::-1], others)


def test_an_edited_manifest_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_LARGE", 1)
    path, sha256 = written(tmp_path, samples())
    for _ in range(2):
        manifest.dataset(path, Path("data"), CLASSES, sha256)
    data, status = path.read_bytes(), path.stat()
    path.write_bytes(data.replace(b",train,", b",test,", 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(ValueError, match="not as vggft wrote it"):
        manifest.dataset(path, Path("data"), CLASSES, sha256)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        manifest.dataset(path, Path("data"), CLASSES, sha256)


def test_a_flipped_byte_anywhere_in_the_columns_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_LARGE", 1)
    rows, file = samples(60), tmp_path / "manifest.h5"
    check(opened(tmp_path, rows), rows)
    sound = file.read_bytes()
    for at in range(0, len(sound), 37):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :])
        with pytest.raises((ValueError, OSError)):
            arrays.Stored(file)
    file.write_bytes(sound[:100] + b"x" + sound[101:])
    check(opened_again(tmp_path), rows)
    arrays.Stored(file)
    for foreign in (sound[:-1], b"", sound + b"\0", b"of a person"):  # it may be
        file.write_bytes(foreign)
        check(opened_again(tmp_path), rows)
        assert file.read_bytes() == foreign
    file.unlink()
    file.symlink_to("nowhere")
    check(opened_again(tmp_path), rows)
    assert file.is_symlink()
    file.unlink()
    check(opened_again(tmp_path), rows)
    arrays.Stored(file)
    file.unlink()
    file.mkdir()
    check(opened_again(tmp_path), rows)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"000001/'", b"../001/'"),
        (b"000001/", b"/00001/"),
        (b",ok,", b",fine,"),
        (digest(9).encode(), digest(9).upper().encode()),
        (digest(9).encode(), b""),
        (b",9,9,", b",9,nine,"),
        (b",9,9,", b",9,99999999999999999999,"),
        (b",9,9,", b",9,9,9,"),
        (b"digest", b"sha256"),
    ],
)
def test_what_vggft_does_not_write_is_refused(tmp_path, old, new):
    path, _ = written(tmp_path, samples())
    data = path.read_bytes()
    assert old in data
    (tmp_path / "checksums.json").unlink()
    path.write_bytes(data.replace(old, new))
    with pytest.raises((ValueError, KeyError)):
        manifest.read(path)


def test_opening_makes_no_object_for_a_row(tmp_path, monkeypatch):
    """20,000 rows: columns of 2.3 MB, where objects took 15 MB."""
    number = 20_000
    paths = [f"ants/photograph-{i:08}.jpg" for i in range(number)]
    blank = Sample("", "ants", "train", status="ok")
    rows = (replace(blank, path=path, group=digest(i), digest=digest(i)) for i, path in enumerate(paths))
    sha256 = written(tmp_path, rows)[1]
    del paths
    for first, bound in ((True, 12e6), (False, 3e6)):
        tracemalloc.start()
        try:
            dataset = manifest.dataset(tmp_path / "manifest.csv", Path("data"), CLASSES, sha256)
            assert len(dataset.accepted("train")) == number
            assert dataset.split_counts["train"] == number
            assert len(dataset.accepted()[:1000].digests) == 1000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < bound, f"first: {first}, {peak / 1e6:.0f} MB"
    assert np.array_equal(dataset.samples[number - 1].path, f"ants/photograph-{number - 1:08}.jpg")


def test_a_new_workspace_replaces_no_columns_that_vggft_did_not_write(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_LARGE", 1)
    (tmp_path / "manifest.h5").write_bytes(b"of somebody else")
    with pytest.raises(VggftError, match=r"manifest\.h5: vggft cannot prove that it wrote this"):
        earlier.refuse_foreign_files(tmp_path)
    rows = samples(60)
    check(opened(tmp_path, rows), rows)
    assert (tmp_path / "manifest.h5").read_bytes() == b"of somebody else"
    (tmp_path / "manifest.h5").unlink()
    check(opened(tmp_path, rows), rows)
    (tmp_path / "checksums.json").unlink()
    earlier.refuse_foreign_files(tmp_path)
