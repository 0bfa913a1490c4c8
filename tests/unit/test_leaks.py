"""Images in two splits or under two labels, and suspect labels."""

from dataclasses import replace

import numpy as np
import pytest

from featurize.data.dataset import Sample
from heads import leaks, near_duplicates, suspects
from heads.features import Features


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


def pictures(n, spread, seed=0):
    """Average-pooled features of n different images (n, 64); the smaller the spread, the more alike they are."""
    rng = np.random.default_rng(seed)
    return (10 + spread * rng.random((n, 64))) ** 2


def samples_of(labels, splits=None, groups=None):
    splits = splits or ["train"] * len(labels)
    return [
        Sample(f"{label}/{i}.png", label, split, groups[i] if groups else str(i), str(i))
        for i, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]


def changed(pooled, share, seed=1):
    """Copies whose roots differ by a share of what differs between images."""
    roots = np.sqrt(pooled)
    other = np.random.default_rng(seed).permuted(roots, axis=0)
    return (roots + share * (other - roots)) ** 2


def merged(pooled, samples):
    targets = np.unique([sample.label for sample in samples], return_inverse=True)[1]
    features, grouping = near_duplicates.together(Features({"avg": pooled.astype(np.float32)}, targets, samples))
    return features.groups, grouping


@pytest.mark.parametrize("spread", [0.2, 2, 30], ids=["scans", "digits", "photographs"])
def test_copies_are_found_and_different_images_are_not_however_alike_a_data_set_is(spread):
    originals = pictures(40, spread)
    groups, grouping = merged(originals, samples_of("ab" * 20))
    assert len(set(groups)) == 40
    assert grouping.sentences() == []
    pooled = np.concatenate([originals, changed(originals[:8], 0.3)])
    groups, grouping = merged(pooled, samples_of("ab" * 24))
    assert groups[:8] == groups[40:]
    assert len(set(groups)) == grouping.groups == 40
    assert grouping.joined == 16
    (sentence,) = grouping.sentences()
    assert "16 of 48 images are nearly identical to another one" in sentence
    assert "40 groups" in sentence


def test_a_class_of_similar_images_beside_one_of_different_images():
    """What is typical of one class says nothing about another."""
    pooled = np.concatenate([pictures(20, 0.2), pictures(20, 30, seed=2)])
    groups, _ = merged(pooled, samples_of("a" * 20 + "b" * 20))
    assert len(set(groups)) == 40


@pytest.mark.parametrize(("copies", "others"), [(10, 15), (13, 12), (15, 10), (20, 5), (6, 3)])
def test_copies_are_found_where_they_are_most_of_a_class(copies, others):
    originals = pictures(1 + others + 25, 20)
    noise = np.random.default_rng(4).normal(0, 0.02, (copies, 64))
    pooled = np.concatenate([originals[:1] * (1 + noise), originals[1:]])
    samples = samples_of("a" * (copies + others) + "b" * 25)
    assert len(near_duplicates.pairs(samples, pooled)) == copies * (copies - 1) // 2
    groups, grouping = merged(pooled, samples)
    assert len(set(groups[:copies])) == 1
    assert grouping.joined == copies
    assert grouping.groups == 1 + others + 25


def test_odd_images_do_not_make_copies_of_a_class_of_similar_images():
    """Scans in both classes, and some photographs in one of them."""
    pooled = np.concatenate([pictures(35, 0.2), pictures(5, 30, seed=2)])
    groups, _ = merged(pooled, samples_of("b" * 20 + "a" * 20))
    assert len(set(groups)) == 40


def test_groups_do_not_chain():
    """A slow pan: each frame is a near-duplicate of the next one, and the first and the last are different."""
    first, last = pictures(2, 20, seed=3)
    weights = np.linspace(0, 1, 40)[:, None]
    frames = ((1 - weights) * np.sqrt(first) + weights * np.sqrt(last)) ** 2
    groups, _ = merged(np.concatenate([frames, pictures(40, 20)]), samples_of("a" * 80))
    assert groups[0] == groups[1]
    assert groups[0] != groups[39]
    sizes = [groups.count(group) for group in dict.fromkeys(groups[:40])]
    assert min(sizes) >= 2
    assert max(sizes) <= 30


def test_groups_that_were_declared_stay_together():
    groups, grouping = merged(pictures(8, 20), samples_of("abababab", groups=list("xxyyzzzz")))
    assert groups == list("xxyyzzzz")
    assert grouping.joined == 0
    pooled = pictures(12, 20)
    pooled[3] = changed(pooled, 0.1)[0]
    pooled[3] = (0.95 * np.sqrt(pooled[0]) + 0.05 * np.sqrt(pooled[5])) ** 2
    groups, grouping = merged(pooled, samples_of("a" * 12, groups=list("xxyycdefghij")))
    assert len(set(groups[:4])) == 1  # 3 is a copy of 0, and their groups become one
    assert grouping.joined == 2


def test_near_duplicates_under_two_labels_are_reported():
    pooled = pictures(30, 20)
    pooled[1] = (0.95 * np.sqrt(pooled[0]) + 0.05 * np.sqrt(pooled[5])) ** 2
    samples = samples_of("ab" * 15)
    _, grouping = merged(pooled, samples)
    assert grouping.two_labels == [["a/0.png", "b/1.png"]]
    assert grouping.sentences() == ["near-duplicates under two labels, kept in one group: a/0.png, b/1.png"]
    (leak,) = leaks.near(samples, pooled)
    assert (leak.kind, leak.paths) == ("near-duplicate-two-labels", ("a/0.png", "b/1.png"))


def test_near_duplicates_across_splits(monkeypatch):
    monkeypatch.setattr(near_duplicates, "_ROWS_AT_ONCE", 7)
    originals = pictures(30, 20)
    near, nearer = changed(originals, 0.25), changed(originals, 0.1)
    pooled = np.concatenate([originals, near[:4], nearer[:1]])
    splits = ["train"] * 30 + ["validate", "train", "test", "test", "test"]
    samples = samples_of("a" * 35, splits)
    samples[3] = replace(samples[3], digest="33")  # a copy: left to `exact`
    found = leaks.near(samples, pooled)
    assert {leak.kind for leak in found} == {"near-duplicate"}
    assert [leak.paths for leak in found[:1]] == [("a/0.png", "a/34.png")]
    assert {leak.paths for leak in found} == {("a/0.png", "a/30.png"), ("a/2.png", "a/32.png"), ("a/0.png", "a/34.png")}
    assert leaks.near(samples[:1], pooled[:1]) == []


def test_images_without_any_feature_are_not_alike():
    groups, _ = merged(np.zeros((6, 8)), samples_of("aaabbb"))
    assert len(set(groups)) == 6


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
