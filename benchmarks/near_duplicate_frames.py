"""How many different frames are taken for near-duplicates, and how many repetitions are not, by hashes and by features.

    python -m benchmarks.near_duplicate_frames PHOTOGRAPHS DRAWINGS [--pictures 100]

Each picture of the two folders becomes a shot of three frames, and each kind of shot one H.264 video for each folder:

still        a camera on a tripod: only the noise of the sensor differs
hand-held    shifted by up to 1.5%, zoomed by up to 1%, brightness changed by up to 5%
object       a drawing, a fifth as wide as the picture, elsewhere in each frame
pan          the view moves by a tenth of its width between two frames

A frame is left out if it is at most the threshold from a frame of the video that was kept. Printed are, of the pictures, those
whose first frame was left out, and of the other frames, those that were kept. `selection.MOST_BITS` comes from these numbers.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from featurize import engines
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.pixels import images
from featurize.video.picture import Converter
from featurize.video.video import Video
from heads.head import pool

SIZE = (320, 240)
AROUND = (480, 360)  # the picture that a view of SIZE lies in
FRAMES = 3  # of a shot
RNG = np.random.default_rng(0)

Frames = Sequence[av.VideoFrame]
Distances = Callable[[Any, NDArray[Any]], NDArray[Any]]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("drawings", type=Path)
    parser.add_argument("--pictures", type=int, default=100)
    options = parser.parse_args()
    photographs, drawings = (pictures(folder, options.pictures) for folder in (options.photographs, options.drawings))
    shots: dict[str, Callable[[Image.Image, int], list[NDArray[np.uint8]]]] = {
        "still": lambda picture, _: [noisy(view(picture)) for _ in range(FRAMES)],
        "hand-held": lambda picture, _: [hand_held(picture) for _ in range(FRAMES)],
        "object": lambda picture, i: [with_object(picture, drawings[i]) for _ in range(FRAMES)],
        "pan": lambda picture, _: [noisy(view(picture, 2 + i * SIZE[0] / 10, 60)) for i in range(FRAMES)],
    }
    videos = {
        (name, kind): coded([shoot(picture, i) for i, picture in enumerate(of)])
        for name, of in (("photographs", photographs), ("drawings", drawings))
        for kind, shoot in shots.items()
    }
    print(f"{len(photographs)} photographs, {len(drawings)} drawings; {sum(map(len, videos.values()))} frames")
    print("| method | threshold | ms a frame | photographs lost | drawings lost | still | hand-held | object | pan |")
    print("|---|---|---|---|---|---|---|---|---|")
    vgg = engine()
    methods: dict[str, tuple[Callable[[Frames], NDArray[Any]], Distances, Sequence[float]]] = {
        "dHash": (difference_hashes, bits, (5, 8, 10)),
        "pHash": (low_frequencies, bits, (6, 8, 10, 12)),
        "features": (lambda frames: features(vgg, frames), hellinger, (0.05, 0.1, 0.15, 0.2)),
    }
    for method, (describe, distances, thresholds) in methods.items():
        began = time.perf_counter()
        described = {key: describe(frames) for key, frames in videos.items()}
        milliseconds = (time.perf_counter() - began) * 1000 / sum(map(len, videos.values()))
        for threshold in thresholds:
            outcomes = {key: kept(values, distances, threshold) for key, values in described.items()}
            lost = [f"{lost_share(outcomes, name):.1%}" for name in ("photographs", "drawings")]
            repeated = [f"{repeated_share(outcomes, kind):.0%}" for kind in shots]
            print(f"| {' | '.join([method, str(threshold), f'{milliseconds:.2f}', *lost, *repeated])} |", flush=True)


def pictures(folder: Path, number: int) -> list[Image.Image]:
    """Return evenly selected pictures, of the size AROUND; copies are left out."""
    found: dict[bytes, Image.Image] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            decoded = images.decode_resized(path.read_bytes(), AROUND[0])
        except images.Unreadable:
            continue
        found[decoded.tobytes()] = Image.fromarray(decoded).resize(AROUND)
    everything = list(found.values())
    return everything[:: max(1, len(everything) // number)][:number]


def view(picture: Image.Image, x: float = 80, y: float = 60, zoom: float = 1) -> Image.Image:
    """Return a part of a picture."""
    box = (x, y, x + SIZE[0] / zoom, y + SIZE[1] / zoom)
    return picture.resize(SIZE, Image.Resampling.BICUBIC, box=box)


def noisy(picture: Image.Image, gain: float = 1) -> NDArray[np.uint8]:
    """Return a picture with the noise of a sensor."""
    values = np.asarray(picture) * gain + RNG.normal(0, 5, (SIZE[1], SIZE[0], 1))
    return np.clip(values, 0, 255).astype(np.uint8)


def hand_held(picture: Image.Image) -> NDArray[np.uint8]:
    """Return what a camera in a hand sees."""
    x, y, zoom = RNG.uniform((75, 56, 0.99), (85, 64, 1.01))
    return noisy(view(picture, x, y, zoom), RNG.uniform(0.95, 1.05))


def with_object(picture: Image.Image, drawing: Image.Image) -> NDArray[np.uint8]:
    """Return a view with a small drawing somewhere in it."""
    seen, small = view(picture), drawing.resize((SIZE[0] // 5, SIZE[1] // 5))
    seen.paste(small, (int(RNG.uniform(0, SIZE[0] * 0.8)), int(RNG.uniform(0, SIZE[1] * 0.8))))
    return noisy(seen)


def coded(shots: Sequence[Sequence[NDArray[np.uint8]]]) -> Frames:
    """Return the frames of shots after they went through H.264."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video.mkv"
        with av.open(path, "w") as file:
            stream = file.add_stream("libx264", rate=5, options={"crf": "28"})
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for pixels in itertools.chain.from_iterable(shots):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode())
        with Video(path) as video:
            return [frame.picture for frame in video.frames()]


