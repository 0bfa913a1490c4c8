"""`vggft frames`: files, names and lists; near-duplicates; errors; running it again, also after a kill."""

import errno
import os
import shutil
import signal
import sys

import numpy as np
import pytest
from conftest import refused, snapshot, strict_json, vggft
from PIL import Image
from processes import Fork, start, wait_until
from small_videos import encode, noise, run, shots

from featurize.data.frames import video_of
from featurize.disk import forms
from featurize.video import video

pytest.importorskip("av", reason="the extra 'video' is not installed")


def frames(folder):
    """Return name → bytes of the frames in a folder, in name order."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix == ".jpg"}


def rows(folder, name="frames.csv"):
    return forms.parse_csv((folder / name).read_bytes())


def test_each_look_is_kept_once(tmp_path):
    path, out = encode(tmp_path / "clip.mp4", shots(0, 1, 0, 2)), tmp_path / "out"
    found = run(path, out)
    assert list(frames(out)) == ["clip-00000.000.jpg", "clip-00003.000.jpg", "clip-00009.000.jpg"]
    assert found["videos"] == [
        {"name": "clip", "path": str(path), "options": "every 1", "frames": 3, "similar": 9, "damage": ""}
    ]
    assert (found["written"], found["failed"]) == (3, [])
    listed = rows(out)
    assert [row["file"] for row in listed] == list(frames(out))
    assert [row["seconds"] for row in listed] == ["0.000", "3.000", "9.000"]
    assert [int(row["similar"]) for row in listed] == [0, 2, 5]
    for name in frames(out):
        with Image.open(out / name) as image:
            assert (image.size, image.mode, image.format) == ((160, 120), "RGB", "JPEG")
            pixels = np.asarray(image).astype(int)
    assert np.abs(pixels - noise(3, (160, 120))[2]).mean() < 12


def test_changes_and_similar_frames(tmp_path):
    path = encode(tmp_path / "clip.mp4", shots(0, 1, 0, 2, seconds=1))
    assert [row["seconds"] for row in rows_of(path, tmp_path / "a", "--changes")] == ["0.000", "1.000", "3.000"]
    kept = rows_of(path, tmp_path / "b", "--every", "0.5", "--keep-similar")
    assert [row["seconds"] for row in kept] == [f"{n / 2:.3f}" for n in range(8)]
    assert {row["hash"] for row in kept} == {""}


def rows_of(path, out, *options):
    run(path, out, *options)
    return rows(out)


def test_a_second_run_changes_nothing_and_decodes_nothing(tmp_path, monkeypatch):
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    encode(folder / "a.mp4", shots(0, 1))
    encode(folder / "b.MKV", shots(2), container="matroska")
    (folder / "notes.txt").write_text("notes")
    first = run(folder, out)
    assert [(video["name"], video["frames"]) for video in first["videos"]] == [("a", 2), ("b", 1)]
    before = snapshot(out)
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix in (".jpg", ".csv")}
    monkeypatch.setattr("featurize.video.video.Video.frames", None)
    again = run(folder, out)
    assert (again["written"], again["videos"]) == (0, first["videos"])
    assert snapshot(out) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    said = vggft("frames", folder, out)
    assert "wrote 0 frames into" in said.stdout
    assert "(3 frames already there)" in said.stdout


def test_two_videos_of_one_name_and_one_video_twice(tmp_path):
    out = tmp_path / "out"
    paths = []
    for i, folder in enumerate("abc"):
        (tmp_path / folder).mkdir()
        paths.append(encode(tmp_path / folder / ("Clip.mp4" if i else "clip.mp4"), shots(i)))
    shutil.copy(paths[0], tmp_path / "copy.mp4")
    found = run(*paths[:2], tmp_path / "copy.mp4", out)
    assert [video["name"] for video in found["videos"]] == ["clip", "Clip-2"]
    before = frames(out)
    assert run(paths[2], paths[1], out)["videos"][1]["name"] == "Clip-2"
    assert {video_of(name) for name in frames(out)} == {"clip", "Clip-2", "Clip-3"}
    assert before.items() < frames(out).items()


def test_files_that_were_there_before_keep_name_and_bytes(tmp_path):
    path, out = encode(tmp_path / "clip.mp4", shots(0)), tmp_path / "out"
    out.mkdir()
    (out / "clip-00007.000.jpg").write_bytes(b"a person's")
    assert run(path, out)["videos"][0]["name"] == "clip-2"
    (out / "cat-00000.000.jpg").symlink_to(out / "nowhere")
    assert run(encode(tmp_path / "cat.mp4", shots(1)), out)["videos"][0]["name"] == "cat-2"
    assert (out / "clip-00007.000.jpg").read_bytes() == b"a person's"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        (b"two words\nand a line", None),
        (b"-dash", None),
        (b"=1+1", None),
        (b"caf\xe9", None),  # no UTF-8
        (b"%d:http", None),
        (b"a-00001.000.jpg", None),
        (b"..hidden", "hidden"),
        (b"...", "video"),
        ("é".encode() * 120, "é" * 100),
    ],
)
def test_hostile_names(tmp_path, stem, name):
    path, out = tmp_path / os.fsdecode(stem + b".mp4"), tmp_path / "out"
    encode(tmp_path / "v.mp4", shots(0, 1, seconds=1)).rename(path)
    found = run("--", path, out)
    expected = name or os.fsdecode(stem)
    assert {video_of(each) for each in frames(out)} == {expected}
    assert len(frames(out)) == 2
    assert {row["video"] for row in rows(out)} == {expected}
    assert rows(out, "videos.csv")[0]["path"] == str(path)
    assert run("--", path, out)["written"] == 0
    assert found["failed"] == []


def killed(video, out, number):
    """Run the step, and be killed after a number of frames: in the middle of writing the row of the last one."""
    from featurize.video import lists
    from vggft.steps import frames as step
    from vggft.steps.options import FramesOptions
    from vggft.ui.console import Ui

    put, left = lists.Lists.put, [number]

    def put_or_die(self, *arguments):
        before = (out / "frames.csv").stat().st_size
        new = put(self, *arguments)
        left[0] -= 1
        if not left[0]:
            os.truncate(out / "frames.csv", before + (number % 3) * 7)
            (out / f".frames.csv.{os.getpid()}.vggft.tmp").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return new

    lists.Lists.put = put_or_die
    step.run(None, FramesOptions((video,), out, every=0.5), Ui(quiet=True))


@pytest.mark.slow
def test_killed_after_each_frame(tmp_path):
    path = encode(tmp_path / "a\r\nb.mp4", shots(0, 1, 0, 2, 3, 1, seconds=1))
    whole = tmp_path / "whole"
    expected = run(path, whole, "--every", "0.5")
    assert expected["videos"][0]["frames"] == 4
    for number in range(1, 5):
        out = tmp_path / str(number)
        process = Fork(killed, path, out, number)
        assert process.communicate() == ("", "")
        assert process.returncode == -signal.SIGKILL
        assert 0 < len(frames(out)) == number
        assert [row["state"] for row in rows(out, "videos.csv")] == ["begun"]
        assert run(path, out, "--every", "0.5")["videos"] == expected["videos"]
        assert snapshot(out) == snapshot(whole)


@pytest.mark.slow
def test_the_command_interrupted_and_killed(tmp_path):
    """A real process, disturbed at any moment; another one may not write into the folder meanwhile."""
    paths = [encode(tmp_path / f"{name}.mp4", noise(100, (320, 240), seed)) for seed, name in enumerate("ab")]
    whole, out = tmp_path / "whole", tmp_path / "out"
    command = ("frames", *paths, out, "--every", "0.1")
    expected = run(*paths, whole, "--every", "0.1")
    assert expected["written"] == 200
    written = 0
    for number in (signal.SIGINT, signal.SIGKILL, signal.SIGKILL):
        process = start(*command)
        wait_until(lambda enough=written + 10: out.exists() and len(frames(out)) > enough, process)
        if number == signal.SIGINT:
            process.send_signal(signal.SIGSTOP)
            message = refused(*command)
            assert f"process {process.pid} on " in message
            assert "is writing frames here" in message
            process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        _, err = process.communicate()
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert "Frames written so far are kept. Run the same command to continue." in err
        written = len(frames(out))
    assert written < 200
    done = run(*paths, out, "--every", "0.1")
    assert done["written"] in (200 - written, 200 - written + 1)  # the frame that had no row yet was written again
    assert done["videos"] == expected["videos"]
    assert snapshot(out) == snapshot(whole)


def test_one_bad_file_among_good_ones(tmp_path):
    good, out = encode(tmp_path / "good.mp4", shots(0)), tmp_path / "out"
    (tmp_path / "bad.mp4").write_bytes(bytes(1000))
    half = encode(tmp_path / "half.mkv", noise(100, (160, 120)), options={"g": "10"})
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    shutil.copy(half, tmp_path / "copy.mkv")
    done = vggft("frames", tmp_path / "bad.mp4", good, half, tmp_path / "copy.mkv", out, "--json")
    assert done.returncode == 3
    failed = strict_json(done.stdout)["failed"]
    assert [each["path"] for each in failed] == [str(tmp_path / "bad.mp4"), str(half)]
    assert failed[0]["reason"].startswith("not a video that FFmpeg can read")
    assert failed[1]["reason"].startswith("truncated: it ends after ")
    assert done.stderr.count("warning: ") == 3
    assert len(frames(out)) > 3
    assert vggft("frames", half, out).returncode == 3


def test_a_video_without_keyframes_does_not_stop_the_others(tmp_path):
    good, bad, out = encode(tmp_path / "good.mkv", shots(0)), tmp_path / "bad.mp4", tmp_path / "out"
    data = bytearray(encode(bad, noise(40), flags="faststart").read_bytes())
    for table, number in ((b"stss", 379), (b"stsz", 1 << 12)):  # a keyframe that does not exist, and too large a frame
        place = data.index(table) + (12 if table == b"stss" else 96)
        data[place : place + 4] = number.to_bytes(4)
    bad.write_bytes(data)
    found = run(bad, good, out)
    assert [each["path"] for each in found["failed"]] == [str(bad)]
    assert {video_of(name) for name in frames(out)} == {"bad", "good"}


@pytest.mark.slow
def test_a_disk_that_fails_is_read_again_by_the_next_run(tmp_path, monkeypatch):
    path, whole, out = encode(tmp_path / "v.mkv", noise(100, (320, 240))), tmp_path / "whole", tmp_path / "out"
    expected = run(path, whole, "--every", "0.5")
    nameless = video._nameless

    class Failing:
        def __init__(self, path):
            self.file = nameless(path)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def read(self, number):
            if 0.4 < self.file.tell() / path.stat().st_size < 0.9:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return self.file.read(number)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    monkeypatch.setattr(video, "_nameless", Failing)
    failed = run(path, out, "--every", "0.5")
    assert 2 < failed["written"] < 20
    assert "Input/output error" in failed["failed"][0]["reason"]
    monkeypatch.undo()
    assert run(path, out, "--every", "0.5")["videos"] == expected["videos"]
    assert snapshot(out) == snapshot(whole)


def test_what_is_refused_before_anything_is_written(tmp_path):
    path, out = encode(tmp_path / "clip.mp4", shots(0)), tmp_path / "out"
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    assert "clip.mp4: no such file or folder" in refused("frames", tmp_path / "none" / "clip.mp4", out)
    assert "file: not a video that FFmpeg can read" in refused("frames", tmp_path / "file", out)
    assert "empty: no videos in it" in refused("frames", tmp_path / "empty", out)
    assert "clip.mp4: not a folder. The last argument must be the folder" in refused("frames", path, path)
    assert "file: not a folder" in refused("frames", path, tmp_path / "file" / "out")
    assert "Missing argument 'VIDEO'" in refused("frames", path)
    assert "--changes with --every" in refused("frames", path, out, "--changes", "--every", "2")
    assert "--changes with --keep-similar" in refused("frames", path, out, "--changes", "--keep-similar")
    assert "--every 0: expected a number, 0.001 or more" in refused("frames", path, out, "--every", "0")
    assert not out.exists()


def test_other_options_and_damaged_lists_are_refused(tmp_path):
    path, out = encode(tmp_path / "clip.mp4", shots(0)), tmp_path / "out"
    run(path, out)
    before = snapshot(out)
    assert "(every 1; now: every 2)" in refused("frames", path, out, "--every", "2")
    assert "(every 1; now: changes)" in refused("frames", path, out, "--changes")
    assert snapshot(out) == before
    other = encode(tmp_path / "other.mp4", shots(1))
    assert run(other, out, "--every", "2")["written"] == 1
    for name, data in (("videos.csv", b"name,path\r\na,b\r\n"), ("frames.csv", b"other\r\n"), ("frames.csv", b"")):
        kept = (out / name).read_bytes()
        (out / name).write_bytes(data)
        assert f"{name}: damaged" in refused("frames", path, out)
        (out / name).write_bytes(kept)


def test_damaged_rows_of_an_unfinished_video_are_refused(tmp_path):
    path, out = encode(tmp_path / "clip.mp4", shots(0, 1)), tmp_path / "out"
    run(path, out)
    videos, listed = out / "videos.csv", out / "frames.csv"
    videos.write_bytes(videos.read_bytes().replace(b"finished", b"begun"))
    before = listed.read_bytes()
    for old, new in (
        (b"3.000", b"inf"),
        (b"3.000", b"x"),
        (rows(out)[0]["hash"].encode(), b"ff" * 9),
        (b",2", b",two"),
    ):
        listed.write_bytes(before.replace(old, new))
        assert "frames.csv: damaged" in refused("frames", path, out)
    listed.write_bytes(before)
    assert run(path, out)["videos"][0]["frames"] == 2


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    path, out = encode(tmp_path / "clip.mp4", shots(0)), tmp_path / "out"
    out.mkdir(mode=0o500)
    assert "cannot be written or locked (Permission denied)" in refused("frames", path, out)


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'vggft[video]'" in refused("frames", tmp_path / "clip.mp4", tmp_path / "out")
