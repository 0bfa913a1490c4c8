"""Maintenance of a workspace's features: info, verify, prune, export."""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import featurize.cache.export
from featurize.cache import estimate, sharing, upkeep
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.cache.upkeep import Info, Surplus
from featurize.data.dataset import digests_of
from featurize.errors import VggftError
from featurize.pixels import views
from featurize.wording import counted, size
from vggft.steps.confirmation import confirmed
from vggft.steps.options import CacheExportOptions, PruneOptions, VerifyOptions
from vggft.steps.recompute import recompute
from vggft.ui.console import Ui
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import SCHEMA, Workspace


def info(workspace: Workspace, ui: Ui) -> dict[str, Any]:
    """Show what the cache holds."""
    settled = _settled(workspace)
    others = _others(workspace, ui)
    elsewhere = [other.settings.fingerprint for other in others]
    wanted = workspace.settings.views if settled else 0
    summaries = [
        upkeep.info(folder, fingerprint, workspace.architecture)
        for folder, fingerprint in upkeep.fingerprints(workspace.cache_folder).items()
    ]
    ui.print(f"{workspace.cache_folder}, schema version {SCHEMA}")
    for summary in summaries:
        _, use = _use(summary.fingerprint, settled, elsewhere, wanted)
        ui.print("")
        ui.print(f"{summary.folder.name} ({use}): {_described(summary.fingerprint)}")
        ui.print(f"{counted(summary.images, 'image')} in {counted(summary.files, 'file')}, {size(summary.stored)}")
        if summary.layers:
            rows = [
                (name, str(layer.rows), size(layer.stored), size(layer.raw), f"{layer.raw / layer.stored:.1f}")
                for name, layer in summary.layers.items()
            ]
            ui.table("", ("layer", "rows", "on disk", "in memory", "ratio"), rows)
        if summary.damaged:
            ui.print(f"{counted(summary.damaged, 'file')} damaged or missing; vggft featurize recomputes their rows")
        if summary.set_aside:
            ui.print(f"{counted(summary.set_aside, 'damaged file')} quarantined; vggft cache prune deletes them")
    if not summaries:
        ui.print("no features yet")
    if others:
        ui.print(f"shared with {', '.join(str(other.root) for other in others)}")
    return {
        "schema": SCHEMA,
        "cache": str(workspace.cache_folder),
        "shared_with": [str(other.root) for other in others],
        "fingerprints": [
            _as_json(summary, _use(summary.fingerprint, settled, elsewhere, wanted)[0]) for summary in summaries
        ],
    }


def _others(workspace: Workspace, ui: Ui) -> list[Workspace]:
    """Return the workspaces that share the cache; where one cannot be read, warn."""
    try:
        return workspace.sharing()
    except VggftError as error:
        ui.warn(str(error))
        return []


def _settled(workspace: Workspace) -> Fingerprint | None:
    """Return the fingerprint of the features in use; None if the first featurize stored features and was interrupted.

    Raises:
        VggftError: there are no features yet.
    """
    return None if workspace.unfinished else workspace.settings.fingerprint


def _use(
    fingerprint: Fingerprint | None, settled: Fingerprint | None, elsewhere: Sequence[Fingerprint], wanted: int
) -> tuple[bool, str]:
    """Return whether the features of a fingerprint are in use, and what for.

    Args:
        wanted: number of views of this workspace.
        elsewhere: the fingerprints of the workspaces that share the cache.
    """
    if fingerprint is None:
        return False, "unknown"
    if settled is None:
        return False, "the first featurize was interrupted"
    if fingerprint == settled:
        return True, "in use"
    if _is_perturbation(fingerprint, settled):
        number = views.number(fingerprint.probe)
        if number is None:
            return True, "in use by compare"
        return (True, "in use: a view") if number <= wanted else (False, "stale: a view")
    shared = any(fingerprint == used or _is_perturbation(fingerprint, used) for used in elsewhere)
    return (True, "in use by another workspace") if shared else (False, "stale")


def _is_perturbation(fingerprint: Fingerprint | None, settled: Fingerprint | None) -> bool:
    """Return whether these are features of perturbed images, or of views, otherwise computed like the features in use."""
    return fingerprint is not None and bool(fingerprint.probe) and replace(fingerprint, probe="") == settled


