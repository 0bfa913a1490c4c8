"""One file never takes the memory or the time of a whole run: that file is rejected, or waits for the others."""

import hashlib
import io
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from featurize.data.scan import scan
from featurize.errors import VggftError
from featurize.pixels import decoding, images, memory, metadata
from featurize.process import interrupts

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 4), np.uint8)


def encoded(image, kind, **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def sparse(path, size, head=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)


def test_huge_files_are_rejected_unread(tmp_path):
    for label in ("cats", "dogs"):
        for i in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{i}.png").write_bytes(f"{label}{i}".encode())
    sparse(tmp_path / "cats" / "film.mp4", 5 * 10**9, b"\0\0\0\x18ftypmp42")
    sparse(tmp_path / "dogs" / "x.jpg", 16 * 10**9)
    began = time.perf_counter()
    found = {sample.path: sample for sample in scan(tmp_path).samples}
    assert time.perf_counter() - began < 2
    limit = "the limit of a picture file is 1 GB"
    assert found["cats/film.mp4"].reason == f"not a picture: MP4 or QuickTime video (5.0 GB; {limit})"
    assert found["dogs/x.jpg"].reason.endswith(f"(16.0 GB; {limit})")
    assert all(sample.status == "ok" for path, sample in found.items() if path.endswith("png"))
    for path in ("cats/film.mp4", "dogs/x.jpg"):
        assert decoding.picture("", [tmp_path / path], images.decode) == found[path].reason


def test_a_long_video_below_the_limit_is_not_read(tmp_path):
    sparse(tmp_path / "film.mov", 900_000_000, b"\0\0\0\x14ftypqt  ")
    assert decoding.picture("", [tmp_path / "film.mov"], images.decode) == "not a picture: MP4 or QuickTime video"


def largest(room, sizes):
    """Take these sizes at once, each in a thread; return the largest sum that was taken together, and the largest number."""
    taken, sums = [], []
    changing = threading.Lock()

    def take(size):
        with room.taken(size):
            with changing:
                taken.append(size)
                sums.append((sum(taken), len(taken)))
            time.sleep(0.005)
            with changing:
                taken.remove(size)

    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(take, sizes))
    return max(total for total, _ in sums), max(number for _, number in sums)


def test_the_memory_of_all_threads_together_is_bounded():
    room = memory.Room(100)
    total, number = largest(room, [30] * 12)
    assert total == 90
    assert number == 3
    total, _ = largest(room, [150, 150, 10, 10])  # larger than the limit: alone
    assert total <= 150
    with pytest.raises(memory.Declined), memory.Room(100, alone=False).taken(101):
        pass


def test_decoding_takes_room_for_what_it_needs(monkeypatch):
    taken = []
    room = memory.Room()
    monkeypatch.setattr(room, "_check", taken.append)
    monkeypatch.setattr(memory, "_room", room)
    images.decode(encoded(Image.fromarray(NOISE), "PNG"))
    images.decode(encoded(Image.fromarray(NOISE).convert("RGB"), "JPEG", progressive=True))
    pixels = NOISE.shape[0] * NOISE.shape[1]
    assert taken == [pixels * (4 + 4), pixels * (4 + 4 + 2 * 3)]  # libjpeg keeps the coefficients


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "I;16", "P", "1", "CMYK", "RGB"])
def test_strips_give_the_same_pixels(mode, monkeypatch):
    grey = np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27
    image = Image.fromarray(grey) if mode == "I;16" else Image.fromarray(NOISE).convert("RGB" if mode == "P" else mode)
    options = {}
    if mode == "P":
        image, options = image.quantize(64), {"transparency": bytes(range(0, 256, 4))}
    if mode in ("L", "RGB", "I;16"):
        options = {"transparency": {"L": 76, "RGB": (9, 9, 9), "I;16": 270}[mode]}
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG", **({} if mode == "CMYK" else options))
    whole = images.decode(data)
    monkeypatch.setattr(images, "_STRIP_PIXELS", 7 * 60)
    assert np.array_equal(images.decode(data), whole)


def bomb(scans, side=1500):
    """A progressive JPEG whose last scan is there many times."""
    data = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    first, last = data.rindex(b"\xff\xda"), len(data) - 2
    return data[:last] + data[first:last] * scans + data[last:]


def test_the_time_for_a_picture_is_bounded(monkeypatch):
    data = bomb(1500)
    assert len(data) < 500_000
    monkeypatch.setattr(images, "MAX_SECONDS", 0.1)
    began = time.thread_time()
    with pytest.raises(images.Unreadable, match="too slow"):
        images.decode(data)
    assert time.thread_time() - began < 0.5
    assert images.decode(encoded(Image.new("L", (1500, 1500)), "JPEG", progressive=True)).shape == (1500, 1500, 3)


