"""Damaged, truncated and odd videos give what decodes, and say what does not."""

import pytest
from small_videos import cut, encode, greys, noise

av = pytest.importorskip("av", reason="the extra 'video' is not installed")

from featurize.video.selection import offered  # noqa: E402
from featurize.video.video import Video  # noqa: E402


@pytest.mark.parametrize(("suffix", "every"), [("mkv", 500), ("mp4", 500), ("mp4", 4000)])
def test_a_truncated_video_gives_what_decodes(tmp_path, suffix, every):
    """In the MP4 file, the index leads to frames that are not there."""
    flags = "faststart" if suffix == "mp4" else ""
    path = encode(tmp_path / f"v.{suffix}", noise(100), options={"g": "10"}, flags=flags)
    whole, _ = cut(path, every)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, video = cut(path, every)
    end = float(video.damage.split("truncated: it ends after ")[1].split()[0])
    assert 4 < end < 6
    assert frames == {time: grey for time, grey in whole.items() if time < end * 1000}
    assert "of 10.000 seconds" in video.damage


@pytest.mark.parametrize(("error", "number"), [(PermissionError, 40), (EOFError, 21)])
def test_a_damaged_table_of_keyframes_gives_what_decodes(tmp_path, error, number):
    """No frame is a keyframe, so FFmpeg cannot go back to the beginning; a frame too large, and it reads to the end first."""
    path = encode(tmp_path / "v.mp4", greys(40), flags="faststart")
    data = bytearray(path.read_bytes())
    keyframes, sizes = data.index(b"stss") + 12, data.index(b"stsz") + 16
    data[keyframes : keyframes + 4] = (379).to_bytes(4)
    if error is EOFError:
        data[sizes + 4 * 20 : sizes + 4 * 21] = (1000).to_bytes(4)
    path.write_bytes(data)
    with av.open(path) as file, pytest.raises(error):
        file.seek(0, backward=True)
    frames, video = cut(path)
    assert list(frames)[:20] == [100 * i for i in range(20)]
    assert (len(frames), bool(video.damage)) == (number, number < 40)


@pytest.mark.parametrize("error", ["EOFError", "InvalidDataError", "PermissionError"])
def test_jumps_that_fail_lose_nothing_and_a_failing_way_back_is_damage(tmp_path, monkeypatch, error):
    path = encode(tmp_path / "v.mp4", greys(100), options={"g": "10", "bf": "0"})
    expected, _ = cut(path, 3300)

    class Failing:
        def __init__(self, container, failing):
            self.container, self.failing, self.seeks = container, failing, 0

        def __getattr__(self, name):
            return getattr(self.container, name)

        def seek(self, *arguments, **options):
            self.seeks += 1
            if self.seeks == self.failing:
                assert [packet for packet in self.container.demux(video=0) if packet.size]  # FFmpeg reads to the end
                raise getattr(av.error, error)(1, "no way")
            self.container.seek(*arguments, **options)

    def cut_failing(number):
        with Video(path) as video:
            video._container = Failing(video._container, number)
            return {f.milliseconds for f in offered(video, 3300, None)}, video

    frames, video = cut_failing(1)
    assert frames == set(expected)
    assert (video.complete, video.damage, video._container.seeks) == (True, "", 2)
    monkeypatch.setattr("featurize.video.video._REORDERING", -2000)  # the jump goes too far
    frames, video = cut_failing(2)
    assert frames == {0}
    assert not video.complete
    assert video.damage.startswith("truncated: it ends after 0.200 of 10.000 seconds; reading stopped after 0.200")
    assert "(no way)" in video.damage


def test_streams_that_appear_late_do_not_stop_the_command(tmp_path, monkeypatch):
    """PyAV reads past the end of its list of streams when it flushes, and may or may not stumble over what is there."""
    path = encode(tmp_path / "v.ts", greys(20), codec="mpeg2video")
    with Video(path) as video:

        class Stumbling:
            def demux(self, stream, container=video._container):
                yield from container.demux(stream)
                raise IndexError("list index out of range")

        monkeypatch.setattr(video, "_container", Stumbling())
        assert len(list(video.frames())) == 20
    assert (video.damage, video.complete) == ("", True)


def test_a_damaged_video_gives_what_decodes(tmp_path):
    path = encode(tmp_path / "v.mp4", noise(100), codec="mpeg4", options={"g": "10"})
    data = bytearray(path.read_bytes())
    for place in (2, 3, 4, 5):
        data[place * len(data) // 8 : place * len(data) // 8 + 300] = bytes(300)
    path.write_bytes(data)
    corrupt, errors = [], 0
    with av.open(path) as file:
        for packet in file.demux(video=0):
            try:
                corrupt += [picture.is_corrupt for picture in packet.decode()]
            except av.error.InvalidDataError:
                errors += 1
    assert errors
    assert 1 <= sum(corrupt) < 20
    frames, video = cut(path)
    assert len(frames) == len(corrupt) - sum(corrupt)
    assert f"damaged: {errors + sum(corrupt)} frames left out, the first after 1." in video.damage


def test_a_video_without_frames(tmp_path):
    path = encode(tmp_path / "v.mp4", greys(10))
    data = path.read_bytes()
    place = data.index(b"mdat")
    path.write_bytes(data[: place + 4] + bytes(data.index(b"moov") - place - 8) + data[data.index(b"moov") - 4 :])
    frames, video = cut(path)
    assert frames == {}
    assert video.damage == "no frame in it can be decoded"
