"""All image formats and many broken files in one run: exact pixels, or a clear reason for rejection."""

import csv
import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import paint, strict_json
from PIL import Image, ImageCms, features
from processes import command
from tiny import TINY

from featurize import engines
from featurize.pixels import images
from vggft.workspace.workspace import Workspace

# Flat blocks of 8 by 8: a JPEG of quality 100 that keeps RGB (or grey, or CMYK) gives them back bit for bit.
UP = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8).repeat(8, 0).repeat(8, 1)
GREY = np.repeat(UP[:, :, :1], 3, axis=2)
NOISE = np.random.default_rng(1).integers(0, 256, (30, 44, 4), np.uint8)
WIDE = np.random.default_rng(2).integers(0, 65_536, (7, 9, 3), np.uint16)
# How a camera stores a picture that EXIF then turns upright (EXIF 2.32, table 6).
STORED = {
    1: UP,
    2: UP[:, ::-1],
    3: UP[::-1, ::-1],
    4: UP[::-1],
    5: UP.swapaxes(0, 1),
    6: np.rot90(UP),
    7: UP[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(UP, -1),
}
EXACT_JPEG = {"quality": 100, "subsampling": 0, "keep_rgb": True}


def saved(image: Image.Image, kind, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, format=kind, **options)
    return data.getvalue()


def encoded(pixels, kind, **options) -> bytes:
    return saved(Image.fromarray(np.ascontiguousarray(pixels)), kind, **options)


def plain(data: bytes):
    return np.array(Image.open(io.BytesIO(data)))


def png(width, height, depth, colour, rows: bytes, lace=0, **more: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, lace)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in {"IHDR": head, **more, "IDAT": zlib.compress(rows), "IEND": b""}.items():
        chunk = name.encode() + body
        data += struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data


def filtered(pixels) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def interlaced(pixels) -> bytes:
    """Adam7 (PNG specification, section 8): seven passes, each a grid that starts at x, y and goes on by dx, dy."""
    grids = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    passes = [pixels[y::dy, x::dx] for x, y, dx, dy in grids]
    return png(*pixels.shape[1::-1], 8, 2, b"".join(filtered(part) for part in passes if part.size), lace=1)


def inks(cmyk):
    """CMYK without a profile: the share of light that black leaves, less the share that each ink takes of it."""
    light = 255 - cmyk[:, :, 3:].astype(int)
    return light - np.round(cmyk[:, :, :3] * light / 255)


def animated(kind, **options) -> bytes:
    later = [Image.fromarray(UP[::-1]), Image.fromarray(UP[:, ::-1])]
    return encoded(UP, kind, save_all=True, append_images=later, **options)


def turned(orientation, kind, **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(STORED[orientation], kind, exif=exif, **options)


def lock(path: Path) -> None:
    paint(path, (1, 2, 3)).chmod(0)


def box_of(brand: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", len(body) + 4) + body + bytes(40)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = SRGB.replace(b"rXYZ", b"none").replace(b"gXYZ", b"rXYZ").replace(b"none", b"gXYZ")  # its red is our green
BASELINE = encoded(NOISE[:, :, :3], "JPEG", quality=90)
PRINT = Image.frombytes("CMYK", (44, 30), NOISE.tobytes())
INKS = saved(PRINT, "JPEG", quality=90)
BOMB = png(14_000, 12_000, 1, 0, bytes(1751 * 12_000))
AVIF = encoded(UP, "AVIF", quality=90) if features.check("avif") else box_of(b"avif", b"mif1")

TURNED = {
    f"exif-{orientation}.{kind.lower()}": turned(orientation, kind, **options)
    for orientation in STORED
    for kind, options in (("PNG", {}), ("TIFF", {}), ("JPEG", EXACT_JPEG))
}
# name → bytes, and the pixels that they stand for
GOOD = {
    "upright.png": (encoded(UP, "PNG"), UP),
    **{name: (data, UP) for name, data in TURNED.items()},
    "baseline.jpg": (BASELINE, plain(BASELINE)),
    "progressive.JPG": (encoded(NOISE[:, :, :3], "JPEG", quality=90, progressive=True), plain(BASELINE)),
    "progressive-exact.jpeg": (encoded(UP, "JPEG", progressive=True, **EXACT_JPEG), UP),
    "grey.jpg": (encoded(GREY[:, :, 0], "JPEG", quality=100), GREY),
    "cmyk.jpg": (INKS, inks(plain(INKS))),
    "cmyk.tif": (saved(PRINT, "TIFF"), inks(NOISE)),
    "really-a-png.jpg": (encoded(UP[:9], "PNG"), UP[:9]),
    "really-a-jpeg.png": (encoded(UP[:8], "JPEG", **EXACT_JPEG), UP[:8]),
    "no-extension": (encoded(UP[:7], "PNG"), UP[:7]),
    "grey-8.png": (encoded(GREY[:, :, 0], "PNG"), GREY),
    "grey-16.png": (encoded(WIDE[:, :, 0], "PNG"), WIDE[:, :, [0, 0, 0]] // 256),
    "grey-16.tif": (encoded(WIDE[:, :, 1], "TIFF"), WIDE[:, :, [1, 1, 1]] // 256),
    "rgb-8.png": (png(40, 24, 8, 2, filtered(UP)), UP),
    "rgb-16.png": (png(9, 7, 16, 2, filtered(WIDE.astype(">u2"))), WIDE // 256),
    "alpha.png": (encoded(NOISE, "PNG"), np.round(255 - (255.0 - NOISE[:, :, :3]) * (NOISE[:, :, 3:] / 255))),
    "palette-with-alpha.png": (
        png(3, 1, 8, 3, bytes([0, 0, 1, 2]), PLTE=bytes([255, 0, 0, 0, 0, 255, 0, 90, 0]), tRNS=bytes([0, 255, 51])),
        [[[255, 255, 255], [0, 0, 255], [204, 222, 204]]],
    ),
    "interlaced.png": (interlaced(NOISE[:, :, :3]), NOISE[:, :, :3]),
    "one-by-one.png": (encoded(UP[:1, :1], "PNG"), UP[:1, :1]),
    "one-by-5000.png": (png(1, 5000, 8, 0, bytes([0, 77] * 5000)), np.full((5000, 1, 3), 77)),
    "animation.gif": (animated("GIF"), UP),
    "animation.webp": (animated("WEBP", lossless=True), UP),
    "pages.tif": (animated("TIFF"), UP),
    "plain.bmp": (encoded(UP, "BMP"), UP),
    "profile.png": (encoded(UP, "PNG", icc_profile=SWAPPED), UP),
}
NOT_A_PICTURE = "not a picture: text file"
CUT = r"damaged picture: the file is incomplete \(.+\)"
CUT_EARLY = "damaged picture: the header is incomplete or invalid"
HEIC = "HEIC picture: Pillow cannot read HEIC without a plug-in; convert it to JPEG or PNG"
NO_AVIF = "AVIF picture: this Pillow was built without AVIF; convert it to JPEG or PNG"
# name → bytes, and the reason (a regular expression)
BAD = {
    "cut.jpg": (BASELINE[: len(BASELINE) // 2], CUT),
    "cut-progressive.jpg": (GOOD["progressive.JPG"][0][:-200], CUT),
    "cut-early.jpg": (BASELINE[:20], CUT_EARLY),
    "cut.png": (GOOD["interlaced.png"][0][:1000], CUT),
    "cut-early.gif": (GOOD["animation.gif"][0][:20], CUT_EARLY),
    "empty.jpg": (b"", r"empty file \(0 bytes\)"),
    "text.jpg": (b"this is no picture\n", NOT_A_PICTURE),
    "notes": (b"one more", NOT_A_PICTURE),
    "bomb.png": (BOMB, "too large: 14000 × 12000, the limit is 120 million pixels"),
    "bigger-bomb.png": (png(99_999, 99_999, 8, 2, b""), "too large: the limit is 120 million pixels"),
    "phone.heic": (box_of(b"heic", b"mif1", b"heic"), HEIC),
    "phone.heif": (box_of(b"mif1", b"heic"), HEIC),
    "header-only.avif": (box_of(b"avif", b"avif"), CUT_EARLY if features.check("avif") else NO_AVIF),
    "icon.ico": (encoded(UP[:16, :16], "ICO"), r"icon \(ICO\): not supported; convert it to PNG"),
    "float.tif": (
        encoded(np.zeros((2, 2), np.float32), "TIFF"),
        "floating-point pixels, with no standard conversion .*",
    ),
}
if features.check("avif"):
    GOOD["picture.avif"] = (AVIF, plain(AVIF))
else:
    BAD["picture.avif"] = (AVIF, NO_AVIF)
# name → what lies there instead of a file with bytes, and the reason
ODD = {
    "folder.jpg": (Path.mkdir, "a folder, not a picture"),
    "locked.png": (lock, "cannot be read: Permission denied"),
    "locked": (lambda path: path.mkdir(0), "folder cannot be listed: Permission denied"),
}
if os.name != "nt":
    ODD |= {
        "itself.jpg": (lambda path: path.symlink_to(path), "broken link"),
        "circle": (lambda path: path.symlink_to(path.parent), "a link back to a folder above it"),
        "gone.png": (lambda path: path.symlink_to("nowhere.png"), "broken link"),
        "pipe.jpg": (os.mkfifo, r"not a regular file \(a pipe, socket or device\)"),
    }
PLACES = {name: f"{'ab'[i % 2]}/{name}" for i, name in enumerate([*GOOD, *BAD, *ODD])}

# Linux: root, too, obeys permissions once it has laid down CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2) for good.
HUMBLE = """
import ctypes, os, sys
if sys.platform == "linux" and os.geteuid() == 0:
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def humble(*arguments) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", HUMBLE, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, weights):
    """All files in two class folders, and one run over them."""
    base = tmp_path_factory.mktemp("corpus")
    for label in "ab":
        (base / "data" / label).mkdir(parents=True)
    for name, (data, _) in {**GOOD, **BAD}.items():
        (base / "data" / PLACES[name]).write_bytes(data)
    lock(base / "try.png")
    absent = () if humble("-c", f"open({str(base / 'try.png')!r})").returncode else ("locked.png", "locked")
    for name in ODD.keys() - absent:
        ODD[name][0](base / "data" / PLACES[name])
    done = humble(*command("featurize", base / "data", "-w", base / "work", "--json")[1:])
    assert done.stdout, done.stderr
    with (base / "work" / "manifest.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    if not absent:
        (base / "data" / PLACES["locked"]).chmod(0o700)  # so that it can be deleted
    return SimpleNamespace(done=done, rows=rows, workspace=Workspace(base / "work", TINY), absent=absent)


def test_the_run(corpus):
    rejected = len(BAD) + len(ODD) - len(corpus.absent)
    assert corpus.done.returncode == 3, corpus.done.stderr
    assert not re.search("Traceback|BombWarning", corpus.done.stderr)
    assert f"{rejected} files rejected; 5 of them shown; reasons are listed in" in corpus.done.stderr
    said = strict_json(corpus.done.stdout)
    assert (said["images"], said["computed"], said["reused"]) == (len(GOOD), len(GOOD), 0)
    assert (said["rejected"], said["duplicates"], said["conflicts"]) == (rejected, 0, [])
    assert (said["classes"], sum(said["splits"].values())) == (["a", "b"], len(GOOD))
    assert sorted(corpus.rows) == sorted(place for name, place in PLACES.items() if name not in corpus.absent)


@pytest.mark.parametrize("name", GOOD)
def test_good(corpus, name):
    data, pixels = GOOD[name]
    row = corpus.rows[PLACES[name]]
    assert (row["status"], row["reason"], row["label"]) == ("ok", "", PLACES[name][0])
    found = images.decode(data)
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize("name", [*BAD, *ODD])
def test_bad(corpus, name):
    if name in corpus.absent:
        pytest.skip("this user may read everything, and cannot give that up")
    row = corpus.rows[PLACES[name]]
    assert (row["status"], row["split"]) == ("rejected", "")
    assert re.fullmatch({**BAD, **ODD}[name][1], row["reason"])


def test_what_is_cached_are_the_features_of_those_pixels(corpus, weights):
    fingerprint = corpus.workspace.settings.fingerprint
    upright = [Image.fromarray(np.asarray(pixels).astype(np.uint8)) for _, pixels in GOOD.values()]
    squares = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)) for image in upright])
    engine = engines.create(engines.choose(TINY, "auto", fingerprint.precision).name, weights, fingerprint)
    (expected,) = engine(squares, ["block3_pool"])
    digests = [corpus.rows[PLACES[name]]["digest"] for name in GOOD]
    found = corpus.workspace.cache().read("block3_pool", digests).astype(np.float64)
    difference = np.linalg.norm((found - expected).reshape(len(GOOD), -1), axis=1)
    assert (difference / np.linalg.norm(expected.reshape(len(GOOD), -1), axis=1)).max() <= 1e-3


def test_all_orientations_give_the_same_row(corpus):
    digests = [corpus.rows[PLACES[name]]["digest"] for name in ["upright.png", *TURNED]]
    upright, *others = corpus.workspace.cache().read("block3_pool", digests)
    assert len(set(digests)) == 25
    assert all(np.array_equal(other, upright) for other in others)


ALONE = """
import pathlib, sys
from featurize.pixels import images
data = pathlib.Path(sys.argv[1]).read_bytes()
peak = lambda: int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024
start = peak()
try:
    images.decode_resized(data, 32)
except images.Unreadable as error:
    print(error, peak() - start, sep="\\n")
"""


def decoded_alone(path: Path, data: bytes, before="") -> list[str]:
    """Decode in a process of its own; return the reason, and by how many MiB its memory grew at most."""
    path.write_bytes(data)
    words = [sys.executable, "-c", before + ALONE, path]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_bomb_is_refused_before_memory_is_taken_for_it(tmp_path):
    reason, grown = decoded_alone(tmp_path / "bomb.png", BOMB)
    assert re.fullmatch(BAD["bomb.png"][1], reason)
    assert int(grown) < 20  # its pixels take 160 MiB as they are stored, 480 as RGB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_avif_where_pillow_lacks_it(tmp_path):
    assert decoded_alone(tmp_path / "a.avif", AVIF, "import sys; sys.modules['PIL._avif'] = None")[0] == NO_AVIF
