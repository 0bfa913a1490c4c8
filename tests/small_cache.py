"""A small cache of several shards (fixtures `in_shards` and `base`), and helpers to inspect and damage it."""

from pathlib import Path

import h5py
import numpy as np
from conftest import strict_json, vggft
from tiny import TINY

from vggft.workspace.workspace import Workspace

TWO = ["block2_pool", "block3_pool"]


def featurize(base, *arguments):
    done = vggft("featurize", base / "data", "-w", base / "work", "--json", *arguments)
    assert done.returncode in (0, 3), done.stderr
    return {**strict_json(done.stdout), "said": done.stderr}


def verify(base):
    done = vggft("cache", "verify", "-w", base / "work", "--json")
    found = strict_json(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1)
    return found


def layers(base, names=tuple(TWO)):
    workspace = Workspace(base / "work", TINY)
    digests = sorted({s.digest for s in workspace.dataset.accepted()})
    return {name: workspace.cache().read(name, digests) for name in names}


def files(base):
    return sorted((base / "work" / "cache").glob("*/shards/*.h5"))


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def damage(kind, path: Path) -> None:
    if kind == "deleted":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        data = bytearray(path.read_bytes())
        data[int(kind * len(data))] ^= 1
        path.write_bytes(data)


def shard_with(base, layer):
    return next(path for path in files(base) if layer in h5py.File(path))
