"""Durable writes: a file is complete or absent."""

import subprocess

import pytest

from featurize.disk import durable, forms
from featurize.errors import VggftError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    durable.write_bytes(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(VggftError, match=r"No space left on device.*free some space"):
        durable.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_strict_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        forms.write_json(tmp_path / "x.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_folders_are_swapped_whole_and_leftovers_swept(tmp_path):
    for name, content in (("place", "old"), (".place.new.vggft.tmp", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(content)
    durable.replace_folder(tmp_path / ".place.new.vggft.tmp", tmp_path / "place")
    assert (tmp_path / "place" / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["place"]
    (tmp_path / ".left.1.vggft.tmp").write_bytes(b"half")
    (tmp_path / ".left.2.vggft.tmp").mkdir()
    durable.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["place"]


def test_temporary_files_of_killed_processes_beside_a_persons_file_are_swept(tmp_path):
    process = subprocess.Popen(["true"])
    process.wait()
    dead, alive = process.pid, durable.os.getpid()
    names = {
        f".out.h5.{dead}.vggft.tmp": False,
        f".out.h5.{alive}.vggft.tmp": True,
        f".other.h5.{dead}.vggft.tmp": True,
        ".out.h5.mine.vggft.tmp": True,
        f".out.h5.{10**30}.vggft.tmp": False,
    }
    for name in names:
        (tmp_path / name).write_text("half")
    (tmp_path / f".out.h5.{dead}0.vggft.tmp").mkdir()
    durable.sweep_beside(tmp_path / "out.h5")
    assert {name: (tmp_path / name).exists() for name in names} == names
    assert (tmp_path / f".out.h5.{dead}0.vggft.tmp").is_dir()
