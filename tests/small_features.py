"""Synthetic features, for tests where the network's numbers do not matter."""

from contextlib import contextmanager

import numpy as np

from featurize.data.dataset import Sample
from heads.features import Features
from heads.head import pool

POOLINGS = ("flatten", "avg", "max", "avgmax")


def samples(n, split="train", labels=("a", "b"), groups=None):
    return [
        Sample(f"{labels[i % len(labels)]}/{split}{i}.png", labels[i % len(labels)], split, g, f"{split}{i}")
        for i, g in zip(range(n), groups or [f"{split}{i}" for i in range(n)], strict=True)
    ]


def maps(n, classes, seed=0):
    """Feature maps (n, 3, 3, 8) whose mean tells the class, with noise, and the classes."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    values = rng.random((n, 3, 3, 8)).astype(np.float16) * 40
    values[np.arange(n), :, :, targets] += 15
    return values, targets.astype(np.int64)


def features(n, classes, seed=0, split="train", groups=None):
    values, targets = maps(n, classes, seed)
    pooled = {p: pool(values, p) for p in POOLINGS}
    pooled["flatten"] = pooled["flatten"].astype(np.float16)
    return Features(pooled, targets, samples(n, split, [str(c) for c in range(classes)], groups))


@contextmanager
def no_progress(what, total, unit):
    yield lambda done: None
