"""Reading videos: times, orientation, shape and colours of frames; skipping ahead; near-duplicates."""

from fractions import Fraction

import numpy as np
import pytest
from small_videos import STEP, cut, encode, greys, noise

av = pytest.importorskip("av", reason="the extra 'video' is not installed")

from featurize.video import selection  # noqa: E402
from featurize.video.lists import identity  # noqa: E402
from featurize.video.picture import Converter  # noqa: E402
from featurize.video.selection import Kept  # noqa: E402
from featurize.video.video import NotVideoError, Video  # noqa: E402


def numbers(frames):
    """Return which of `greys` the frames are."""
    return [round(level / STEP) for level in frames.values()]


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mkv", "libx264", "yuv420p10le"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("ts", "mpeg2video", "yuv420p"),
        ("h264", "libx264", "yuv420p"),
        ("mov", "prores_ks", "yuv422p10le"),
        ("gif", "gif", "gray"),
    ],
)
def test_the_first_frame_at_or_after_each_multiple(tmp_path, suffix, codec, pixels):
    path = encode(tmp_path / f"v.{suffix}", greys(25), 25, codec=codec, pixels=pixels)
    frames, video = cut(path, 300)
    assert list(frames) == [0, 320, 600, 920]
    assert numbers(frames) == [0, 8, 15, 23]
    assert video.damage == ""


def test_23_976_frames_a_second(tmp_path):
    path = encode(tmp_path / "v.mp4", greys(80), Fraction(24000, 1001))
    frames, _ = cut(path, 1000)
    assert list(frames) == [0, 1001, 2002, 3003]
    assert numbers(frames) == [0, 24, 48 % 30, 72 % 30]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_irregular_times_that_do_not_start_at_zero(tmp_path, suffix):
    times = [5000, 5040, 5990, 6010, 8999, 9000, 9001]
    frames, video = cut(encode(tmp_path / f"v.{suffix}", greys(7), times=times), 1000)
    assert list(frames) == [0, 1010, 3999, 4000]
    assert numbers(frames) == [0, 3, 4, 5]
    assert video.damage == ""


def test_after_a_time_the_same_frames_follow(tmp_path):
    path = encode(tmp_path / "v.mp4", greys(80), Fraction(24000, 1001))
    whole = list(cut(path, 250)[0])
    for i, time in enumerate(whole):
        assert list(cut(path, 250, after=time)[0]) == whole[i + 1 :]
    every_frame = list(cut(path)[0])
    assert list(cut(path, None, after=every_frame[30])[0]) == every_frame[31:]


def test_two_recordings_one_after_the_other(tmp_path):
    """The times of the second one begin again."""
    path = encode(tmp_path / "v.ts", greys(30), codec="mpeg2video")
    path.write_bytes(path.read_bytes() * 2)
    frames, _ = cut(path)
    assert numbers(frames) == [*range(30), *range(30)]
    assert list(frames)[:30] == list(range(0, 3000, 100))
    assert np.diff(list(frames)[30:]).tolist() == [100] * 29


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_skipping_ahead_decodes_less_and_gives_the_same(tmp_path, monkeypatch, suffix):
    options = {"g": "20", "bf": "3", "x264-params": "scenecut=0"}
    path = encode(tmp_path / f"v.{suffix}", greys(600), options=options)
    frames, video = cut(path, 12_300)
    resumed, short = cut(path, 12_300, after=40_000)
    monkeypatch.setattr(Video, "skip_to", lambda self, time: None)
    all_frames, all_decoded = cut(path, 12_300)
    assert frames == all_frames
    assert list(frames) == [0, 12_300, 24_600, 36_900, 49_200]
    assert resumed == {49_200: frames[49_200]}
    assert short.decoded < video.decoded < 250
    assert all_decoded.decoded == 600


def test_a_jump_that_goes_too_far_is_taken_back(tmp_path, monkeypatch):
    path = encode(tmp_path / "v.mp4", greys(100), options={"g": "10", "bf": "0"})
    expected, _ = cut(path, 3300)
    monkeypatch.setattr("featurize.video.video._REORDERING", -2000)
    assert cut(path, 3300)[0] == expected


QUADRANTS = np.zeros((48, 64, 3), np.uint8)
QUADRANTS[:24, :32], QUADRANTS[:24, 32:], QUADRANTS[24:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        (None, QUADRANTS),
        ((90,), np.rot90(QUADRANTS)),
        ((180,), np.rot90(QUADRANTS, 2)),
        ((270,), np.rot90(QUADRANTS, 3)),
        ((0, True), QUADRANTS[:, ::-1]),
        ((0, False, True), QUADRANTS[::-1]),
        ((3,), QUADRANTS),  # not a right angle
    ],
)
def test_frames_are_upright(tmp_path, rotation, expected):
    path = encode(tmp_path / "v.mp4", [QUADRANTS] * 3, rotation=rotation)
    with Video(path) as video:
        pixels = Converter(video.pixel_ratio).rgb(next(video.frames()).picture)
    assert pixels.shape == expected.shape
    for y in (8, -8):
        for x in (8, -8):
            assert np.abs(pixels[y, x].astype(int) - expected[y, x]).max() < 12, (x, y)


