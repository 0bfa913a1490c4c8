"""Views of training images in the cache: how many there are, and computing those that are missing."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from featurize.cache import estimate
from featurize.cache.feature_cache import Digests, FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.data.dataset import Sample
from featurize.engines import Engine, PoolingEngine, rate
from featurize.errors import VggftError
from featurize.pixels import views
from featurize.wording import counted, size
from vggft.ui.console import Ui, duration
from vggft.workspace.backbone import start_engine
from vggft.workspace.filling import Filling, Means, files_of, fill, network_runs, plan
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

_THIS_PROCESS = Means()


def wanted(workspace: Workspace, asked: int | None) -> int:
    """Return the number of views to train on; `asked`: the value of --views, None: all that there are.

    Raises:
        VggftError: there are fewer.
    """
    present = workspace.settings.views
    if asked is not None and asked > present:
        raise VggftError(
            f"--views {asked}: {counted(present, 'view')} of each training image in the cache. Compute more: vggft featurize "
            f"{shlex.quote(workspace.settings.data)} --views {asked}{workspace_flag(workspace.root)}"
        )
    return present if asked is None else asked


def caches(workspace: Workspace, number: int, fingerprint: Fingerprint | None = None) -> list[FeatureCache]:
    """Return the caches of the first views, in their order; `fingerprint` None: of the workspace's."""
    fingerprint = fingerprint or workspace.settings.fingerprint
    return [workspace.cache(replace(fingerprint, probe=views.name(k))) for k in range(1, number + 1)]


def missing(of_views: Sequence[FeatureCache], layers: Sequence[str], digests: Digests) -> tuple[int, int]:
    """Return how many views of images are not in their caches, and how many bytes on disk they need."""
    numbers = [len(cache.missing(layers, digests)) for cache in of_views]
    needed = sum(estimate.bytes_needed(cache, layers, n) for cache, n in zip(of_views, numbers, strict=True))
    return sum(numbers), needed


def compute(
    workspace: Workspace,
    number: int,
    samples: Sequence[Sample],
    layers: Sequence[str],
    ui: Ui,
    means: Means = _THIS_PROCESS,
) -> list[FeatureCache]:
    """Compute the first views of some images that the cache lacks, and return their caches. The lock must be held.

    Time and disk space are announced first.

    Raises:
        VggftError: an image is missing, has changed or cannot be decoded; no weights; or too little disk space.
    """
    if not number:
        return []
    of_views = caches(workspace, number)
    settings, files = workspace.settings, files_of(workspace.dataset.root, samples)
    rows, needed = missing(of_views, layers, list(files))
    if not rows:
        return of_views
    lacking = {digest for cache in of_views for digest in cache.missing(layers, list(files))}
    gone = [digest for digest in files if digest in lacking and not any(path.is_file() for path in files[digest])]
    if gone:
        raise VggftError(
            f"views: {counted(len(gone), 'image')} missing (the first: {files[gone[0]][0]}). Put them back, or use heads and "
            "runs without views (--views 0)."
        )
    estimate.require_room(workspace.cache_folder, needed, rows)
    filling = Filling(files, layers, settings.weights_file_path, means=means)
    engine: Engine | None = None
    took = ""
    if not any(network_runs(cache, plan(cache, filling, frozenset())) for cache in of_views):
        engine = PoolingEngine(workspace.architecture)
    elif means.on is None:
        engine = start_engine(
            workspace.architecture, settings.fingerprint, filling.weights_file, means.engine, ui, images=rows
        )
        if rows > engine.trial:
            pixels = settings.fingerprint.size
            took = f" and {duration(rows / rate(engine, (pixels, pixels, 3), layers, None))}"
    ui.say(f"computing {counted(rows, 'view')} of training images: about {size(needed)} on disk{took}")
    for cache in of_views:
        rejected = fill(cache, filling, ui, engine).rejected
        if rejected:
            digest, reason = next(iter(rejected.items()))
            raise VggftError(
                f"views: {counted(len(rejected), 'image')} cannot be computed (the first: {files[digest][0]}: {reason}). Restore "
                "them and run vggft featurize, or use heads and runs without views (--views 0)."
            )
    return caches(workspace, number)
