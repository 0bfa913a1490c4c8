"""`vggft frames` again into a folder: what other commands leave there, and videos that have changed."""

import os

import pytest
from conftest import strict_json, vggft
from processes import Fork
from small_videos import encode, shots

pytest.importorskip("av", reason="the extra 'video' is not installed")


def run(*arguments):
    done = vggft("frames", "--json", *arguments)
    assert done.returncode in (0, 3), done.stderr
    return strict_json(done.stdout)


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
