"""Settings of fine-tuning on data sets of several kinds, judged by images that chose nothing.

    python -m benchmarks.tuning_defaults WORK [FOLDER ...] --setting "lr=1e-4" --setting "lr=1e-3 schedule=cosine"
        [--sets digits,textures] [--images 500] [--seeds 2] [--size 112] [--json FILE]

A setting is what `vggft.Experiment.finetune` takes. The sets are made here (digits of scikit-learn, textures, aerial pictures,
X-ray-like pictures, two drawn characters) or bundled (drawings); FOLDERs with one folder for each class are further ones. Of each
set, 30% of the images are kept out of everything: they judge the best head and every setting. WORK keeps pictures, features and
runs, so that a second call only adds what is missing.
"""

import argparse
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.machine import machine
from featurize.backbone.vgg16 import VGG16
from featurize.disk import forms
from vggft import Experiment
from vggft.steps.demo import PICTURES

SIDE = 112
Rng = np.random.Generator


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sets(parser, [*MADE, "drawings"])
    parser.add_argument("--setting", action="append", required=True, help="such as 'lr=1e-3 schedule=cosine'")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, data in sets(options).items():
        for row in measure(options.work / f"{name}-{options.size}", data, options.size, options.setting, options.seeds):
            rows.append({"set": name, **row})
            print(", ".join(f"{key}: {value}" for key, value in rows[-1].items()), flush=True)
        if options.json:
            forms.write_json(options.json, {"machine": machine(), "runs": rows})
    print(table(rows))


