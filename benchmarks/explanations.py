"""How well Grad-CAM and LayerCAM point at what a model sees, for models of a workspace.

    python -m benchmarks.explanations WORKSPACE [--models NAME,NAME] [--pictures 60]

Two measurements on validation images that the model classifies correctly:

- Mosaic (Böhle et al. 2021, arXiv:2104.00032): four of them as a 2×2 mosaic, two of one class and two of another. Score: the
  share of a class's map that lies on the pictures of that class; 0.5 is chance.
- Deletion: the fifth of the picture that is highlighted most is painted in the mean colour. Score: the mean probability that
  is left for the predicted class; lower is better. "random" highlights at random.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurize.backbone.vgg16 import VGG16
from featurize.pixels import images
from heads.head import Head, pool
from vggft.explanation import grad_cam
from vggft.explanation.explainer import last_convolution
from vggft.prediction import models
from vggft.prediction.inference import start_its_engine
from vggft.prediction.model import Dissected
from vggft.workspace.workspace import Workspace

DELETED = 0.2  # share of the picture


def layer_cam(head: Head, activations: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return LayerCAM (Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, equations 6 and 7); arguments as `grad_cam.maps`."""
    pooled = grad_cam.max_pooled(activations)
    n, height, width, filters = pooled.shape
    gradient = _gradient(head, pool(pooled, head.pooling), targets)
    through = np.zeros((n, height * width, filters), np.float32)
    if head.pooling == "flatten":
        through += gradient.reshape(through.shape)
    if head.pooling in ("avg", "avgmax"):
        through += gradient[:, None, :filters] / (height * width)
    if head.pooling in ("max", "avgmax"):
        largest = pooled.reshape(through.shape).argmax(axis=1)[:, None]
        np.put_along_axis(through, largest, np.take_along_axis(through, largest, 1) + gradient[:, None, -filters:], 1)
    products = (np.maximum(through, 0) * pooled.reshape(through.shape)).reshape(pooled.shape)
    maps = np.zeros(activations.shape[:3], np.float32)
    for i in (0, 1):
        for j in (0, 1):  # the gradient goes to the largest place of each 2×2 window
            place = activations[:, i : 2 * height : 2, j : 2 * width : 2]
            maps[:, i : 2 * height : 2, j : 2 * width : 2] = (products * (place == pooled)).sum(axis=-1)
    return maps


def _gradient(head: Head, x: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the gradient of the logits with respect to pooled features (n, inputs)."""
    passing = []
    for layer in head.layers[:-1]:
        x = np.maximum(x @ layer.kernel + layer.bias, 0)
        passing.append(x > 0)
    last = head.layers[-1].kernel
    gradient = (np.concatenate([-last, last], axis=1) if last.shape[1] == 1 else last).T[targets]
    for layer, units in zip(head.layers[-2::-1], passing[::-1], strict=True):
        gradient = (gradient * units) @ layer.kernel.T
    return gradient


METHODS = {"Grad-CAM": grad_cam.maps, "LayerCAM": layer_cam}


def main() -> None:
    """Measure each model and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--models", help="default: the best head and the best tuned network")
    parser.add_argument("--pictures", type=int, default=60, help="pictures, and mosaics, of each model (default 60)")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.workspace, VGG16)
    present = models.load(workspace)
    names = (
        arguments.models.split(",") if arguments.models else [m.name for m in (present.heads[0], *present.networks[:1])]
    )
    size = workspace.settings.fingerprint.size
    engine = start_its_engine(workspace)
    print(f"{'model':36} {'method':10} mosaic  deletion")
    for name in names:
        dissected = present.named(name).dissected(last_convolution(VGG16))
        rng = np.random.default_rng(0)

        def activations(pictures: NDArray[np.uint8], dissected: Dissected = dissected) -> NDArray[np.float32]:
            if dissected.layer is None:
                return dissected.activations(pictures)
            return dissected.activations(engine(pictures, [dissected.layer])[0].astype(np.float16))

        validation = workspace.dataset.accepted("validate")
        samples = [validation[i] for i in rng.permutation(len(validation))[: 2 * arguments.pictures]]
        pictures = np.stack(
            [images.decode_resized((workspace.dataset.root / s.path).read_bytes(), size) for s in samples]
        )
        targets = np.asarray(workspace.dataset.targets(samples))
        a = activations(pictures)
        right = dissected.head.predict(grad_cam.max_pooled(a)).argmax(axis=1) == targets
        pictures, targets, a = pictures[right], targets[right], a[right]
        mosaics, pairs, cells = _mosaics(pictures, targets, arguments.pictures, rng)
        in_mosaics = activations(mosaics)
        some = slice(0, arguments.pictures)
        for method, of in METHODS.items():
            scores = []
            for k in (0, 1):
                maps = of(dissected.head, in_mosaics, pairs[:, k])
                half = maps.shape[1] // 2
                mass = maps.reshape(len(maps), 2, half, 2, half).sum((2, 4)).reshape(len(maps), 4)
                total = mass.sum(axis=1)
                scores += list((mass * (cells == k)).sum(axis=1)[total > 0] / total[total > 0])
            maps = of(dissected.head, a[some], targets[some])
            left = _left(dissected, activations(_without(pictures[some], maps)), targets[some])
            print(f"{name:36} {method:10} {np.mean(scores):6.3f}  {left:8.3f}", flush=True)
        left = _left(
            dissected, activations(_without(pictures[some], rng.random(maps.shape, np.float32))), targets[some]
        )
        before = _left(dissected, a[some], targets[some])
        print(f"{name:36} {'random':10} {0.5:6.3f}  {left:8.3f}  (before: {before:.3f})", flush=True)


def _mosaics(
    pictures: NDArray[np.uint8], targets: NDArray[np.int64], n: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return mosaics, the two classes of each (n, 2), and which of them each cell shows (n, 4)."""
    enough = np.flatnonzero(np.bincount(targets) >= 2)
    mosaics, pairs, cells = [], [], []
    for _ in range(n):
        pair = rng.choice(enough, 2, replace=False)
        cell = rng.permutation([0, 0, 1, 1])
        parts = np.empty((4, pictures.shape[1] // 2, pictures.shape[1] // 2, 3), np.uint8)
        for k in (0, 1):
            chosen = rng.choice(np.flatnonzero(targets == pair[k]), 2, replace=False)
            for at, picture in zip(np.flatnonzero(cell == k), pictures[chosen], strict=True):
                parts[at] = np.asarray(Image.fromarray(picture).resize(parts.shape[1:3]))
        mosaics.append(np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)]))
        pairs.append(pair)
        cells.append(cell)
    return np.stack(mosaics), np.stack(pairs), np.stack(cells)


def _without(pictures: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the pictures without what their maps highlight most."""
    result = pictures.copy()
    for picture, heat in zip(result, maps, strict=True):
        large = np.asarray(Image.fromarray(heat).resize(picture.shape[1::-1], Image.Resampling.BILINEAR))
        most = np.argsort(large, axis=None)[::-1][: int(DELETED * large.size)]
        picture.reshape(-1, 3)[most] = np.round(VGG16.means[::-1])
    return result


def _left(dissected: Dissected, activations: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    p = dissected.head.predict(grad_cam.max_pooled(activations))
    return float(p[np.arange(len(p)), targets].mean())


if __name__ == "__main__":
    main()
