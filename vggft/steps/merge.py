"""`vggft cache merge PART…`: the features of other workspaces, such as those of `featurize --part`, in this one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
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
from vggft.workspace.folder import layers_flag, workspace_flag
from vggft.workspace.part import Finished
from vggft.workspace.workspace import Workspace


@dataclass(frozen=True)
class _Source:
    """A workspace whose features are merged: its folder, the cache in it, and the record of the part that it is, if it is one."""

    root: Path
    cache: Path
    fingerprint: Fingerprint
    finished: Finished | None
    settled: bool


def run(workspace: Workspace, options: MergeOptions, ui: Ui) -> dict[str, Any]:
    """Link or copy the files of other caches into that of this workspace.

    Damaged files and missing parts are named; featurize computes what they lack.

    Raises:
        VggftError: a folder without features, features of another fingerprint, or parts of different divisions; nothing was
            changed.
    """
    sources = [_source(workspace, places.resolved(path)) for path in options.parts]
    fingerprint = _only_fingerprint(workspace, sources)
    problems = _problems(sources, ui)
    total = sum(len(shards.present(source.cache / "shards")) for source in sources)
    new = not workspace.exists
    if new:
        earlier.refuse_foreign_files(workspace.root)
    added = present = 0
    damaged: dict[Path, str] = {}
    with workspace.writing(new=new), sharing.locked(workspace.cache_folder, ui.say):
        cache = workspace.cache(fingerprint)
        cache.quarantine()  # the parts may have sound copies
        cache.refresh()
        before = cache.positions.images()
        with ui.progress("merging", total, "files") as advance:
            for source in sources:

                def linked(count: int, before: int = added + present + len(damaged)) -> None:
                    advance(before + count)

                merged = merge.merge(cache, source.cache, linked)
                added, present, damaged = added + merged.added, present + merged.present, damaged | merged.damaged
        cache.refresh()
        cache.save_index()
        rows = cache.positions.images()
    for path, why in damaged.items():
        ui.warn(f"left out: {path} is damaged ({why})")
    already = f", {present} there before" if present else ""
    ui.print(
        f"merged {counted(added, 'file')}{already}: features of {counted(rows, 'image')}, {rows - before} of them new"
    )
    flags = f"{_layers_option(workspace, sources, cache)}{workspace_flag(workspace.root)}"
    ui.print(f"Next: vggft featurize DATA{flags}, which computes what is missing.")
    return {
        "files": added,
        "present": present,
        "images": rows,
        "new_images": rows - before,
        "problems": problems,
        "failed": [{"path": str(path), "reason": why} for path, why in damaged.items()] + problems,
        "cache": str(cache.folder),
    }


def _source(workspace: Workspace, root: Path) -> _Source:
    if root == places.resolved(workspace.root):
        raise VggftError(f"{root}: this is the workspace that the parts are merged into. Leave it out of PART.")
    folder = root / "cache"
    settled = Workspace(root, workspace.architecture).exists
    finished = None if settled else part.finished(root)
    found = {
        path: fingerprint
        for path, fingerprint in (upkeep.fingerprints(folder) if folder.is_dir() else {}).items()
        if (finished or shards.present(path / "shards")) and not (fingerprint and fingerprint.probe)
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
    return _Source(root, path, fingerprint, finished, settled)


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
                f"{source.root}: its features differ from those of {whose}: {differ}. Compute all with the same "
                "--preprocess and --weights, on machines of one kind (GPU or CPU)."
            )
    return expected


def _problems(sources: Sequence[_Source], ui: Ui) -> list[dict[str, str]]:
    """Name parts that are missing, not finished, given twice, or of other images or layers than the first.

    Raises:
        VggftError: parts of different divisions.
    """
    finished = {source.root: source.finished for source in sources if source.finished}
    for source in sources:
        if source.finished is None and not source.settled:
            ui.warn(f"{source.root} is not a finished part: its features so far are merged")
    if not finished:
        return []
    divisions = {record.part.of for record in finished.values()}
    if len(divisions) > 1:
        given = ", ".join(f"{root} ({record.part})" for root, record in finished.items())
        raise VggftError(f"parts of different divisions: {given}. Merge those of one division at a time.")
    (number,), (first_root, first) = divisions, next(iter(finished.items()))
    problems = [{"part": f"{k}/{number}", "reason": "missing"} for k in range(1, number + 1)]
    problems = [p for p in problems if p["part"] not in {str(record.part) for record in finished.values()}]
    for root, record in finished.items():
        for what, differs in (("images", record.data != first.data), ("layers", record.layers != first.layers)):
            if differs:
                problems.append({"part": str(record.part), "reason": f"{root} has other {what} than {first_root}"})
    for problem in problems:
        ui.warn(f"part {problem['part']}: {problem['reason']}")
    for twice, times in Counter(record.part for record in finished.values()).items():
        if times > 1:
            roots = ", ".join(str(root) for root, record in finished.items() if record.part == twice)
            ui.warn(f"part {twice} is given {times} times: {roots}")
    return problems


def _layers_option(workspace: Workspace, sources: Sequence[_Source], cache: FeatureCache) -> str:
    """Return the options with which featurize computes the layers of the parts; empty where it does so without."""
    if workspace.exists:
        return ""  # it keeps to its layers
    of_sources = [
        source.finished.layers if source.finished else Workspace(source.root, workspace.architecture).settings.layers
        for source in sources
        if source.finished or source.settled
    ]
    layers = sorted({*chain(*of_sources)} or cache.layers, key=workspace.architecture.position)
    return "" if layers == [*workspace.architecture.cached] else layers_flag(layers)
