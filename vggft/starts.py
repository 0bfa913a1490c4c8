"""Which head fine-tuning starts from: the best, a named one, or one with random weights."""

from featurize.cache import FeatureCache
from featurize.errors import VggftError
from heads import features
from heads.head import Head
from heads.population import untrained
from heads.search import Result
from heads.specs import BEST, SCRATCH, UNTRAINED
from vggft import methods
from vggft.methods import Methods
from vggft.workspace import Workspace


def choose(workspace: Workspace, wanted: str) -> Head | None:
    """Return the head that `--from` names; None for one that is still to be made, by `scratch`.

    Raises:
        VggftError: there is none of that name, or it does not fit the workspace's present classes, features or images.
    """
    if wanted == SCRATCH:
        return None
    if wanted == BEST:
        return _head(methods.fresh_heads(workspace)[0])
    found = methods.load(workspace)
    for method in found.heads:
        if method.name == wanted:
            return _head(method)
    _refuse(workspace, wanted, found)
    known = ", ".join(method.name for method in found.heads) or "none yet (vggft head trains some)"
    raise VggftError(f"--from {wanted}: no such head. Expected {BEST}, {SCRATCH}, or one of the heads here: {known}.")


def _head(method: methods.Method) -> Head:
    assert isinstance(method.made, Result)
    return method.made.head


def _refuse(workspace: Workspace, wanted: str, found: Methods) -> None:
    """Say what is wrong with a method of that name, if there is one."""
    if any(method.name == wanted and method.tuned for method in (*found.fresh, *found.stale)):
        raise VggftError(f"--from {wanted}: a tuned network. Expected a head; see heads/leaderboard.csv.")
    method = next((method for method in found.stale if method.name == wanted), None)
    if method is None:
        return
    now, classes = methods.provenance(workspace), workspace.dataset.classes
    if method.classes != classes:
        why = f"it tells {', '.join(method.classes)} apart, and the data here are {', '.join(classes)}"
    elif method.provenance.get("fingerprint") != now["fingerprint"]:
        why = f"it reads features of fingerprint {method.provenance.get('fingerprint')}, and those here are {now['fingerprint']}"
    else:
        why = "images, labels or splits have changed since it was trained"
    raise VggftError(f"--from {wanted}: stale: {why}. Train it again: vggft head --head {wanted}")


def scratch(workspace: Workspace, cache: FeatureCache, seed: int) -> Head:
    """Return a head of the form of avg-256 with random weights; the features it is to read are standardised as ever.

    Raises:
        VggftError: a training image without features.
    """
    dataset = workspace.dataset
    samples = dataset.accepted("train")
    read = features.read(cache, samples, dataset.targets(samples), [UNTRAINED.pooling])
    head = untrained(UNTRAINED, dataset.classes, read, seed)
    return Head(SCRATCH, head.kind, head.pooling, head.classes, head.layers, head.dropout, {}, head.scaler)
