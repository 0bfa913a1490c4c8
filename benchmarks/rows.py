"""What the index and the manifest of many images cost: time, and the peak memory of a new process for each action.

    python -m benchmarks.rows [--rows 1000000 10000000] [--rounds 3] [--folder FOLDER] [--json FILE]

Index and manifest are files as vggft writes them, of random digests: two layers in shards of 512 rows. The shards are empty
files, which is enough where only their names and stamps matter. The files of 10 million rows take 4 GB. Each action runs once
unmeasured, so that its files are in the page cache; medians of the rounds are printed: seconds, and processor seconds in
parentheses, which other programs on the machine do not change much. The first opening of a manifest, which takes a minute or
more, is measured once.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from featurize.backbone.vgg16 import VGG16
from featurize.cache.feature_cache import INDEX_FILE, FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.cache.index import Index
from featurize.data import manifest
from featurize.data.dataset import COLUMNS
from featurize.disk import checked, durable, forms
from featurize.disk.digests import DIGEST, unpack
from featurize.disk.stamp import Stamp
from featurize.options.choices import SHARD_ROWS
from vggft.workspace.workspace import SCHEMA, Settings, Workspace

LAYERS = ("block4_pool", "block5_pool")
CLASSES = tuple(f"class_{i}" for i in range(10))
FINGERPRINT = Fingerprint.of(VGG16)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the files here, and use those of last time")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    parser.add_argument("--action", choices=ACTIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.action:
        print(json.dumps(measured(ACTIONS[options.action](Workspace(options.folder, VGG16)))))
        return
    found: dict[str, Any] = {"machine": machine(), "rounds": options.rounds, "rows": {}}
    with tempfile.TemporaryDirectory(prefix="vggft-rows-") as temporary:
        for rows in options.rows:
            place = (options.folder or Path(temporary)) / f"rows-{rows}"
            if not (place / "workspace.json").exists():
                making = multiprocessing.get_context("spawn").Process(target=make, args=(place, rows))
                making.start()  # in a process of its own: the peak of this one would be the least of all that it starts
                making.join()
            found["rows"][rows] = {action: in_new_processes(action, place, options.rounds) for action in ACTIONS}
            found["rows"][rows]["sizes"] = {
                name: next(place.rglob(name)).stat().st_size for name in (INDEX_FILE, "manifest.csv", manifest.DERIVED)
            }
    if options.json:
        forms.write_json(options.json, found)
    print(table(found))


def make(folder: Path, rows: int) -> None:
    """Write a workspace with an index and a manifest of some rows."""
    rng = np.random.default_rng(0)
    digests = np.frombuffer(rng.bytes(rows * DIGEST.itemsize), DIGEST)
    cache, index = folder / "cache" / FINGERPRINT.key, Index()
    (cache / "shards").mkdir(parents=True)
    for first in range(0, rows, SHARD_ROWS):
        path = cache / "shards" / f"{rng.bytes(32).hex()}.h5"
        path.touch()
        index.add(path.stem, Stamp.of(path), LAYERS, digests[first : first + SHARD_ROWS])
    index.save(cache / INDEX_FILE)

    def lines() -> Iterator[tuple[Any, ...]]:
        for first in range(0, rows, SHARD_ROWS):
            for i, digest in enumerate(unpack(digests[first : first + SHARD_ROWS]), first):
                label, split = CLASSES[i * len(CLASSES) // rows], "validate" if i % 5 == 0 else "train"
                path = f"{label}/photograph-{i:08}.jpg"
                yield path, label, split, digest, digest, "ok", "", 100_000 + i, 1_700_000_000_000_000_000 + i, i

    forms.write_csv(folder / "manifest.csv", COLUMNS, lines())
    settings = Settings(
        str(folder / "data"),
        CLASSES,
        FINGERPRINT,
        manifest_sha256=durable.sha256(folder / "manifest.csv"),
        layers=LAYERS,
    )
    checked.write_checked(
        folder, {"workspace.json": forms.json_bytes({"schema": SCHEMA, **asdict(settings)})}, present=["manifest.csv"]
    )


Action = Callable[[], object]


def nothing(workspace: Workspace) -> Action:
    """Return an action that does nothing: what importing vggft takes."""
    return lambda: None


def open_index(workspace: Workspace) -> Action:
    """Return an action that opens the cache."""
    return lambda: opened(workspace)


def opened(workspace: Workspace) -> FeatureCache:
    """Open the cache; the stored index must be used."""
    cache = workspace.cache(FINGERPRINT)
    if cache.damaged:
        sys.exit("the index was rebuilt: something else than opening it was measured")
    return cache


def locate(number: int | None) -> Callable[[Workspace], Action]:
    """Return an action that looks some images up, or all, in random order."""

    def prepare(workspace: Workspace) -> Action:
        cache = opened(workspace)
        digests = cache.positions.rows(LAYERS[0]).digest
        asked = digests[np.random.default_rng(1).permutation(len(digests))[:number]]
        return lambda: cache.positions.locate(LAYERS[1], asked)

    return prepare


def save_index(workspace: Workspace) -> Action:
    """Return an action that adds one shard to the index and saves it, under another name."""
    cache = opened(workspace)
    digests = np.frombuffer(np.random.default_rng(2).bytes(SHARD_ROWS * DIGEST.itemsize), DIGEST)

    def action() -> None:
        cache.positions.add("f" * 64, Stamp(0, 0, 0), LAYERS, digests)
        cache.positions.save(cache.folder / "saved.h5")

    return action


def first_opening(workspace: Workspace) -> Action:
    """Return an action that opens the manifest without the columns beside it, and writes them."""
    (workspace.root / manifest.DERIVED).unlink(missing_ok=True)
    return lambda: workspace.dataset


def open_manifest(workspace: Workspace) -> Action:
    """Return an action that opens the manifest."""
    return lambda: workspace.dataset


def identity(workspace: Workspace) -> Action:
    """Return an action that computes the identity of the images, which is stored otherwise."""
    dataset = replace(workspace.dataset, known_identity=None)
    return lambda: dataset.identity


def split_counts(workspace: Workspace) -> Action:
    """Return an action that opens the manifest and counts the images of each split."""
    return lambda: workspace.dataset.split_counts


def everything_cached(workspace: Workspace) -> Action:
    """Return an action that opens manifest and cache, and asks whether any image lacks a layer."""

    def action() -> None:
        if opened(workspace).missing(LAYERS, workspace.dataset.accepted().digests):
            sys.exit("rows are missing")

    return action


ACTIONS: dict[str, Callable[[Workspace], Action]] = {
    "nothing": nothing,
    "open the index": open_index,
    "locate 1,000 rows": locate(1_000),
    "locate all rows": locate(None),
    "save after one more shard": save_index,
    "open the manifest the first time": first_opening,
    "open the manifest": open_manifest,
    "identity": identity,
    "open the manifest, split counts": split_counts,
    "open both, find missing rows": everything_cached,
}


def measured(action: Action) -> dict[str, float]:
    """Run an action; return its seconds, and the peak memory of this process in bytes."""
    began, used = time.perf_counter(), time.process_time()
    action()
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "processor": processor, "peak": peak}


def in_new_processes(action: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Run an action in new processes; return the medians and all seconds."""
    command = [sys.executable, "-m", "benchmarks.rows", "--action", action, "--folder", str(folder)]
    once = ACTIONS[action] is first_opening
    found = [json.loads(subprocess.check_output(command)) for _ in range(1 if once else rounds + 1)][not once :]
    print(folder.name, action, *(f"{one['seconds']:.2f} ({one['processor']:.2f}) s" for one in found), file=sys.stderr)
    medians = {name: statistics.median(one[name] for one in found) for name in ("seconds", "processor", "peak")}
    return {**medians, "all_seconds": [one["seconds"] for one in found]}


def table(found: dict[str, Any]) -> str:
    """Return what was measured as a table in Markdown."""
    numbers = list(found["rows"])
    heads = [f"{n:,} rows" for n in numbers]
    lines = [f"{found['machine']}", "", f"| | {' | | '.join(heads)} | |", "|---|" + "--:|" * 2 * len(numbers)]
    for action in ACTIONS:
        medians = [found["rows"][n][action] for n in numbers]
        cells = [f"{m['seconds']:.2f} ({m['processor']:.2f}) s | {m['peak'] / 1e6:.0f} MB" for m in medians]
        lines.append(f"| {action} | {' | '.join(cells)} |")
    for name in found["rows"][numbers[0]]["sizes"]:
        sizes = [f"{found['rows'][n]['sizes'][name] / 1e6:.1f} MB |" for n in numbers]
        lines.append(f"| `{name}` | {' | '.join(sizes)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
