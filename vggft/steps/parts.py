"""`vggft featurize --part K/N`: one part of the features, in a workspace that holds nothing else."""

import time
from typing import Any

from featurize import engines
from featurize.errors import VggftError
from featurize.wording import counted
from vggft.steps import locations, sources
from vggft.steps.options import FeaturizeOptions
from vggft.steps.sources import Before
from vggft.ui.console import Ui
from vggft.workspace import earlier, part
from vggft.workspace.filling import Filling, Means, files_of, fill, require
from vggft.workspace.part import Finished, Part
from vggft.workspace.workspace import Workspace


def featurize(workspace: Workspace, options: FeaturizeOptions, ui: Ui) -> dict[str, Any]:
    """Compute the features of the images of one part.

    Every part hashes all files, because the digest decides which part an image belongs to.

    Raises:
        VggftError: anything wrong with options, folder or weights; a workspace that is more than a part, or another part.
    """
    assert options.part is not None
    wanted = Part.parse(options.part)
    _require_apart(workspace, wanted)
    architecture = workspace.architecture
    engines.require(options.engine)
    layers = sources.layers(options, architecture, None)
    locations.refuse_overlap(workspace.root, options.data)
    fingerprint, weights_file = sources.fingerprint(options, workspace, None)
    began = time.perf_counter()
    before = Before(None)
    scan = sources.scan(options, before, sources.rules(options, before, options.group_by), ui)
    sources.refuse_overlaps(workspace, scan)
    samples = [sample for sample in scan.samples if sample.digest and wanted.has(sample.digest)]
    files = files_of(scan.root, samples)
    filling = Filling(files, layers, weights_file, means=Means(options.engine, options.shard))
    require(workspace.cache(fingerprint), filling)
    with workspace.writing(new=True):
        part.begin(workspace.root)
        cache = workspace.cache(fingerprint, recheck=options.rehash)
        cache.shards.mkdir(parents=True, exist_ok=True)
        cache.describe()
        reused = len(files) - len(cache.missing(layers, list(files)))
        filled = fill(cache, filling, ui)
        digests = {sample.digest for sample in scan.samples if sample.digest}
        part.finish(workspace.root, Finished(wanted, tuple(layers), part.digest_of(digests)))
    for digest, reason in filled.rejected.items():
        ui.warn(f"rejected {files[digest][0].relative_to(scan.root)}: {reason}")
    ui.print(
        f"part {wanted}: {counted(len(files) - len(filled.rejected), 'image')} of {len(digests)}, "
        f"computed {filled.computed}, reused {reused}, in {time.perf_counter() - began:.0f} s"
    )
    ui.say(
        f"in {workspace.root}. When all parts are finished, join them in a new workspace: vggft cache merge PART… --workspace "
        "WORK"
    )
    return {
        "part": str(wanted),
        "images": len(files) - len(filled.rejected),
        "computed": filled.computed,
        "reused": reused,
        "rejected": len(filled.rejected),
        "layers": layers,
        "engine": filled.engine,
        "cache": str(cache.folder),
    }


def _require_apart(workspace: Workspace, wanted: Part) -> None:
    if workspace.exists or workspace.lost:
        raise VggftError(
            f"--part {wanted}: {workspace.root} is the workspace of a data set. Name a new folder for the part with --workspace."
        )
    present = part.finished(workspace.root)
    if present and present.part != wanted:
        raise VggftError(
            f"--part {wanted}: {workspace.root} holds part {present.part}. Name another folder with --workspace."
        )
    earlier.refuse_foreign_files(workspace.root)
