"""Images a second of the engines on this machine: measured once, kept in the user's cache folder.

Which engine is the fastest depends on the processor, the libraries, and the environment variables that they read. The file
`vggft/engines.json` in the user's cache folder (`$XDG_CACHE_HOME` on Linux) has an entry for each such state. It can be deleted
at any time: engines are then measured again.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from featurize.backbone.architecture import Architecture
from featurize.disk import checked, forms
from featurize.engines.engine import Engine
from featurize.errors import VggftError
from featurize.options import Option, records
from featurize.process import cores

ROUNDS, SECONDS = 3, 2.0  # an engine runs in turn with the others, this often and about this long in all

PACKAGES = {"winograd": "numba", "mnn": "MNN"}  # engine → the package that it needs
_VARIABLES = ("OMP_", "NUMBA_")  # prefixes of names that these libraries read
_ENTRIES = 50  # states that are kept, the latest ones

Rates = Mapping[str, float]


@dataclass(frozen=True)
class _Entry:
    """What was measured in a state of the machine."""

    architecture: str
    processor: str
    cores: int
    versions: Mapping[str, str]
    environment: Mapping[str, str]
    date: str
    images_per_second: Mapping[str, Annotated[float, Option(above=0)]]


@dataclass(frozen=True)
class _File:
    entries: Mapping[str, _Entry]


def known(architecture: Architecture, names: Sequence[str]) -> Rates | None:
    """Return name → images/s as measured on this machine in its present state, or None if any of the engines was not."""
    entry = _read().get(_key(architecture))
    rates = entry.images_per_second if entry else {}
    return {name: rates[name] for name in names} if all(name in rates for name in names) else None


def measure(engines: Mapping[str, Engine], architecture: Architecture, size: int) -> Rates:
    """Measure engines in turn, on blank pictures, and keep the result. Other load slows some rounds: the fastest one counts.

    Args:
        engines: name → engine.
        architecture: whose cached layers they compute.
        size: side of the pictures.
    """
    blank = {name: np.zeros((engine.trial, size, size, 3), np.uint8) for name, engine in engines.items()}
    for name, engine in engines.items():  # once to warm up
        engine(blank[name], architecture.cached)
    once = {name: _seconds(engine, blank[name], architecture.cached) for name, engine in engines.items()}
    fastest: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            pictures = np.concatenate([blank[name]] * max(1, int(SECONDS / ROUNDS / once[name])))
            seconds = _seconds(engine, pictures, architecture.cached)
            fastest[name] = max(fastest.get(name, 0), len(pictures) / seconds)
    _keep(architecture, fastest)
    return fastest


def _seconds(engine: Engine, pictures: NDArray[np.uint8], layers: Sequence[str]) -> float:
    began = time.perf_counter()
    engine(pictures, layers)
    return time.perf_counter() - began


def _state() -> dict[str, Any]:
    """Return what the speed of an engine depends on, as far as it can change between two runs on a machine."""
    packages = ("vggft", "llvmlite", *PACKAGES.values())
    versions = {d.name: d.version for name in packages for d in importlib.metadata.distributions(name=name)}
    variables = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
    return {"processor": _processor(), "cores": cores.usable(), "versions": versions, "environment": variables}


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _key(architecture: Architecture) -> str:
    state = json.dumps([architecture.name, _state()], sort_keys=True)
    return hashlib.sha256(state.encode()).hexdigest()[:32]


def _file() -> Path | None:
    """Return the file of the measurements; None for a user without a home folder, for whom nothing is kept."""
    with contextlib.suppress(RuntimeError):
        folder = user_cache_path("vggft", appauthor=False)
        return folder / "engines.json" if folder.is_absolute() else None
    return None


def _read() -> dict[str, _Entry]:
    """Return key → entry; a file that cannot be read, or is no such file, counts as empty."""
    file = _file()
    with contextlib.suppress(OSError, ValueError, VggftError):
        return dict(records.build(_File, {"entries": checked.read_json(file) if file else {}}).entries)
    return {}


def _keep(architecture: Architecture, rates: Rates) -> None:
    file = _file()
    if file is None:
        return
    entries = _read()
    entries.pop(_key(architecture), None)
    today = time.strftime("%Y-%m-%d")
    entries[_key(architecture)] = _Entry(architecture.name, **_state(), date=today, images_per_second=dict(rates))
    latest = dict(list(entries.items())[-_ENTRIES:])
    with contextlib.suppress(OSError, VggftError):  # without the file, engines are measured again
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        forms.write_json(file, {key: asdict(entry) for key, entry in latest.items()})