def _serves(fingerprint: Fingerprint, users: Sequence[Workspace]) -> bool:
    """Return whether features of perturbed images, or of a view, are of use to one of some workspaces."""
    used = [user.settings for user in users if _is_perturbation(fingerprint, user.settings.fingerprint)]
    return any((views.number(fingerprint.probe) or 0) <= settings.views for settings in used)


def _described(fingerprint: Fingerprint | None) -> str:
    if fingerprint is None:
        return "its fingerprint.json is missing or damaged"
    values = {**asdict(fingerprint), "weights": f"{fingerprint.weights[:12]}…"}
    values["perturbation or view"] = values.pop("probe") or "none"
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _as_json(summary: Info, in_use: bool) -> dict[str, Any]:
    return {
        "folder": str(summary.folder),
        "in_use": in_use,
        "fingerprint": asdict(summary.fingerprint) if summary.fingerprint else None,
        "images": summary.images,
        "files": summary.files,
        "bytes": summary.stored,
        "damaged": summary.damaged,
        "set_aside": summary.set_aside,
        "layers": {
            name: {"rows": layer.rows, "bytes": layer.stored, "raw_bytes": layer.raw, "ratio": layer.raw / layer.stored}
            for name, layer in summary.layers.items()
        },
    }


def verify(workspace: Workspace, options: VerifyOptions, ui: Ui) -> dict[str, Any]:
    """Read every file, and report damaged and missing ones; also compute some images again, as the options say.

    Raises:
        VggftError: images are to be computed again, and cannot be.
    """
    settled = _settled(workspace)
    dataset = workspace.dataset if settled else None
    findings, files = [], 0
    places = upkeep.fingerprints(workspace.cache_folder)
    if settled:
        places.setdefault(workspace.cache_folder / settled.key, settled)
    numbers = {folder: len(list((folder / "shards").glob("*.h5"))) for folder in places}
    with ui.progress("verifying", sum(numbers.values()), "files") as advance:
        for folder, fingerprint in places.items():

            def verified(done: int, total: int, before: int = files) -> None:
                advance(before + done)

            findings += upkeep.verify(folder, fingerprint, workspace.architecture, verified)
            files += numbers[folder]
    damaged = [{"path": str(finding.path), "reason": finding.reason} for finding in findings]
    for finding in findings:
        ui.warn(f"{finding.path}: {finding.reason}")
    without: list[str] = []
    if dataset:
        layers = workspace.settings.layers or [workspace.architecture.top]
        without = workspace.cache().missing(layers, dataset.accepted().digests)
    if without:
        ui.warn(f"{counted(len(without), 'image')} without features")
    sound = not findings and not without
    if sound:
        ui.print(f"✓ {counted(files, 'file')}, all checksums match")
    in_use = [finding for finding in findings if settled is None or settled.key in finding.path.parts]
    if without or in_use:
        ui.print("Run vggft featurize: it quarantines damaged files and recomputes missing rows.")
    folders = [path.name for path, fingerprint in places.items() if _is_perturbation(fingerprint, settled)]
    perturbed = [finding for finding in findings if not set(folders).isdisjoint(finding.path.parts)]
    if perturbed:
        ui.print(
            "Some of these features are of changed images: vggft compare or, of views, vggft featurize recomputes them."
        )
    if len(in_use) + len(perturbed) < len(findings):
        ui.print("Some of these features are stale: vggft cache prune deletes them.")
    if settled is None:
        ui.print(f"Features, but no data set yet. Run: vggft featurize DATA{workspace_flag(workspace.root)}")
    result = {"ok": sound, "files": files, "damaged": damaged, "images_without_features": len(without)}
    if options.recompute:
        recomputed = recompute(workspace, options.recompute, ui)
        result |= {"recomputed": recomputed, "ok": sound and recomputed["ok"]}
    return result


@dataclass(frozen=True)
class _Plan:
    """What prune would delete."""

    folders: tuple[Path, ...]
    surplus: Sequence[tuple[FeatureCache, Surplus]]

    @property
    def rows(self) -> int:
        return sum(own.rows for _, own in self.surplus)

    @property
    def empty(self) -> bool:
        return not self.folders and not any(own.keep for _, own in self.surplus)