SEGMENT = b"\xff\xe1\0\x08Exif\0\0" + b"\xff\xfe\0\x03x"


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + SEGMENT + b"\xff\xe0\0\x04ab" + bytes(1_000_000),
        b"\xff\xd8" + SEGMENT + b"\xff" * 5_000_000,
        b"\xff\xd8" + SEGMENT + b"\xff\xe2\0\2" * 1_000_000,
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0teXt\0\0\0\0" * 400_000,
    ],
    ids=["JPEG of zeros", "JPEG of padding", "JPEG of empty segments", "PNG of empty chunks"],
)
def test_all_attempts_at_a_picture_share_its_time(data, monkeypatch):
    monkeypatch.setattr(images, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(metadata, "_MAX_PARTS", 20_000)
    began = time.thread_time()
    with pytest.raises(images.Unreadable):
        images.decode(data)
    assert time.thread_time() - began < 0.5


def test_a_signal_is_seen_while_a_picture_is_decoded(monkeypatch):
    slow = Future()
    monkeypatch.setattr(interrupts._Heard, "signal", True)
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        interrupts.result(slow)
    assert time.perf_counter() - began < 1
    with pytest.raises(images.Unreadable, match="interrupted"):
        images.decode(encoded(Image.fromarray(NOISE), "PNG"))
    with pytest.raises(images.Unreadable, match="interrupted"):
        images._refused(encoded(Image.fromarray(NOISE), "PNG"), time.thread_time() + 60)


def test_the_result_of_a_thread_and_its_errors_pass_through():
    for error in (TimeoutError("of the thread"), VggftError("no")):
        failed = Future()
        failed.set_exception(error)
        with pytest.raises(type(error), match=str(error)):
            interrupts.result(failed)
    with ThreadPoolExecutor(1) as pool:
        assert interrupts.result(pool.submit(lambda: 7)) == 7


def test_workers_leave_large_pictures_to_their_parent(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("RGB", (4500, 4500), (9, 8, 7)).save(path)  # 162 MB in decoding
    small = tmp_path / "small.png"
    Image.fromarray(NOISE).save(small)
    processes = decoding.Processes(images.decode)
    decoded_here = []
    monkeypatch.setattr(decoding, "picture", lambda digest, paths, decoder: decoded_here.append(paths[0].name))
    processes([(hashlib.sha256(file.read_bytes()).hexdigest(), [file]) for file in (small, path)])
    processes.close()
    assert decoded_here == ["large.png"]


def chunk_after_header(data, chunk):
    return data[:33] + chunk + data[33:]


def text(compressed):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Description", "a" * 2_000_000, zip=compressed)
    return info


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(NOISE), "PNG", pnginfo=text(True)),
        encoded(Image.fromarray(NOISE), "PNG", pnginfo=text(False)),
        encoded(Image.fromarray(NOISE), "PNG", icc_profile=bytes(3_000_000)),
        chunk_after_header(encoded(Image.fromarray(NOISE), "PNG"), b"\0\0\0\5tEXthelloXXXX"),
    ],
    ids=["compressed text", "long text", "profile", "checksum of text"],
)
def test_metadata_does_not_decide_over_pixels(data):
    assert np.array_equal(images.decode(data), images.decode(encoded(Image.fromarray(NOISE), "PNG")))


def test_the_orientation_is_kept_where_other_metadata_is_dropped():
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = images.decode(encoded(Image.fromarray(NOISE), "PNG"))
    turned = encoded(Image.fromarray(NOISE), "PNG", exif=exif, pnginfo=text(True))
    assert np.array_equal(images.decode(turned), np.rot90(plain, -1))


def test_neither_pillow_nor_libtiff_print_anything(tmp_path):
    from test_formats import saved, tiff

    damaged = bytearray(saved("TIFF", compression="tiff_lzw"))
    damaged[20:60] = bytes(255 - value for value in damaged[20:60])
    (tmp_path / "bands.tif").write_bytes(tiff(13))
    (tmp_path / "codes.tif").write_bytes(damaged)
    code = """
import logging, sys
from pathlib import Path
from featurize.pixels import decoding, images
from featurize.process import descriptors

logging.basicConfig()
with descriptors.hiding_libraries():
    for path in sys.argv[1:]:
        print(decoding.decode_or_reason(Path(path).read_bytes(), images.decode))
"""
    files = [tmp_path / "bands.tif", tmp_path / "codes.tif"]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert "13 bands" in done.stdout
    assert "damaged picture" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_threads_together_take_the_memory_of_one_large_picture(tmp_path):
    """Four threads, and room for one picture of 50 MB: also what the C library keeps for each thread is returned."""
    Image.new("RGBA", (2500, 2500), (9, 8, 7, 200)).save(tmp_path / "large.png")
    code = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from featurize.pixels import images, memory

memory._TRIM_BYTES, memory._room = 2**20, memory.Room(60_000_000)
data = Path(sys.argv[1]).read_bytes()
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda _: images.decode_resized(data, 32), range(4)))
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "large.png"], capture_output=True, text=True, check=True
    )
    assert 25_000 < int(done.stdout) < 100_000  # kB; 200 MB without the room