@pytest.mark.parametrize(
    ("ratio", "width"), [(Fraction(16, 11), 93), (Fraction(1, 2), 32), (Fraction(1, 1000), 64), (None, 64)]
)
def test_pixels_are_square(tmp_path, ratio, width):
    path = encode(tmp_path / "v.mp4", greys(2), ratio=ratio, rotation=(90,))
    with Video(path) as video:
        assert Converter(video.pixel_ratio).rgb(next(video.frames()).picture).shape == (width, 48, 3)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "size"), [(1, (64, 48)), (6, (64, 48)), (6, (64, 720)), (None, (64, 48))])
def test_colours(tmp_path, matrix, size, full):
    colour = np.array((200, 40, 90))
    plain = np.full((size[1], size[0], 3), colour, np.uint8)
    path = encode(tmp_path / "v.mp4", [plain] * 2, matrix=matrix, full=full, options={"crf": "1"})
    with Video(path) as video:
        pixels = Converter(1).rgb(next(video.frames()).picture)
    assert np.abs(pixels[10:-10, 10:-10] - colour).max() <= 4


def test_a_large_video_that_names_no_matrix_is_bt_709(tmp_path):
    colour = np.array((200, 40, 90))
    frame = av.VideoFrame.from_ndarray(np.full((720, 1280, 3), colour, np.uint8), format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range=1)
    frame.colorspace = 2
    assert np.abs(Converter(1).rgb(frame)[100, 100] - colour).max() <= 4


def test_white_behind_transparent_pixels(tmp_path):
    pixels = np.full((48, 64, 4), (10, 200, 30, 255), np.uint8)
    pixels[:, 32:, 3] = 0
    path = encode(tmp_path / "v.png", [pixels] * 2, codec="apng", pixels="rgba", container="apng")
    with Video(path) as video:
        rgb = Converter(1).rgb(next(video.frames()).picture)
    assert rgb[5, 5].tolist() == [10, 200, 30]
    assert rgb[5, 50].tolist() == [255, 255, 255]


def test_noise_and_brightness_keep_the_hash_and_other_pictures_do_not():
    rng = np.random.default_rng(0)

    def a_hash(pixels):
        return Converter(1).perceptual_hash(av.VideoFrame.from_ndarray(pixels, format="rgb24"))

    def changed(pixels):
        return np.clip(pixels * rng.uniform(0.9, 1.1) + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)

    different = [a_hash(pixels) for pixels in noise(50)]
    for i, pixels in enumerate(noise(50)):
        kept = Kept(different[:i])
        assert not kept.alike(different[i])
        kept.add(different[i])
        assert kept.alike(a_hash(changed(pixels)))
    for level in (0, 16, 128):  # plain pictures, in which there is nothing but noise
        plain = np.full((240, 320, 3), level, np.uint8)
        assert Kept([a_hash(changed(plain))]).alike(a_hash(changed(plain)))


def test_kept_compares_bits_with_all_hashes():
    kept = Kept([])
    assert not kept.alike(0)
    for i in range(200):
        kept.add(i << 32)
    limit = (1 << selection.MOST_BITS) - 1
    assert kept.alike((7 << 32) | limit)
    assert not Kept([0]).alike((limit << 1) | 1)
    assert Kept([2**64 - 1]).alike(2**64 - 2)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("v.mp4", b"", "the file is empty"),
        ("v.mp4", bytes(5000), "not a video that FFmpeg can read"),
        ("v.ffconcat", b"ffconcat version 1.0\nfile other.mp4\n", "a list of other files"),
        ("v.txt", b"notes\n" * 1000, "not a video that FFmpeg can read"),
    ],
)
def test_files_that_are_no_videos(tmp_path, monkeypatch, name, data, reason):
    monkeypatch.chdir(tmp_path)  # where FFmpeg would look for the other file
    encode(tmp_path / "other.mp4", greys(3))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(NotVideoError, match=reason):
        Video(tmp_path / name)


def test_pictures_sound_and_unknown_codecs_are_no_videos(tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 48)).save(tmp_path / "v.jpg")
    with pytest.raises(NotVideoError, match=r"a picture \(JPEG\)"):
        Video(tmp_path / "v.jpg")
    with av.open(tmp_path / "v.wav", "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
    with pytest.raises(NotVideoError, match="no video in it, only audio"):
        Video(tmp_path / "v.wav")
    path = encode(tmp_path / "v.mp4", greys(3))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(NotVideoError, match="its codec zzzz cannot be decoded"):
        Video(path)
    with pytest.raises(OSError, match="not a regular file"):
        Video(tmp_path.joinpath("/dev/null"))


def test_a_video_is_known_by_its_contents(tmp_path):
    path = encode(tmp_path / "a.mp4", noise(30))
    data = path.read_bytes()
    (tmp_path / "b.mp4").write_bytes(data)
    assert identity(tmp_path / "b.mp4") == identity(path)
    (tmp_path / "b.mp4").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert identity(tmp_path / "b.mp4") != identity(path)
