"""Images in two splits or under two labels, and suspect labels."""

import numpy as np
import pytest
from small_features import features

from featurize.data.dataset import Sample
from heads import leaks, suspects
from heads.features import Features
from heads.leaks import THRESHOLD


def test_exact_copies():
    rows = [
        Sample("a/1.png", "a", "train", "g", "one"),
        Sample("b/1.png", "b", "train", "g", "one"),
        Sample("a/2.png", "a", "train", "h", "two"),
        Sample("a/3.png", "a", "validate", "h", "two", "duplicate"),
        Sample("a/4.png", "a", "train", "i", "three"),
        Sample("a/5.png", "a", "train", "i", "three"),
        Sample("a/6.png", "a", "train", "j", "four"),
        Sample("b/6.png", "b", "test", "j", "four"),
    ]
    found = [(leak.kind, leak.paths, leak.similarity) for leak in leaks.exact(rows)]
    assert found == [
        ("same-bytes-two-labels", ("a/1.png", "b/1.png"), 1.0),
        ("same-bytes-two-splits", ("a/2.png", "a/3.png"), 1.0),
        ("same-bytes-two-labels", ("a/6.png", "b/6.png"), 1.0),
        ("same-bytes-two-splits", ("a/6.png", "b/6.png"), 1.0),
    ]


def row(angle):
    """A feature vector whose cosine similarity to angle 0 is cos(angle), whatever its length."""
    return np.array([np.cos(angle), np.sin(angle), 0], np.float32) * 17


def test_near_duplicates_across_splits(monkeypatch):
    monkeypatch.setattr(leaks, "_ROWS_AT_ONCE", 2)
    just, too_far = np.arccos(THRESHOLD + 1e-4), np.arccos(THRESHOLD - 1e-4)
    rows = [
        Sample("a/0.png", "a", "train", "", "0"),
        Sample("a/1.png", "a", "train", "", "1"),  # near the first, but on the same side
        Sample("b/2.png", "b", "validate", "", "2"),
        Sample("b/3.png", "b", "validate", "", "3"),
        Sample("b/4.png", "b", "test", "", "4"),
        Sample("b/5.png", "b", "test", "", "0"),  # a copy: not this function's
        Sample("b/6.png", "b", "validate", "", "6"),
        Sample("b/7.png", "b", "validate", "", "7"),  # near the next one, and both on one side
        Sample("b/8.png", "b", "validate", "", "8"),
    ]
    angles = [0, 0.01, 0.01 + just, -too_far, 0.01 + just, 0]
    pooled = np.stack([*map(row, angles), np.zeros(3), row(2), row(2.01)])
    found = leaks.near(rows, pooled.astype(np.float32))
    assert {leak.kind for leak in found} == {"near-duplicate"}
    assert [leak.paths for leak in found] == [
        ("b/2.png", "b/4.png"),
        ("a/1.png", "b/5.png"),  # the copy of 0 is near 1 as well
        ("a/1.png", "b/2.png"),
    ]
    assert found[2].similarity == pytest.approx(THRESHOLD + 1e-4, abs=1e-5)
    assert leaks.near(rows[:2], pooled[:2].astype(np.float32)) == []


def test_near_duplicates_stay_in_one_fold(monkeypatch):
    monkeypatch.setattr(leaks, "_ROWS_AT_ONCE", 2)
    step = np.arccos(THRESHOLD + 1e-4)
    pooled = np.stack([row(0), row(step), row(2 * step), row(3), row(3), row(1.5), row(1.5 + 2 * step)])
    rows = [Sample(f"{i}.png", "a", "train", group, str(i)) for i, group in enumerate("abcdefc")]
    merged = leaks.together(Features({"avg": pooled.astype(np.float32)}, np.zeros(7, np.int64), rows)).groups
    assert len({merged[i] for i in (0, 1, 2, 6)}) == 1  # a chain, and 6 is of the same declared group as 2
    assert merged[3] == merged[4]
    assert len(set(merged)) == 3
    data = features(20, 2)
    spread = Features({"avg": np.eye(20, dtype=np.float32)}, data.targets, data.samples)
    assert leaks.together(spread).groups == data.groups


def test_suspects():
    classes = ["a", "b", "c"]
    rows = [Sample(f"{i}.png", label, "train", "", str(i)) for i, label in enumerate("aabc")]
    certain, doubtful, fine = [0.02, 0.08, 0.9], [0.3, 0.4, 0.3], [0.8, 0.1, 0.1]
    predictions = [
        np.array([certain, doubtful, [0.1, 0.8, 0.1], fine]),
        np.array([certain, doubtful, [0.8, 0.1, 0.1], fine]),
        np.array([certain, doubtful, [0.1, 0.8, 0.1], fine]),
        np.array([certain, fine, [0.1, 0.8, 0.1], fine]),
    ]
    found = [suspect.as_json() for suspect in suspects.find(rows, classes, predictions)]
    assert [(s["path"], s["label"], s["predicted"]) for s in found] == [
        ("0.png", "a", "c"),
        ("3.png", "c", "a"),
        ("1.png", "a", "b"),  # three heads of four
    ]
    assert [s["score"] for s in found] == pytest.approx([0.98, 0.9, 1 - (3 * 0.3 + 0.8) / 4])
