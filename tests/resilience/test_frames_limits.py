"""`vggft frames` on full disks, and its memory for long videos."""

import multiprocessing
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from conftest import refused, snapshot, strict_json, vggft
from small_disk import leave
from small_videos import encode, greys, noise

from vggft.steps import frames as step
from vggft.steps.options import FramesOptions
from vggft.ui.console import Ui

pytest.importorskip("av", reason="the extra 'video' is not installed")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tmpfs and /proc are Linux's")


@pytest.mark.parametrize("pages", [0, 2, 3, 4, 20, 60])
def test_a_full_disk_leaves_whole_files_and_a_run_that_continues(disk, tmp_path, pages):
    path, whole, out = encode(tmp_path / "v.mp4", noise(30, (320, 240))), tmp_path / "whole", disk / "out"
    assert vggft("frames", path, whole, "--every", "0.1").returncode == 0
    expected = snapshot(whole)
    ballast = leave(disk, pages)
    assert "No space left on device" in refused("frames", path, out, "--every", "0.1")
    written = {name: data for name, data in snapshot(out).items() if name.endswith(".jpg")} if out.exists() else {}
    assert written.items() <= expected.items()
    assert len(written) < 30
    assert (pages < 20) or written
    ballast.unlink()
    again = strict_json(vggft("frames", path, out, "--every", "0.1", "--json").stdout)
    assert again["videos"][0]["frames"] == 30
    assert snapshot(out) == expected


def test_a_folder_that_cannot_be_made(tmp_path):
    path = encode(tmp_path / "v.mp4", greys(3))
    assert "/proc/frames: cannot be written or locked" in refused("frames", path, "/proc/frames")


def peak(video, out, every):
    """Return the most resident memory, in MB, of this process after a whole run, and the number of frames written."""
    written = step.run(None, FramesOptions((video,), out, every=every), Ui(quiet=True))["written"]
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6, written


def in_a_new_process(*arguments):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak, *arguments).result()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    """Of the same frame size, so that decoder and picture take the same: 60 frames, and 1,200 of which 400 are written."""
    fast = {"preset": "ultrafast"}
    short = encode(tmp_path / "short.mp4", noise(60, (160, 120)), 30, options=fast)
    long = encode(tmp_path / "long.mp4", noise(1_200, (160, 120)), 30, options=fast)
    small, few = in_a_new_process(short, tmp_path / "a", 0.2)
    large, many = in_a_new_process(long, tmp_path / "b", 0.1)
    assert (few, many) == (10, 400)
    assert large <= small + 10, f"{large:.0f} MB for 400 frames, {small:.0f} MB for 10"