def prune(workspace: Workspace, options: PruneOptions, ui: Ui) -> dict[str, Any]:
    """Delete stale features, features of images that are gone, and quarantined files; nothing that another workspace uses.

    Raises:
        VggftError: not interactive, and no `yes`; or a workspace that shares the cache cannot be read, or is being written.
    """
    with workspace.writing(), contextlib.ExitStack() as locks:
        others = workspace.sharing()
        for other in others:  # while one featurizes, its manifest does not list its new features yet
            locks.enter_context(other.writing())
        locks.enter_context(sharing.locked(workspace.cache_folder, ui.say))
        settled, users = workspace.settings.fingerprint, [workspace, *others]
        wanted = np.unique(np.concatenate([digests_of(user.dataset.samples) for user in users]))
        needed = list(dict.fromkeys(user.settings.fingerprint for user in users))
        places = upkeep.fingerprints(workspace.cache_folder)
        if places and settled not in places.values():
            raise VggftError(
                f"{workspace.cache_folder}: no features of the workspace's fingerprint ({settled.key}), so all would count as "
                "stale. Nothing was deleted. Run vggft featurize first."
            )
        perturbations = [other for other in places.values() if other and _serves(other, users)]
        stale = [path for path, other in places.items() if other not in (None, *needed, *perturbations)]
        aside = [path for path in upkeep.quarantine_folders(workspace.cache_folder) if path.parent not in stale]
        caches = [workspace.cache(fingerprint) for fingerprint in (*needed, *perturbations)]
        plan = _Plan((*stale, *aside), [(cache, upkeep.surplus(cache, wanted)) for cache in caches])
        result = {
            "removed": False,
            "folders": [str(path) for path in plan.folders],
            "rows": plan.rows,
            "bytes_freed": 0,
        }
        gone = sum(not (workspace.dataset.root / s.path).exists() for s in workspace.dataset.samples)
        if gone:
            ui.warn(
                f"{counted(gone, 'file')} missing since the last featurize. To delete their features, too, run vggft featurize "
                "first"
            )
        if plan.empty:
            ui.print("nothing to delete: every row belongs to an image of the last featurize")
            return result
        for path in stale:
            ui.say(f"{path}: {size(upkeep.occupied(path))} of stale features")
        for path in aside:
            ui.say(f"{path}: {size(upkeep.occupied(path))} of quarantined files")
        for cache, surplus in plan.surplus:
            if surplus.rows:
                ui.say(
                    f"{cache.folder}: {counted(surplus.rows, 'row')} of images outside the data set, or stored twice"
                )
        if not (options.yes or confirmed("vggft cache prune", "Delete these?", ui)):
            ui.print("Nothing was removed.")
            return result
        before = upkeep.occupied(workspace.cache_folder)
        left = [path for folder in stale for path in upkeep.remove(folder)]  # first, because rewritten files need space
        left += [path for folder in aside for path in upkeep.remove_quarantined(folder)]
        for path in left:
            ui.warn(f"not deleted, because vggft may not have written it: {path}")
        for cache, surplus in plan.surplus:
            if surplus.keep:
                with ui.progress("rewriting files", len(surplus.keep), "files") as advance:
                    upkeep.drop(cache, surplus, advance)
        freed = before - upkeep.occupied(workspace.cache_folder)
    ui.print(f"removed; {size(freed)} freed")
    return {**result, "removed": True, "bytes_freed": freed}


def export(workspace: Workspace, options: CacheExportOptions, ui: Ui) -> dict[str, Any]:
    """Write one plain HDF5 file: features, labels, splits, paths."""
    dataset, cache, file = workspace.dataset, workspace.cache(), options.file
    layers = featurize.cache.export.complete_layers(cache, dataset)
    left_out = [layer for layer in cache.layers if layer not in layers]
    if left_out:
        ui.warn(f"left out, because not every image has them: {', '.join(left_out)}")
    rows = len(dataset.accepted())
    estimate.require_room(file.absolute().parent, estimate.bytes_needed(cache, layers, rows), rows)
    with ui.progress("exporting", rows * len(layers), "rows") as advance:
        featurize.cache.export.export(cache, dataset, layers, file, advance)
    ui.print(f"{file}: {', '.join(layers)} of {counted(rows, 'image')}, {size(file.stat().st_size)}")
    return {"file": str(file), "images": rows, "layers": layers, "bytes": file.stat().st_size}
