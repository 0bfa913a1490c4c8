"""Which head fine-tuning starts from: the best, a named one, or one with random weights."""

from collections.abc import Callable

from featurize.cache.feature_cache import FeatureCache
from featurize.errors import VggftError
from finetune.plan import BEST, LOGISTIC, SCRATCH
from heads import features
from heads.head import Head
from heads.population import untrained
from heads.search import best_first
from heads.specs import UNTRAINED, DenseSpec
from vggft.prediction import models
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
    if wanted == LOGISTIC:
        heads = [model.head for model in models.fresh_heads(workspace, on_damage)]
        return next((head for head in heads if head.kind == LOGISTIC), heads[0])
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
                f"--from {wanted}: stale: {provenance.difference(workspace, result.head.classes, result.head.provenance)}. To "
                f"train it again: {models.training(workspace, wanted)}"
            )
    known = ", ".join(result.head.name for result in best_first(fresh)) or (
        f"none yet (vggft head{workspace_flag(workspace.root)} trains some)"
    )
    raise VggftError(
        f"--from {wanted}: no such head. Expected {BEST}, {LOGISTIC}, {SCRATCH}, or one of the heads here: {known}."
    )


def scratch(workspace: Workspace, cache: FeatureCache, seed: int, spec: DenseSpec = UNTRAINED) -> Head:
    """Return a head of a specification, by default avg-256, with random weights.

    Raises:
        VggftError: a training image without features.
    """
    dataset = workspace.dataset
    samples = dataset.accepted("train")
    if not spec.standardise:
        samples = samples[:1]  # only the number of features matters; of "flatten", all images would fill the memory
    train = features.read(cache, samples, dataset.targets(samples), [spec.pooling], kept=workspace.settings.layers)
    head = untrained(spec, dataset.classes, train, seed)
    return Head(SCRATCH, head.kind, head.pooling, head.classes, head.layers, head.dropout, {}, head.scaler)
