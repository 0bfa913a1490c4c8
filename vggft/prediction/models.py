"""All models of a workspace, fresh or stale, the best first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import finetune.store
import heads.store
from featurize.errors import VggftError
from heads.search import Criterion, Result, best_first, criterion
from vggft.prediction.head_model import HeadModel
from vggft.prediction.model import Model
from vggft.prediction.network_model import NetworkModel
from vggft.workspace import provenance
from vggft.workspace.workspace import Workspace


@dataclass(frozen=True)
class Models:
    """The models of a workspace.

    Attributes:
        heads: trained on the present state, the best first.
        networks: tuned on the present state, the best first.
        stale: trained on an earlier state; never compared with the others.
        fitting: the stale ones whose classes and features are still the present ones, so that they can predict.
    """

    heads: tuple[HeadModel, ...]
    networks: tuple[NetworkModel, ...]
    stale: tuple[Model, ...]
    fitting: tuple[Model, ...] = ()

    @property
    def fresh(self) -> tuple[Model, ...]:
        """Heads and networks trained on the present state."""
        return (*self.heads, *self.networks)

    @property
    def best(self) -> Model:
        """The best head or the best network, whichever has the lower validation log-loss. There must be one."""
        return min([*self.heads[:1], *self.networks[:1]], key=lambda model: model.rank)

    @property
    def heads_ranked_by(self) -> Criterion:
        """Criterion that the heads are ranked by."""
        return criterion([model.result for model in self.heads])

    @property
    def validation_log_loss(self) -> dict[str, float]:
        """Fresh model → validation log-loss: a recommendation holds as long as these stay the same."""
        return {model.name: model.validation.log_loss for model in self.fresh}

    def earlier(self) -> "Models | None":
        """Return the fitting models of the state that was trained on last, ranked as they were then; None: there are none."""
        if not self.fitting:
            return None
        latest = max(self.fitting, key=lambda model: model.folder.stat().st_mtime_ns)
        same = [
            model for model in self.fitting if model.provenance.get("manifest") == latest.provenance.get("manifest")
        ]
        heads = {model.name: model for model in same if isinstance(model, HeadModel)}
        ranked = best_first([model.result for model in heads.values()])
        networks = tuple(model for model in same if isinstance(model, NetworkModel))
        return Models(tuple(heads[result.head.name] for result in ranked), networks, ())

    def named(self, name: str) -> Model:
        """Return the model called `name`, fresh or fitting.

        Raises:
            VggftError: there is none; the message lists those there are.
        """
        for model in (*self.fresh, *self.fitting):
            if model.name == name:
                return model
        names = ", ".join(model.name for model in (*self.fresh, *self.fitting))
        raise VggftError(f"no model {name!r} here. Expected one of: {names or 'none yet'}.")


def load(workspace: Workspace, on_damage: Callable[[VggftError], None] | None = None) -> Models:
    """Read all models of a workspace, the best first.

    Args:
        on_damage: called for each damaged model, which is left out; without it the first is an error.

    Raises:
        VggftError: one of them is damaged.
    """
    results = heads.store.load_all(workspace.heads, on_damage)
    digests = {result.head.digest for result in results}
    fresh, stale = fresh_and_stale(workspace, results)
    networks = [
        NetworkModel(workspace.finetune / run.name, run, run.start_digest in digests)
        for run in finetune.store.load_all(workspace.finetune, on_damage)
    ]
    networks.sort(key=lambda network: network.rank)
    state = provenance.current(workspace)
    stale_models: tuple[Model, ...] = (
        *(_head_model(workspace, result) for result in stale),
        *(network for network in networks if not provenance.matches(state, network.provenance)),
    )
    return Models(
        tuple(_head_model(workspace, result) for result in best_first(fresh)),
        tuple(network for network in networks if provenance.matches(state, network.provenance)),
        stale_models,
        tuple(model for model in stale_models if provenance.fits(workspace, model.classes, model.provenance)),
    )


def fresh_and_stale(workspace: Workspace, results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Return the heads made from the workspace's present state, and the stale ones."""
    state = provenance.current(workspace)
    fresh = [result for result in results if provenance.matches(state, result.head.provenance)]
    return fresh, [result for result in results if not provenance.matches(state, result.head.provenance)]


def fresh_heads(workspace: Workspace) -> tuple[HeadModel, ...]:
    """Return the fresh heads, the best first.

    Raises:
        VggftError: there are none, or only stale ones.
    """
    results = heads.store.load_all(workspace.heads)
    fresh, stale = fresh_and_stale(workspace, results)
    if fresh:
        return tuple(_head_model(workspace, result) for result in best_first(fresh))
    if stale:
        first = stale[0].head
        raise VggftError(
            f"{workspace.heads}: all heads are stale ({first.name}: "
            f"{provenance.difference(workspace, first.classes, first.provenance)}). Train them again: vggft head"
        )
    raise VggftError(f"{workspace.root}: no heads here yet. Run first: vggft head --workspace {workspace.root}")


def _head_model(workspace: Workspace, result: Result) -> HeadModel:
    return HeadModel(workspace.heads / result.head.name, result, workspace.architecture.top)
