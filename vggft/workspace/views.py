"""Views of training images in the cache: how many there are, and computing those that are missing."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featurize.cache import estimate
from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Sample
from featurize.engines import Engine, rate
from featurize.errors import VggftError
from featurize.pixels import views
from featurize.wording import counted, size
from vggft.ui.console import Ui, duration
from vggft.workspace.backbone import start_engine
from vggft.workspace.filling import Filling, fill
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace


def wanted(workspace: Workspace, asked: int | None) -> int:
    """Return the number of views to train on; `asked`: the value of --views, None: all that there are.

    Raises:
        VggftError: there are fewer.
    """
    present = workspace.settings.views
    if asked is not None and asked > present:
        raise VggftError(
            f"--views {asked}: {counted(present, 'view')} of each training image in the cache. Compute more: vggft featurize "
            f"{workspace.settings.data} --views {asked}{workspace_flag(workspace.root)}"
        )
    return present if asked is None else asked


def caches(workspace: Workspace, number: int) -> list[FeatureCache]:
    """Return the caches of the first views, in their order."""
    fingerprint = workspace.settings.fingerprint
    return [workspace.cache(replace(fingerprint, probe=views.name(k))) for k in range(1, number + 1)]


def compute(
    workspace: Workspace, number: int, samples: Sequence[Sample], layers: Sequence[str], ui: Ui
) -> list[FeatureCache]:
    """Compute the first views of some images that the cache lacks, and return their caches. The lock must be held.

    What it costs is said before.

    Raises:
        VggftError: an image is missing, has changed or cannot be decoded; no weights; or too little disk space.
    """
    found = caches(workspace, number)
    if not number:
        return found
    settings, root = workspace.settings, workspace.dataset.root
    files: dict[str, list[Path]] = defaultdict(list)
    for sample in samples:
        files[sample.digest].append(root / sample.path)
    lacking = [cache.missing(layers, list(files)) for cache in found]
    rows = sum(map(len, lacking))
    if not rows:
        return found
    missing = {digest for digests in lacking for digest in digests}
    gone = [digest for digest in files if digest in missing and not any(path.is_file() for path in files[digest])]
    if gone:
        raise VggftError(
            f"views: {counted(len(gone), 'image')} missing (the first: {files[gone[0]][0]}). Put them back, or train with "
            "--views 0."
        )
    needed = sum(
        estimate.bytes_needed(cache, layers, len(digests)) for cache, digests in zip(found, lacking, strict=True)
    )
    estimate.require_room(workspace.cache_folder, needed, rows)
    engine = start_engine(
        workspace.architecture, settings.fingerprint, settings.weights_file_path, "auto", ui, images=rows
    )
    ui.say(_announcement(workspace, engine, layers, rows, needed))
    for cache in found:
        rejected = fill(cache, Filling(files, layers, settings.weights_file_path), ui, engine).rejected
        if rejected:
            digest, reason = next(iter(rejected.items()))
            raise VggftError(
                f"views: {counted(len(rejected), 'image')} cannot be computed (the first: {files[digest][0]}: {reason}). Restore "
                "them and run vggft featurize, or train with --views 0."
            )
    return caches(workspace, number)


def _announcement(workspace: Workspace, engine: Engine, layers: Sequence[str], rows: int, needed: int) -> str:
    pixels = workspace.settings.fingerprint.size
    took = ""
    if rows > engine.trial:
        took = f" and {duration(rows / rate(engine, (pixels, pixels, 3), layers, None))}"
    return f"computing {counted(rows, 'view')} of training images: about {size(needed)} on disk{took}"
