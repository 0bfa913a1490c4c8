"""`vggft frames` again into a folder: what other commands leave there, and videos that have changed."""

import os

import numpy as np
import pytest
from conftest import refused, snapshot, vggft
from processes import Fork
from small_videos import encode, noise, run, shots

from featurize.disk import forms
from featurize.video.lists import identity

pytest.importorskip("av", reason="the extra 'video' is not installed")


@pytest.mark.slow
def test_only_its_own_temporary_files_of_killed_processes_are_deleted(tmp_path):
    """Another command, such as sort, may be working in the folder."""
    path, out, dead = encode(tmp_path / "clip.mp4", shots(0)), tmp_path / "out", Fork(int)
    dead.communicate()
    out.mkdir()
    there = {
        f"..frames.lock.txt.{dead.pid}.vggft.tmp": False,
        f".videos.csv.{dead.pid}.vggft.tmp": False,
        f".frames.csv.{dead.pid}.vggft.tmp": False,
        f".a\nb-00001.000.jpg.{dead.pid}.vggft.tmp": False,
        f".clip-00001.000.jpg.{os.getpid()}.vggft.tmp": True,
        f".vggft-sort.csv.{os.getpid()}.vggft.tmp": True,
        f".vggft-sort.csv.{dead.pid}.vggft.tmp": True,
        f".clip.{dead.pid}.vggft.tmp": True,
    }
    for name in there:
        (out / name).write_bytes(b"half")
    folders = [out / ".model.new.vggft.tmp", out / f".frames.csv.{dead.pid}0.vggft.tmp", out / ".model.vggft.replaced"]
    for folder in folders:
        folder.mkdir()
    assert run(path, out)["written"] == 1
    assert {name: (out / name).exists() for name in there} == there
    assert all(folder.is_dir() for folder in folders)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".jpg")


def rows(folder):
    """Return the rows of videos.csv and frames.csv, without the times of files."""
    videos, frames = (forms.parse_csv((folder / name).read_bytes()) for name in ("videos.csv", "frames.csv"))
    return [row | {"modified": ""} for row in videos], frames


@pytest.mark.slow
@pytest.mark.parametrize("state", ["begun", "finished"])
def test_a_video_that_was_incomplete_is_cut_again_under_its_name(tmp_path, state):
    """Under another name, frames that are equal could be in two splits."""
    other, path = encode(tmp_path / "other.mkv", shots(7)), tmp_path / "clip.mkv"
    out, whole = tmp_path / "out", tmp_path / "whole"
    data = encode(path, noise(100, (160, 120)), options={"g": "10"}).read_bytes()
    run(other, path, whole)
    path.write_bytes(data[: len(data) // 2])
    assert run(other, path, out)["videos"][1]["damage"].startswith("truncated")
    assert 2 < len(rows(out)[1]) < len(rows(whole)[1])
    if state == "begun":
        videos = out / "videos.csv"
        *others, clip = forms.parse_csv(videos.read_bytes())
        clip |= {"state": "begun", "frames": "0", "damage": ""}
        forms.write_csv(videos, list(clip), [list(row.values()) for row in (*others, clip)])
    (out / "clip-00001.000.jpg").unlink()  # as if it were moved into the folder of a class
    path.write_bytes(data)
    before = snapshot(out)
    assert "cut with other options (every 1; now: every 2)" in refused("frames", path, out, "--every", "2")
    assert snapshot(out) == before
    done = vggft("frames", path, out)
    assert done.returncode == 0
    new = set(names(whole)) - set(before)
    assert f"wrote {len(new)} frames into" in done.stdout
    assert "clip.mkv: has changed since part of it was cut as clip." in done.stderr
    assert rows(out) == rows(whole)
    assert names(out) == names(whole)
    again = vggft("frames", path, other, out)
    assert (again.returncode, again.stderr) == (0, "")


def test_another_video_at_the_path_of_one_that_was_incomplete_overwrites_nothing(tmp_path):
    path, out = tmp_path / "clip.mkv", tmp_path / "out"
    data = encode(path, noise(40, (160, 120)), options={"g": "10"}).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    run(path, out)
    before = snapshot(out)
    encode(path, noise(40, (160, 120), seed=1))
    assert "clip-00000.000.jpg: another file has the name of a frame" in refused("frames", path, out)
    assert {name: snapshot(out)[name] for name in names(out)} == {name: before[name] for name in names(out)}


def test_a_download_that_is_filled_in_is_cut_again(tmp_path):
    """Size, beginning, middle and end, of which the identity is made, were there first."""
    path, out, whole = tmp_path / "clip.mp4", tmp_path / "out", tmp_path / "whole"
    grain = np.random.default_rng(0).integers(0, 256, (40, 240, 320, 3), np.uint8)
    data = encode(path, grain, options={"g": "1", "crf": "1", "preset": "ultrafast"}, flags="faststart").read_bytes()
    expected = run(path, whole)
    start, end = 1 << 20, len(data) // 2 - (1 << 19)
    assert end - start > 1_000_000
    first = identity(path)
    path.write_bytes(data[:start] + bytes(end - start) + data[end:])
    assert identity(path) == first
    found = run(path, out)["videos"][0]
    assert "left out" in found["damage"]
    assert run(path, out)["videos"][0] == found  # nothing has changed
    path.write_bytes(data)
    assert run(path, out)["videos"] == expected["videos"]
    assert rows(out) == rows(whole)