def add_sets(parser: argparse.ArgumentParser, default: Sequence[str]) -> None:
    """Add WORK, FOLDERs and the options that say which data sets are used; `sets` returns them."""
    parser.add_argument("work", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--sets", default=",".join(default), help="comma-separated; default: all")
    parser.add_argument("--images", type=int, default=500, help="of each made set")
    parser.add_argument("--size", type=int, default=SIDE, help="side of the network's input")


def sets(options: argparse.Namespace) -> dict[str, Path]:
    """Return the name and folder of each data set, which is drawn where it is not there yet."""
    folders = {}
    for name in filter(None, options.sets.split(",")):
        drawn = options.work / "pictures" / name
        folders[name] = PICTURES if name == "drawings" else made(drawn, name, options.images)
    return folders | {path.name: path for path in options.folders}


def measure(place: Path, data: Path, size: int, settings: list[str], seeds: int) -> list[dict[str, Any]]:
    """Run every setting with every seed; return log-loss and accuracy on the test split, of the head first."""
    experiment = Experiment(place, replace(VGG16, size=size))
    if not (place / "manifest.csv").exists():
        experiment.featurize(data, test=0.3, validation=0.15)
    if not (place / "heads" / "leaderboard.csv").exists():
        experiment.fit_heads()
    runs = {}
    for setting in settings:
        for seed in range(seeds):
            name = hashlib.sha256(f"{setting} {seed}".encode()).hexdigest()[:16]
            if not (place / "finetune" / name / "run.json").exists():
                experiment.finetune(name=name, seed=seed, **arguments(setting))
            runs[name] = setting
    compared = {method["name"]: method for method in experiment.compare(quick=True)["methods"]}
    kept = {name: json.loads((place / "finetune" / name / "run.json").read_text()) for name in runs}
    (start,) = {run["start"] for run in kept.values() if run["settings"]["start"] == "best"} or {""}
    found = [{"setting": "the head", **measured(compared[start]), "seconds": 0.0}] if start else []
    for name, setting in runs.items():
        run = kept[name]
        extra = {
            "rate": run["settings"]["plan"]["learning_rate"],
            "epoch": run["best_epoch"],
            "seconds": run["seconds"],
        }
        found.append({"setting": setting, **measured(compared[name]), **extra})
    return found


def measured(method: dict[str, Any]) -> dict[str, float]:
    """Return what is compared of a model."""
    return {"log_loss": round(method["log_loss"], 4), "accuracy": round(method["accuracy"], 4)}


def arguments(setting: str) -> dict[str, Any]:
    """Return the keyword arguments that "lr=1e-3 schedule=cosine" stands for."""
    found: dict[str, Any] = {}
    for part in setting.split():
        key, value = part.split("=")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return two tables, log-loss and accuracy: means over the seeds of each setting and set."""
    sets, settings = (
        list(dict.fromkeys(row["set"] for row in rows)),
        list(dict.fromkeys(row["setting"] for row in rows)),
    )
    lines = []
    for what in ("log_loss", "accuracy"):
        lines += [
            "",
            "| " + " | ".join([what, *sets, "relative to the head", "seconds"]) + " |",
            "|---" * (len(sets) + 3) + "|",
        ]
        heads = {row["set"]: row[what] for row in rows if row["setting"] == "the head"}
        for setting in settings:
            of = {name: [row for row in rows if (row["set"], row["setting"]) == (name, setting)] for name in sets}
            means = {name: statistics.fmean(row[what] for row in some) for name, some in of.items() if some}
            ratios = [math.log(value / heads[name]) for name, value in means.items()]
            seconds = statistics.fmean(row["seconds"] for some in of.values() for row in some)
            cells = [f"{means[name]:.3f}" if name in means else "–" for name in sets]
            lines.append(
                "| "
                + " | ".join([setting, *cells, f"{math.exp(statistics.fmean(ratios)):.3f}", f"{seconds:.0f}"])
                + " |"
            )
    return "\n".join(lines)


def made(folder: Path, name: str, images: int) -> Path:
    """Draw a set, the same pictures each time; return its folder."""
    classes, draw = MADE[name]
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
    for i in range(images):
        label = classes[i % len(classes)]
        path = folder / label / f"{i:05}.png"
        if not path.exists():
            rng = np.random.default_rng([i, *name.encode()])
            draw(rng, classes.index(label), i // len(classes)).save(path)
    return folder


def noise(rng: Rng, blur: float, channels: int = 3) -> NDArray[np.float64]:
    """Return smooth noise with mean 0 and standard deviation 1, (SIDE, SIDE, channels)."""
    values = rng.normal(size=(SIDE, SIDE, channels))
    frequencies = np.fft.fftfreq(SIDE)
    low = np.exp(-2 * (np.pi * blur) ** 2 * (frequencies[:, None] ** 2 + frequencies[None] ** 2))
    smooth = np.fft.ifft2(np.fft.fft2(values, axes=(0, 1)) * low[..., None], axes=(0, 1)).real
    return np.asarray(smooth / smooth.std())


def picture(values: NDArray[Any]) -> Image.Image:
    """Return (SIDE, SIDE, 3) values, cut to 0–255, as a picture."""
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def digit(rng: Rng, label: int, number: int) -> Image.Image:
    """A handwritten digit of scikit-learn's, 8 × 8 pixels, enlarged."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    image = digits.images[digits.target == label][number]
    return (
        Image.fromarray((image * 15.9).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")
    )


def texture(rng: Rng, label: int, number: int) -> Image.Image:
    """Filtered noise: five wavelengths with a preferred direction, and five without, in random colours."""
    wavelength, directed = 4 * 1.5 ** (label % 5), label >= 5
    frequencies = np.fft.fftfreq(SIDE)
    y, x = frequencies[:, None], frequencies[None]
    ring = np.exp(-((np.hypot(x, y) - 1 / wavelength) ** 2) / (2 * (0.25 / wavelength) ** 2))
    if directed:
        ring = ring * np.exp(-((np.angle(np.exp(2j * (np.arctan2(y, x) - rng.uniform(0, np.pi))))) ** 2))
    values = np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIDE, SIDE))) * ring).real
    colours = rng.uniform(0, 255, (2, 3))
    share = 0.5 + 0.3 * (values / values.std() + rng.uniform(0.5, 1.5) * noise(rng, 1, 1)[..., 0])
    return picture(colours[0] + share[..., None].clip(0, 1) * (colours[1] - colours[0]) + 12 * noise(rng, 0.5))


def aerial(rng: Rng, label: int, number: int) -> Image.Image:
    """Fields, forest, houses, water, roads or an orchard from above."""
    ground = np.array(
        [(120, 130, 70), (50, 80, 45), (140, 130, 115), (50, 75, 95), (110, 115, 85), (105, 110, 65)][label]
    )
    values = ground + rng.normal(0, 18, 3) + 14 * noise(rng, 6) + 9 * noise(rng, 1)
    image = picture(values)
    pen, angle = ImageDraw.Draw(image), rng.uniform(0, np.pi)
    across, along = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])

    def at(u: float, v: float) -> tuple[float, float]:
        x, y = SIDE / 2 + u * across + v * along
        return float(x), float(y)

    def shade(spread: float = 25) -> tuple[int, ...]:
        return tuple(int(c) for c in (ground + rng.normal(0, spread) + rng.normal(0, 10, 3)).clip(0, 255))

    if label == 0:
        for u in np.arange(-90, 90, rng.uniform(5, 14)):
            pen.line([at(u, -90), at(u, 90)], shade(12), 2)
    elif label in (1, 5):
        step = rng.uniform(8, 13)
        for u in np.arange(-90, 90, step):
            for v in np.arange(-90, 90, step):
                a, b = at(*(np.array([u, v]) + rng.normal(0, 4 if label == 1 else 0.8, 2)))
                pen.ellipse([a - 3, b - 3, a + 3, b + 3], shade(16))
    elif label == 2:
        for _ in range(rng.integers(6, 16)):
            u, v, w, h = *rng.uniform(-60, 60, 2), *rng.uniform(5, 13, 2)
            pen.polygon([at(u, v), at(u + w, v), at(u + w, v + h), at(u, v + h)], shade(45))
    elif label == 4:
        for _ in range(rng.integers(1, 4)):
            u, v = rng.uniform(-45, 45, 2)
            pen.line([at(u, -90), at(v, 90)], shade(30), int(rng.integers(2, 6)))
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.6, 2.2))), float)
    return picture(blurred * rng.uniform(0.7, 1.2) + 10 * noise(rng, 0.6))


