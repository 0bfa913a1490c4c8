"""`vggft cache merge PART…`: the features of other workspaces, such as those of `featurize --part`, in this one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featurize.cache import merge, shards, sharing, upkeep
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from featurize.process import places
from featurize.wording import counted
from vggft.steps.options import MergeOptions
from vggft.ui.console import Ui
from vggft.workspace import earlier, part
from vggft.workspace.folder import workspace_flag
from vggft.workspace.part import Part
from vggft.workspace.workspace import Workspace


@dataclass(frozen=True)
class _Source:
    """A workspace whose features are merged: its folder, the cache in it, and which part it is, if it is one."""

    root: Path
    cache: Path
    fingerprint: Fingerprint
    part: Part | None


def run(workspace: Workspace, options: MergeOptions, ui: Ui) -> dict[str, Any]:
    """Link or copy the files of other caches into that of this workspace.

    Damaged files and missing parts are named; featurize computes what they lack.

    Raises:
        VggftError: a folder without features, features of another fingerprint, or parts of different divisions; nothing was
            changed.
    """
    sources = [_source(workspace, places.resolved(places.expanded(path))) for path in options.parts]
    fingerprint = _only_fingerprint(workspace, sources)
    missing = _missing(sources, ui)
    total = sum(len(shards.present(source.cache / "shards")) for source in sources)
    new = not workspace.exists
    if new:
        earlier.refuse_foreign_files(workspace.root)
    added = present = 0
    damaged: dict[Path, str] = {}
    with workspace.writing(new=new), sharing.locked(workspace.cache_folder, ui.say):
        cache = workspace.cache(fingerprint)
        before = _rows(cache)
        with ui.progress("merging", total, "files") as advance:
            for source in sources:

                def linked(count: int, before: int = added + present + len(damaged)) -> None:
                    advance(before + count)

                merged = merge.merge(cache, source.cache, linked)
                added, present, damaged = added + merged.added, present + merged.present, damaged | merged.damaged
        cache.refresh()
        cache.save_index()
        rows = _rows(cache)
    for path, why in damaged.items():
        ui.warn(f"left out: {path} is damaged ({why})")
    already = f", {present} there before" if present else ""
    ui.print(
        f"merged {counted(added, 'file')}{already}: features of {counted(rows, 'image')}, {rows - before} of them new"
    )
    ui.print(f"Next: vggft featurize DATA{workspace_flag(workspace.root)}, which computes what is missing.")
    return {
        "files": added,
        "present": present,
        "images": rows,
        "new_images": rows - before,
        "missing_parts": missing,
        "failed": [{"path": str(path), "reason": why} for path, why in damaged.items()] + missing,
        "cache": str(cache.folder),
    }


def _source(workspace: Workspace, root: Path) -> _Source:
    if root == places.resolved(workspace.root):
        raise VggftError(f"{root}: it is the workspace that is merged into. Name it once, with --workspace.")
    folder = root / "cache"
    found = {
        path: fingerprint
        for path, fingerprint in (upkeep.fingerprints(folder) if folder.is_dir() else {}).items()
        if shards.present(path / "shards") and not (fingerprint and fingerprint.probe)
    }
    if len(found) != 1:
        several = f"features of {len(found)} fingerprints" if found else "no features"
        raise VggftError(
            f"{root}: {several} in {folder}. Expected a workspace of vggft featurize --part, or another one."
        )
    path, fingerprint = next(iter(found.items()))
    if fingerprint is None:
        raise VggftError(
            f"{path}: its fingerprint is damaged. Run the vggft featurize of {root} again, which repairs it."
        )
    return _Source(root, path, fingerprint, part.finished(root))


def _only_fingerprint(workspace: Workspace, sources: Sequence[_Source]) -> Fingerprint:
    """Return the fingerprint that all have in common.

    Raises:
        VggftError: they differ; the message names the settings.
    """
    expected = workspace.settings.fingerprint if workspace.exists else sources[0].fingerprint
    whose = workspace.root if workspace.exists else sources[0].root
    for source in sources:
        if source.fingerprint != expected:
            other = asdict(source.fingerprint)
            differ = ", ".join(
                f"{name} {other[name]} instead of {value}"
                for name, value in asdict(expected).items()
                if other[name] != value
            )
            raise VggftError(
                f"{source.root}: its features are other ones than those of {whose}: {differ}. Compute them with the same "
                "--preprocess, --weights and precision."
            )
    return expected


def _missing(sources: Sequence[_Source], ui: Ui) -> list[dict[str, str]]:
    """Name parts that are missing, not finished or there twice.

    Raises:
        VggftError: parts of different divisions.
    """
    parts = [source.part for source in sources if source.part]
    if not parts:
        return []
    if len({of.of for of in parts}) > 1:
        raise VggftError(
            f"parts of different divisions: {', '.join(f'{source.root} ({source.part})' for source in sources if source.part)}. "
            "Merge those of one division at a time."
        )
    for source in sources:
        if source.part is None:
            ui.warn(f"{source.root} is no finished part: what it has is merged")
    for one, times in Counter(parts).items():
        if times > 1:
            ui.warn(f"part {one} is there {times} times: {', '.join(str(s.root) for s in sources if s.part == one)}")
    lacking = sorted(set(range(1, parts[0].of + 1)) - {of.number for of in parts})
    for number in lacking:
        ui.warn(f"part {number}/{parts[0].of} is missing")
    return [{"part": f"{number}/{parts[0].of}", "reason": "missing"} for number in lacking]


def _rows(cache: FeatureCache) -> int:
    """Return the number of images with features of some layer."""
    return max((len(cache.positions.rows(layer).digest) for layer in cache.layers), default=0)
