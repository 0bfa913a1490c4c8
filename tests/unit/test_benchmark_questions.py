"""The questions about second runs, the machine's matrix-multiply rate and growth: what they count, fit, change and restore."""

import hashlib
import json
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_classes
from PIL import Image

from benchmarks import __main__ as command
from benchmarks import growing, operations, pipeline, rates
from benchmarks.contest import Contest, Run
from benchmarks.questions import changes, growth, limit
from benchmarks.questions.answer import Answer
from benchmarks.restoring import keep, restore

ROOT = Path(__file__).parents[2]
BLOCK5 = 14 * 14 * (9 * 512) * 512  # multiply-adds of each of its three convolutions, by hand
VGG16_TOTAL = 15_346_630_656


@dataclass
class Rehearsed(Contest):
    """A contest whose contenders take a second, and 0.1 s an image, and record the files that they get."""

    seen: list = field(default_factory=list)

    def run(self, contender, task):
        work, files = self.work(contender), tree(task.data)
        if task.do == "epoch":
            if contender == "vggft":
                assert tree(work)  # its features
            assert "tuned" not in tree(work)  # of another round
            work.mkdir(exist_ok=True)
            (work / "tuned").write_text("")
            return Run(100, [50, *[len(files) / 10] * (task.epochs - 1)])
        work.mkdir(parents=True, exist_ok=True)
        self.seen.append((contender, tree(work), files))
        (work / f"features-{len(self.seen)}").write_text(contender)
        events = [{"event": "features", "engine": "winograd"}] if contender == "vggft" else []
        return Run(
            1 + len(files) / 10, memory=10**9, disk=1000 * len(files), events=events, processor=2 + len(files) / 5
        )


@pytest.fixture
def contest(tmp_path):
    for split, number in (("train", 10), ("validate", 4), ("unseen", 2)):
        folder = tmp_path / ("unseen" if split == "unseen" else f"data/{split}")
        make_classes(folder, cat=number, dog=number)
    (tmp_path / "unseen" / "cat" / "0.png").write_bytes(b"another picture")
    return Rehearsed(
        tmp_path / "data", tmp_path / "unseen", tmp_path, tmp_path / "work", 2, sizes=[40, 80], files=[20, 40]
    )