def xray(rng: Rng, label: int, number: int) -> Image.Image:
    """Grey and noisy: nothing, a faint spot, or a faint line."""
    values = 110 + 30 * noise(rng, 14, 1)[..., 0] + 10 * noise(rng, 2, 1)[..., 0]
    mark = Image.new("L", (SIDE, SIDE))
    pen, (x, y) = ImageDraw.Draw(mark), rng.uniform(25, SIDE - 25, 2)
    if label == 1:
        r = rng.uniform(4, 9)
        pen.ellipse([x - r, y - r, x + r, y + r], 255)
    elif label == 2:
        dx, dy = rng.normal(0, 20, 2)
        pen.line([x - dx, y - dy, x + dx, y + dy], 255, 2)
    faint = np.asarray(mark.filter(ImageFilter.GaussianBlur(1.5)), float) * rng.uniform(0.12, 0.3)
    return picture(np.repeat((values + faint + 9 * rng.normal(size=values.shape))[..., None], 3, axis=2))


def character(rng: Rng, label: int, number: int) -> Image.Image:
    """One of two drawn characters, which differ in eyes, hair and collar, before anything, in any light."""
    image = picture(rng.uniform(60, 200, 3) + 45 * noise(rng, rng.uniform(2, 12)))
    pen = ImageDraw.Draw(image)
    r, x, y = rng.uniform(18, 40), *rng.uniform(35, SIDE - 35, 2)
    skin, hair = (
        tuple(int(c) for c in rng.normal((235, 200, 175), 12)),
        tuple(int(c) for c in rng.normal((90, 60, 50), 30)),
    )
    pen.rectangle([x - r, y + 0.8 * r, x + r, SIDE], tuple(int(c) for c in rng.uniform(0, 255, 3)))
    if label:
        pen.ellipse([x - 1.3 * r, y - 1.2 * r, x + 1.3 * r, y + 1.1 * r], hair)
    pen.ellipse([x - r, y - r, x + r, y + r], skin)
    pen.pieslice([x - 1.05 * r, y - 1.1 * r, x + 1.05 * r, y + 0.9 * r], 180 + rng.uniform(-15, 15), 360, hair)
    look = rng.uniform(-0.2, 0.2) * r
    for side in (-0.4, 0.4):
        a, b, w, h = x + side * r + look, y + 0.25 * r, 0.16 * r, (0.26 if label else 0.2) * r
        pen.ellipse([a - w, b - h, a + w, b + h], (30, 30, 60))
    pen.arc([x - 0.3 * r + look, y + 0.4 * r, x + 0.3 * r + look, y + 0.75 * r], 20, 160, (120, 40, 40), 2)
    turned = image.rotate(rng.normal(0, 12), Image.Resampling.BICUBIC).filter(
        ImageFilter.GaussianBlur(rng.uniform(0, 2))
    )
    return picture(np.asarray(turned, float) * rng.uniform(0.5, 1.2) + rng.uniform(5, 40) * noise(rng, 0.7))


# Name → classes, and a function that draws one picture: random numbers, index of the class, running number in the class.
MADE: dict[str, tuple[list[str], Callable[[Rng, int, int], Image.Image]]] = {
    "digits": ([str(i) for i in range(10)], digit),
    "textures": ([f"{kind}{i}" for kind in ("grain", "stripes") for i in range(5)], texture),
    "aerial": (["fields", "forest", "houses", "water", "roads", "orchard"], aerial),
    "xray": (["nothing", "spot", "line"], xray),
    "characters": (["first", "second"], character),
}


if __name__ == "__main__":
    main()
