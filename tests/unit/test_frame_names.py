import pytest

from featurize.data.frames import frame_name, video_of


@pytest.mark.parametrize(
    ("video", "seconds", "name"),
    [
        ("clip", 12.4, "clip-00012.400.jpg"),
        ("clip", 0, "clip-00000.000.jpg"),
        ("clip", 1.9999, "clip-00002.000.jpg"),  # rounded, and carried into the seconds
        ("a-00001.000.jpg", 123456.001, "a-00001.000.jpg-123456.001.jpg"),
        ("two\nlines", 1 / 3, "two\nlines-00000.333.jpg"),
    ],
)
def test_a_frames_name_tells_video_and_time(video, seconds, name):
    assert frame_name(video, seconds) == name
    assert video_of(name) == video
    assert video_of(f"train/cats/{name}") == video


@pytest.mark.parametrize(
    "path", ["cat.jpg", "clip-12.400.jpg", "clip-00012.400.png", "clip-00012.jpg", "-00012.400.jpg"]
)
def test_other_files_are_of_no_video(path):
    assert video_of(path) is None
