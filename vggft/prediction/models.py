"""All models of a workspace, fresh or stale, the best first."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import finetune.store
import heads.store
from featurize.errors import VggftError
from finetune.store import Run, Settings
from heads.head import HEAD_FILE
from heads.search import Criterion, Result, best_first, criterion
from heads.specs import DEFAULTS, without_views
from vggft.prediction.head_model import HeadModel
from vggft.prediction.model import Model
from vggft.prediction.network_model import NetworkModel
from vggft.workspace import provenance
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

_Stored = TypeVar("_Stored", Result, Run)


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
        latest = max(self.fitting, key=_written)
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


def _written(model: Model) -> int:
    """Return when a model was written, in nanoseconds since 1970: its folder also changes with a person's notes."""
    record = HEAD_FILE if isinstance(model, HeadModel) else finetune.store.RUN
    return (model.folder / record).stat().st_mtime_ns


def load(workspace: Workspace, on_damage: Callable[[VggftError], None] | None = None) -> Models:
    """Read all models of a workspace, the best first.

    Args:
        on_damage: called for each damaged model, which is left out; without it the first is an error.

    Raises:
        VggftError: one of them is damaged.
    """
    fresh, stale = load_heads(workspace, on_damage)
    digests = {result.head.digest for result in (*fresh, *stale)}
    networks = [
        NetworkModel(workspace.finetune / run.name, run, run.start_digest in digests)
        for run in load_runs(workspace, on_damage)
    ]
    networks.sort(key=lambda network: network.rank)
    fresh_networks = [n for n in networks if provenance.is_fresh(workspace, n.classes, n.provenance)]
    stale_models: tuple[Model, ...] = (
        *(_head_model(workspace, result) for result in stale),
        *(network for network in networks if network not in fresh_networks),
    )
    return Models(
        tuple(_head_model(workspace, result) for result in best_first(fresh)),
        tuple(fresh_networks),
        stale_models,
        tuple(model for model in stale_models if provenance.fits(workspace, model.classes, model.provenance)),
    )


def load_heads(
    workspace: Workspace, on_damage: Callable[[VggftError], None] | None = None
) -> tuple[list[Result], list[Result]]:
    """Read the heads made from the workspace's present state, and the stale ones; `on_damage` as in `load`."""
    results = _intact(heads.store.load_all(workspace.heads, on_damage), _check_head, workspace, on_damage)
    fresh: list[Result] = []
    stale: list[Result] = []
    for result in results:
        is_fresh = provenance.is_fresh(workspace, result.head.classes, result.head.provenance)
        (fresh if is_fresh else stale).append(result)
    return fresh, stale


def load_runs(workspace: Workspace, on_damage: Callable[[VggftError], None] | None = None) -> list[Run]:
    """Read the finished runs, fresh or stale, sorted by name; `on_damage` as in `load`."""
    return _intact(finetune.store.load_all(workspace.finetune, on_damage), _check_run, workspace, on_damage)


def _intact(
    models: Sequence[_Stored],
    check: Callable[[Workspace, _Stored], None],
    workspace: Workspace,
    on_damage: Callable[[VggftError], None] | None,
) -> list[_Stored]:
    """Return the models that pass a check; the others are damage, as in `load`."""
    intact = []
    for model in models:
        try:
            check(workspace, model)
            intact.append(model)
        except VggftError as error:
            if on_damage is None:
                raise
            on_damage(error)
    return intact


def _check_head(workspace: Workspace, result: Result) -> None:
    """Check that a head reads features of the size that its provenance says.

    Raises:
        VggftError: it does not.
    """
    head = result.head
    if head.provenance.get("fingerprint") != workspace.settings.fingerprint.key:
        return  # of features whose size is not known; it never predicts here
    height, width, filters = workspace.architecture.layers[-1].shape(workspace.settings.fingerprint.size)
    expected = {"flatten": height * width * filters, "avgmax": 2 * filters}.get(head.pooling, filters)
    if head.inputs != expected:
        raise VggftError(
            f"{workspace.heads / head.name}: damaged ({head.inputs} inputs, expected {expected}). Train it again: vggft head"
            f"{workspace_flag(workspace.root)}"
        )


def _check_run(workspace: Workspace, run: Run) -> None:
    """Check that a run was split where its settings say, and changed only layers above it.

    Raises:
        VggftError: it was not, or did not.
    """
    settings = run.settings
    problem = ""
    if not split_fits(workspace, settings):
        problem = f"{settings.unfreeze} does not lie above {settings.split_point}"
    else:
        tuned = {layer.name for layer in workspace.architecture.above(run.split_point) if layer.convolution}
        if not tuned.issuperset(run.moved):
            problem = f"moved: {', '.join(run.moved)}, not only tuned layers"
    if problem:
        raise VggftError(
            f"{workspace.finetune / run.name}: damaged ({problem}). Tune again: vggft finetune"
            f"{workspace_flag(workspace.root)}"
        )


def split_fits(workspace: Workspace, settings: Settings) -> bool:
    """Return whether the split point of a run lies below the layers that its settings tune."""
    try:
        return workspace.architecture.split_point(settings.unfreeze) == settings.split_point
    except VggftError:  # an unknown layer
        return False


def training(workspace: Workspace, head: str) -> str:
    """Return the command that trains a head again, by its name. FILE stands for the file of specifications that defines it."""
    base, views = without_views(head)
    settings, where = workspace.settings, workspace_flag(workspace.root)
    more = f"vggft featurize {shlex.quote(settings.data)} --views {views}{where} && " if views > settings.views else ""
    chosen = f" --views {views}" if views < settings.views else ""
    grid = "" if base in {spec.name for spec in DEFAULTS} else " --grid FILE"
    return f"{more}vggft head --head {base}{chosen}{grid}{where}"


def fresh_heads(workspace: Workspace, on_damage: Callable[[VggftError], None] | None = None) -> tuple[HeadModel, ...]:
    """Return the fresh heads, the best first; `on_damage` as in `load`.

    Raises:
        VggftError: there are none, or only stale ones.
    """
    fresh, stale = load_heads(workspace, on_damage)
    if fresh:
        return tuple(_head_model(workspace, result) for result in best_first(fresh))
    if stale:
        first = stale[0].head
        raise VggftError(
            f"{workspace.heads}: all heads are stale ({first.name}: "
            f"{provenance.difference(workspace, first.classes, first.provenance)}). Train them again: vggft head"
            f"{workspace_flag(workspace.root)}"
        )
    raise VggftError(f"{workspace.root}: no heads here yet. Run first: vggft head{workspace_flag(workspace.root)}")


def _head_model(workspace: Workspace, result: Result) -> HeadModel:
    reads = workspace.read_by_heads([result.head.pooling])[0]
    return HeadModel(workspace.heads / result.head.name, result, reads)