def low_frequencies(frames: Frames) -> NDArray[Any]:
    """Return the hashes that `vggft frames` uses."""
    converter = Converter(1)
    return np.array([converter.perceptual_hash(frame) for frame in frames], np.uint64)


def difference_hashes(frames: Frames) -> NDArray[Any]:
    """Return 64 bits a frame, which say where a small grey picture becomes brighter from left to right (dHash)."""
    scaler, hashes = VideoReformatter(), []
    for frame in frames:
        scaled = scaler.reformat(frame, width=9, height=8, format="gray", interpolation="AREA", threads=1)
        becomes_brighter = np.diff(scaled.to_ndarray().astype(int), axis=1) > 0
        hashes.append(int.from_bytes(np.packbits(becomes_brighter).tobytes()))
    return np.array(hashes, np.uint64)


def engine() -> Any:
    """Return the engine that featurize chooses here."""
    fingerprint = Fingerprint.of(VGG16)
    name = engines.choose(VGG16, precision=fingerprint.precision).name
    return engines.create(name, weights.load(VGG16, weights.locate(VGG16)), fingerprint)


def features(network: Any, frames: Frames) -> NDArray[Any]:
    """Return the roots of average-pooled features, of length 1, as `heads.near_duplicates` compares them."""
    parts = []
    for first in range(0, len(frames), 16):
        pixels = [
            frame.reformat(width=224, height=224, format="rgb24").to_ndarray() for frame in frames[first : first + 16]
        ]
        parts.append(pool(network(np.stack(pixels), [VGG16.top])[0].astype(np.float16), "avg"))
    roots = np.sqrt(np.concatenate(parts).astype(np.float32))
    unit: NDArray[Any] = roots / np.linalg.norm(roots, axis=1, keepdims=True)
    return unit


def bits(one: Any, others: NDArray[Any]) -> NDArray[Any]:
    """Return the number of bits in which hashes differ."""
    different: NDArray[Any] = np.bitwise_count(others ^ one)
    return different


def hellinger(one: Any, others: NDArray[Any]) -> NDArray[Any]:
    """Return 1 minus the cosine similarities."""
    distances: NDArray[Any] = 1 - others @ one
    return distances


def kept(
    described: NDArray[Any], distances: Callable[[Any, NDArray[Any]], NDArray[Any]], threshold: float
) -> list[bool]:
    """Return which frames of a video are kept."""
    positions: list[int] = []
    for i, one in enumerate(described):
        if not positions or distances(one, described[positions]).min() > threshold:
            positions.append(i)
    return [i in set(positions) for i in range(len(described))]


def lost_share(outcomes: dict[tuple[str, str], list[bool]], name: str) -> float:
    """Return how many of the pictures of a folder are lost because an earlier one looks alike."""
    return 1 - float(np.mean([outcomes[name, kind][::FRAMES] for kind in ("still", "hand-held")]))


def repeated_share(outcomes: dict[tuple[str, str], list[bool]], kind: str) -> float:
    """Return how many frames after the first one of a shot are kept."""
    return float(np.mean([keep for keep in repetitions(outcomes, kind)]))


def repetitions(outcomes: dict[tuple[str, str], list[bool]], kind: str) -> Iterator[bool]:
    """Yield whether the frames after the first one of each shot were kept."""
    for (_, of), keeps in outcomes.items():
        if of == kind:
            yield from (keep for i, keep in enumerate(keeps) if i % FRAMES)


if __name__ == "__main__":
    main()
