"""Which head fine-tuning starts from: the best, a named one, or one with random weights."""

from collections.abc import Callable, Sequence

from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Sample
from featurize.errors import VggftError
from heads import features, search
from heads.head import Head
from heads.population import untrained
from heads.search import best_first
from heads.specs import BEST, SCRATCH, UNTRAINED, LogisticSpec
from vggft.prediction import models
from vggft.ui.console import Ui
from vggft.workspace import provenance
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace


def choose(workspace: Workspace, wanted: str, on_damage: Callable[[VggftError], None]) -> Head | None:
    """Return the head that `--from` names; None for one that `scratch` has yet to create. `on_damage` as in `models.load`.

    Raises:
        VggftError: there is none of that name, or it does not fit the workspace's current classes, features or images.
    """
    if wanted == SCRATCH:
        return None
    if wanted == BEST:
        return models.fresh_heads(workspace, on_damage)[0].head
    if (workspace.finetune / wanted).exists():
        raise VggftError(
            f"--from {wanted}: a tuned network. Expected the name of a head; heads/leaderboard.csv lists them."
        )
    fresh, stale = models.load_heads(workspace, on_damage)
    for result in fresh:
        if result.head.name == wanted:
            return result.head
    for result in stale:
        if result.head.name == wanted:
            raise VggftError(
                f"--from {wanted}: stale: {provenance.difference(workspace, result.head.classes, result.head.provenance)}. Train "
                f"it again: vggft head --head {wanted}{workspace_flag(workspace.root)}"
            )
    known = ", ".join(result.head.name for result in best_first(fresh)) or (
        f"none yet (vggft head{workspace_flag(workspace.root)} trains some)"
    )
    raise VggftError(f"--from {wanted}: no such head. Expected {BEST}, {SCRATCH}, or one of the heads here: {known}.")


def without_others(
    workspace: Workspace, cache: FeatureCache, head: Head, samples: Sequence[Sample], ui: Ui
) -> Head | None:
    """Return a head that was trained as this one on some of the images alone; None if its training diverged."""
    if head.name == SCRATCH:
        return head
    spec, plan = search.of_recipe(head.name, head.provenance["recipe"])
    dataset = workspace.dataset
    train = features.read(cache, samples, dataset.targets(samples), [spec.pooling])
    setting = search.Setting(
        dataset.classes, plan, lambda what, total, unit: ui.progress(f"{what}, on a part of the images", total, unit)
    )
    group = spec if isinstance(spec, LogisticSpec) else [spec]
    ((_, found),) = search.train_again(group, setting, train)
    return found


def scratch(workspace: Workspace, cache: FeatureCache, seed: int) -> Head:
    """Return a head like avg-256, with standardised inputs and random weights.

    Raises:
        VggftError: a training image without features.
    """
    dataset = workspace.dataset
    samples = dataset.accepted("train")
    train = features.read(cache, samples, dataset.targets(samples), [UNTRAINED.pooling])
    head = untrained(UNTRAINED, dataset.classes, train, seed)
    return Head(SCRATCH, head.kind, head.pooling, head.classes, head.layers, head.dropout, {}, head.scaler)
