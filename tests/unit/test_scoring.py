"""The pipeline from files to scores: order, overlap, memory, and unreadable files."""

import hashlib
import threading
import time

import numpy as np
import pytest

from featurize.pixels.images import Unreadable
from vggft.prediction import inputs
from vggft.prediction.scoring import File, PixelScorer, scored


def numbered(folder, n):
    for i in range(n):
        (folder / f"{i:03}").write_text(str(i))
    return list(inputs.below(folder))


def number(data):
    return np.full((1, 1, 3), int(data), np.uint8)


def halves(pictures):
    p = pictures[:, 0, 0, :1] / 255
    return np.concatenate([1 - p, p], axis=1)


def test_each_file_keeps_its_own_scores(tmp_path):
    files = numbered(tmp_path, 11)
    (tmp_path / "004").write_text("no number")
    files[6] = File(files[6].path, "a link back to a folder above it")
    files.append(File(tmp_path / "gone"))

    def decode(data):
        if data == b"no number":
            raise Unreadable("no number")
        return number(data)

    found = list(scored(files, decode, PixelScorer(halves, 3)))
    assert [one.path for one in found] == [file.path for file in files]
    reasons = {i: one.reason for i, one in enumerate(found) if one.probabilities is None}
    assert set(reasons) == {4, 6, 11}
    assert reasons[4] == "no number"
    assert reasons[6] == "a link back to a folder above it"
    assert "No such file" in reasons[11]
    for i in set(range(12)) - set(reasons):
        assert found[i].probabilities[1] == i / 255
        assert found[i].digest == hashlib.sha256(str(i).encode()).hexdigest()


def test_the_next_batch_is_decoded_while_the_model_works_and_no_more(tmp_path):
    files, size = numbered(tmp_path, 20), 4
    begun, taken = [], []
    next_one = threading.Event()

    def decode(data):
        begun.append(int(data))
        if int(data) == size:
            next_one.set()
        return number(data)

    def score(pictures):
        assert next_one.wait(10), "nothing is decoded while the model works"
        calls.append(len(pictures))
        assert len(begun) <= (len(calls) + 1) * size
        assert len(taken) <= (len(calls) + 1) * size
        return halves(pictures)

    def walk():
        for file in files:
            taken.append(file)
            yield file

    calls: list[int] = []
    assert len(list(scored(walk(), decode, PixelScorer(score, size)))) == 20
    assert calls == [4, 4, 4, 4, 4]


def test_closed_early_it_leaves_no_thread(tmp_path):
    before = threading.active_count()
    found = scored(numbered(tmp_path, 20), number, PixelScorer(halves, 2))
    next(found)
    found.close()
    deadline = time.monotonic() + 10  # they end by themselves, each after the file that it reads
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers(tmp_path, bad):
    def score(pictures):
        p = halves(pictures)
        p[1] = bad
        return p

    found = list(scored(numbered(tmp_path, 3), number, PixelScorer(score, 3)))
    assert [one.reason for one in found] == ["", "its features are not finite in float16", ""]