def tree(folder):
    """Return the files of a folder, and the sha256 of each."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_multiply_adds_of_vgg16(published):
    layers = operations.convolutions(published, 224)
    assert layers[0] == operations.Convolution("block1_conv1", 224 * 224, 3 * 3 * 3, 64)
    assert layers[0].multiply_adds == 86_704_128
    assert layers[-1].multiply_adds == BLOCK5
    assert operations.forward(layers) == VGG16_TOTAL


def test_multiply_adds_of_an_epoch(published):
    counted = operations.epoch(published, 224, train=10, validate=4)
    assert counted.cache == 14 * 3 * BLOCK5 + 10 * 5 * BLOCK5
    assert counted.pixels - counted.cache == 14 * (VGG16_TOTAL - 3 * BLOCK5)


def test_the_exponent_is_the_slope_of_logarithms():
    sizes = (500, 1_000, 2_000)
    assert growing.exponent({n: 3e-4 * n**1.5 for n in sizes}) == pytest.approx(1.5)
    assert growing.exponent({n: 7 + 0.1 * n for n in sizes}) < 0.96
    # Least squares: with x at -1, 0 and 1 times ln 2, the slope is half of ln 4 / ln 2, whatever lies in the middle.
    assert growing.exponent({500: 1.0, 1_000: 9.0, 2_000: 4.0}) == pytest.approx(1)
    assert growing.exponent({500: 1.0}) is None
    assert growing.exponent({500: 0.0, 1_000: 2.0}) is None


def test_folders_of_any_size_have_distinct_files_and_shares_of_each_class(tmp_path):
    for split, number in (("train", 8), ("validate", 2)):
        make_classes(tmp_path / "data" / split, cat=number, dog=number)
    before = tree(tmp_path / "data")
    assert growing.fewest(tmp_path / "data") == 4
    folders = growing.lay_out(tmp_path / "data", tmp_path / "grown", [50, 4, 10])
    assert list(folders) == [4, 10, 50]
    for size, folder in folders.items():
        assert len(set(tree(folder).values())) == len(tree(folder)) == size
        assert sorted({path.parent.name for path in folder.rglob("*.png")}) == ["cat", "dog"]
    assert len(list((folders[4] / "validate").rglob("*.png"))) == 2
    assert len(list((folders[10] / "train").rglob("*.png"))) == 8 - 2 + 2
    assert set(tree(folders[10]).items()) < set(tree(folders[50]).items())
    again = sorted(folders[50].rglob("*.png"))
    pixels = {np.asarray(Image.open(path)).tobytes() for path in again}
    assert len(pixels) == len({np.asarray(Image.open(p)).tobytes() for p in (tmp_path / "data").rglob("*.png")})
    assert tree(tmp_path / "data") == before


def test_a_folder_is_restored(contest, tmp_path):
    contest.run("vggft", contest.task("features"))
    (contest.work("vggft") / "deep").mkdir()
    (contest.work("vggft") / "deep" / "index").write_text("1")
    before = tree(contest.work("vggft"))
    keep(contest, "vggft", tmp_path / "saved")
    (contest.work("vggft") / "deep" / "index").write_text("2")
    (contest.work("vggft") / "new").write_text("")
    (contest.work("vggft") / "features-1").unlink()
    for _ in range(2):
        restore(contest, "vggft", tmp_path / "saved")
        assert tree(contest.work("vggft")) == before


def test_second_runs_see_the_change_and_the_first_runs_features(contest):
    data = tree(contest.data)
    answer = changes.ask(contest)
    assert tree(contest.data) == data
    first, timed = contest.seen[:2], contest.seen[3::2]
    assert [name for name, _, _ in first] == ["vggft", "keras_npy"]
    assert Counter(name for name, _, _ in timed) == {"vggft": 2 * 3, "keras_npy": 2 * 3}  # two rounds of three changes
    assert all(files == data for _, _, files in (*first, *contest.seen[2::2]))
    for name, work, _ in timed:
        numbers = [int(file.partition("-")[2]) for file in work]
        assert min(numbers) == 1 + (name == "keras_npy") and len(numbers) == 2  # the first run's, and the untimed one's
    nothing, added, moved = ([files for _, _, files in timed[i : i + 4]] for i in (0, 4, 8))
    assert nothing == [data] * 4
    new = hashlib.sha256(b"another picture").hexdigest()
    assert added == [{**data, "train/cat/added.png": new}] * 4
    assert all(sorted(files.values()) == sorted(data.values()) for files in moved)
    assert all(len(data.keys() - files.keys()) == 2 for files in moved)  # a tenth of 20
    assert all(len([file for file in files if file.startswith("validate/")]) == 8 for files in moved)
    assert "| vggft | 3.8 | 3.8 (3.8–3.8) | 1.00 (1.00–1.00) | 3.9 (3.9–3.9) |" in answer.text
    assert answer.numbers["labels"]["keras_npy"][1]["seconds"] == 3.8


def engine_alone(data, times, wanted):
    return {"name": wanted, "pictures": 64, "rates": [5.0, 10.0, 4.0]}


def test_shares_of_the_limit(contest, monkeypatch):
    monkeypatch.setattr(rates, "products", lambda times: {"a": [50.0, 100.0], "b": [20.0, 30.0]})
    monkeypatch.setattr(rates, "engine", engine_alone)
    monkeypatch.setenv(rates.CORETYPE, "Haswell")
    answer = limit.ask(contest)
    # 28 images in 3.8 s, each of 2 · 15.35 GFLOP: 226 of 100 GFLOP/s
    assert "| keras_npy: features | 7.4 (7.4–7.4) | 15.35 | 226.2 (226.2–226.2) | 226 (226–226) % |" in answer.text
    assert (
        "| vggft's engine winograd alone | 5.0 (4.0–10.0) | 15.35 | 153.5 (122.8–306.9) | 153 (123–307) % |"
        in answer.text
    )
    assert "100 GFLOP/s (a). At that rate, direct convolutions would compute 3.3 images/s." in answer.text
    assert "OPENBLAS_CORETYPE is Haswell for the contenders" in answer.text


def test_growth_shows_the_start_and_fits_without_it(contest, monkeypatch):
    monkeypatch.setattr(pipeline, "prepare", lambda *arguments: None)
    answer = growth.ask(contest)
    # 1 + n/10 s: 1.4, 5 and 9 s for 4, 40 and 80 images; log₂ (9 / 5) = 0.85
    assert "| vggft: features | 4 | 1.4 (1.4–1.4) | 2.8 (2.8–2.8) | 1.00 GB | 0.0 MB |" in answer.text
    assert "| keras_npy: features | 80 | 9.0 (9.0–9.0) | 18.0 (18.0–18.0) | 1.00 GB | 0.1 MB |" in answer.text
    assert "| keras_npy: features | 0.85 (1.00) | 0.85 (1.00) | 0.00 | 1.00 (1.00) |" in answer.text
    assert list(answer.numbers["prepared: features"]) == ["4", "20", "40"]
    assert not contest.missing
    assert not list(contest.place.glob("growth-*"))


def test_epochs_start_from_the_features_and_count_after_the_first(contest, monkeypatch):
    monkeypatch.setattr(pipeline, "prepare", lambda *arguments: None)
    monkeypatch.setattr(rates, "products", lambda times: {"a": [100.0]})
    monkeypatch.setattr(rates, "engine", engine_alone)
    contest.only = ["vggft", "torchvision_vgg16"]
    contest.work("torchvision_vgg16").mkdir(parents=True)
    (contest.work("torchvision_vgg16") / "tuned").write_text("of another question")
    grown = growth.ask(contest)
    assert "| vggft: an epoch | 80 | 8.0 (8.0–8.0) | 0.0 (0.0–0.0) |" in grown.text
    assert "| vggft: an epoch | 1.00 | – | – | – |" in grown.text
    limited = limit.ask(contest)
    # 28 images in 2.8 s; 20 of them train: 3 layers forward for all, and 5 times one layer backward for these
    each = (3 + 5 * 20 / 28) * BLOCK5 / 1e9
    assert f"| vggft: an epoch from cache | 10.0 (10.0–10.0) | {each:.2f} | {20 * each:.1f} (" in limited.text
    each = (VGG16_TOTAL + 5 * 20 / 28 * BLOCK5) / 1e9
    assert (
        f"| torchvision_vgg16: an epoch from pixels | 10.0 (10.0–10.0) | {each:.2f} | {20 * each:.1f} (" in limited.text
    )


def test_fastai_leaves_out_an_incomplete_batch(published):
    row = limit._tuned("fastai_fine_tune", [10.0], published, train=70, validate=6)
    assert row.rates == [7]  # 64 + 6 images in 10 s
    assert row.multiply_adds == VGG16_TOTAL + 5 * 64 / 70 * BLOCK5
    assert limit._tuned("fastai_fine_tune", [10.0], published, train=14, validate=6).rates == [2]  # a smaller batch
    assert limit._tuned("torchvision_vgg16", [10.0], published, train=70, validate=6).rates == [7.6]


@pytest.mark.parametrize(("sizes", "files", "option"), [([4, 40], [20], "--sizes"), ([40], [4, 20], "--files")])
def test_growth_needs_an_image_of_each_class(contest, sizes, files, option):
    contest.sizes, contest.files = sizes, files
    with pytest.raises(SystemExit, match=f"{option} 4: expected more than 4 images"):
        growth.check(contest)


@pytest.mark.parametrize(
    ("smallest", "expected"), [(5, ["4", "5", "10"]), (4, ["4", "8", "16"]), (1, ["4", "5", "10"])]
)
def test_quick_growth_works_with_many_classes(contest, monkeypatch, smallest, expected):
    monkeypatch.setattr(pipeline, "prepare", lambda *arguments: None)
    contest.quick, contest.sizes, contest.files = True, [smallest, 2 * smallest], [4 * smallest]
    growth.check(contest)
    assert list(growth.ask(contest).numbers["vggft: features"]) == expected


def test_growth_needs_free_disk_space(contest, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 80 * 10**8))
    contest.files = [10_000, 100_000]  # of 76 kB of features each, as was measured, and 4 kB
    with pytest.raises(SystemExit, match=r"--files 100000: about 8.0 GB needed in .*, 8.0 GB free"):
        growth.check(contest)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A contest on four small pictures in which only `prepared` takes part, in a process of its own."""
    monkeypatch.chdir(ROOT)
    for folder in ("data/train", "data/validate", "unseen", "weights"):
        make_classes(tmp_path / folder, cat=1, dog=1)
    places = (tmp_path / name for name in ("data", "unseen", "weights", "work"))
    return Contest(*places, rounds=1, quick=True, only=["prepared"], sizes=[8], files=[8, 16])


@pytest.mark.slow
def test_growth_without_contenders(alone):
    runs = growth.ask(alone).numbers["prepared: features"]
    assert [runs[size][0]["disk"] > 0 for size in ("4", "8", "16")] == [True] * 3
    assert runs["16"][0]["processor"] > 0
    assert not alone.missing


@pytest.mark.slow
def test_the_limit_without_contenders(alone):
    measured = limit.ask(alone).numbers
    assert [len(each) for each in measured["products"]] == [8, 8]
    assert measured["engine"]["rates"][0] > 0


def test_the_command_asks_with_its_options(tmp_path, monkeypatch):
    asked, file = [], tmp_path / "found.json"

    def ask(contest):
        asked.append(contest)
        return Answer("title", "text", {"a": 1})

    monkeypatch.setitem(command.QUESTIONS, "growth", ask)
    monkeypatch.setattr(growth, "check", asked.append)
    monkeypatch.setattr(command, "subprocess", SimpleNamespace(run=lambda *_, **__: SimpleNamespace(returncode=0)))
    folder = make_classes(tmp_path / "pictures", cat=4, dog=4)
    words = [folder, "--quick", "--questions", "growth", "--contenders", "prepared", "--json", file]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, words)])
    command.main()
    checked, contest = asked
    assert checked is contest
    assert (contest.sizes, contest.files) == (command.QUICK["sizes"], command.QUICK["files"])
    assert (contest.rounds, contest.quick, contest.only) == (1, True, ["prepared"])
    assert json.loads(file.read_text())["answers"] == {"growth": {"title": "title", "text": "text", "a": 1}}
