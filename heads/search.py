"""Training and ranking many heads on the same features: grouping, seeds, cross-validation, the order of the leaderboard."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from time import perf_counter
from typing import Annotated, Any, Literal

import numpy as np

from featurize.options import Option
from featurize.options.records import AtLeast0, Share
from heads import folds, logistic, population
from heads.features import Features
from heads.head import LEAST_SCALE, Head
from heads.history import Epoch
from heads.logistic import C_VALUES, SearchPoint
from heads.metrics import Metrics, measure
from heads.plan import Plan
from heads.predictions import Predictions
from heads.specs import DenseSpec, LogisticSpec, Spec

# Opens a progress bar: label, number of steps, unit. The context manager's value is called with the number of finished steps.
Progress = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]

# Maximum number of parameters trained together: half a gigabyte with Adam's two moments and the gradients.
_PARAMETERS_AT_ONCE = 2**25

# In cross-validation, a fifth of a fold's training images (more if there are few groups) sets the number of epochs.
_INNER_FOLDS = 5

# Heads are ranked by out-of-fold log-loss, by the mean validation log-loss over seeds, or by validation log-loss.
Criterion = Literal["folds", "seeds", "validation"]


@dataclass(frozen=True)
class Setting:
    """Settings that all heads of a run share: class names, training plan, progress display."""

    classes: Sequence[str]
    plan: Plan
    progress: Progress


@dataclass(frozen=True)
class Spread:
    """Validation metrics over several seeds: mean and standard deviation (n − 1)."""

    seeds: Annotated[int, Option(least=2)]
    log_loss: AtLeast0
    log_loss_sd: AtLeast0
    accuracy: Share
    accuracy_sd: AtLeast0

    @classmethod
    def of(cls, measured: Sequence[Metrics]) -> "Spread":
        """Return mean and standard deviation of two or more measurements."""
        values = np.array([[m.log_loss, m.accuracy] for m in measured])
        mean, sd = values.mean(axis=0), values.std(axis=0, ddof=1)
        return cls(len(measured), float(mean[0]), float(sd[0]), float(mean[1]), float(sd[1]))


@dataclass(frozen=True)
class Result:
    """A trained head and its metrics.

    Attributes:
        seconds: training time; for heads trained together, divided by their number.
        validation: metrics on the validation images.
        history: learning curve of a dense head.
        search: results of the search for C of a logistic regression.
        status: "ok", or a warning ("not converged", "diverged in epoch 7").
        remark: how the epoch or C was chosen.
        folds: metrics of the out-of-fold predictions; None without cross-validation.
        spread: metrics over several seeds; None if trained with one seed.
        predictions, out_of_fold, pipeline: None if the head was read from disk.
    """

    head: Head
    seconds: float
    validation: Metrics
    history: Sequence[Epoch] = ()
    search: Sequence[SearchPoint] = ()
    status: str = "ok"
    remark: str = ""
    folds: Metrics | None = None
    spread: Spread | None = None
    predictions: Predictions | None = None
    out_of_fold: Predictions | None = None
    pipeline: Any = None

    def as_json(self) -> dict[str, Any]:
        """Return name, kind, pooling, parameters, seconds, status, remark and metrics."""
        return {
            "name": self.head.name,
            "kind": self.head.kind,
            "pooling": self.head.pooling,
            "parameters": self.head.parameters,
            "seconds": self.seconds,
            "status": self.status,
            "remark": self.remark,
            "validation": self.validation.as_json(),
            **({"folds": self.folds.as_json()} if self.folds else {}),
            **({"seeds": asdict(self.spread)} if self.spread else {}),
        }


@dataclass(frozen=True)
class Failed:
    """A head without a result, because its loss became NaN or infinite, and the reason."""

    name: str
    reason: str


def recipe(spec: Spec, plan: Plan) -> dict[str, Any]:
    """Return everything that determines a head besides its features, as JSON."""
    if isinstance(spec, LogisticSpec):
        settings = {"kind": "logistic", **asdict(spec), "seed": plan.seed, "class_weight": plan.class_weight}
    else:
        settings = {"kind": "dense", **asdict(spec), **asdict(plan)}
    return {**settings, "least_scale": LEAST_SCALE}


def of_recipe(name: str, stored: Mapping[str, Any]) -> tuple[Spec, Plan]:
    """Return the specification and plan from a stored `recipe`.

    The recipe of a logistic regression has only the fields of the plan that affect it; the others get their defaults.
    """
    kind = LogisticSpec if stored["kind"] == "logistic" else DenseSpec
    spec = kind(**{field.name: stored[field.name] for field in fields(kind)})
    return replace(spec, name=name), Plan(**{f.name: stored[f.name] for f in fields(Plan) if f.name in stored})


def train_all(
    specs: Sequence[Spec], setting: Setting, train: Features, validation: Features
) -> Iterator[Result | Failed]:
    """Train heads, and yield each one as soon as it is finished, so that the caller can save it.

    The provenance of a head is its `recipe`; the caller adds the source of the features.
    """
    for group in _groups(specs, train):
        if isinstance(group, LogisticSpec):
            yield _logistic(group, setting, train, validation)
            continue
        with setting.progress(f"training {_label(group)}", setting.plan.epochs, "epochs") as advance:
            for trained in population.train_together(group, setting.classes, train, setting.plan, validation, advance):
                yield _dense(trained, setting.plan, validation)


def over_seeds(
    specs: Sequence[Spec], setting: Setting, train: Features, validation: Features, seeds: int
) -> Iterator[Result | Failed]:
    """Train heads again with the next `seeds` − 1 seeds after the plan's; yield each result."""
    for seed in range(setting.plan.seed + 1, setting.plan.seed + seeds):
        seed_setting = replace(setting, plan=replace(setting.plan, seed=seed))
        for result in train_all(specs, seed_setting, train, validation):
            if isinstance(result, Failed):
                yield replace(result, reason=f"with seed {seed}, {result.reason}")
            else:
                yield result


def cross_validate(
    trained: Sequence[tuple[Spec, Result]], setting: Setting, features: Features, number: int
) -> Iterator[Result | Failed]:
    """Cross-validate heads; yield each result with its out-of-fold predictions and their metrics added.

    Folds are stratified by class and never divide a group. Inside each fold, the number of epochs of a dense head and the C of
    a logistic regression are chosen on the training images of that fold, so held-out images select nothing.

    Args:
        trained: heads with their results on the validation images.
        features: the training and validation images together.
        number: number of folds.
    """
    parts = folds.split(features.targets, features.groups, number, setting.plan.seed)
    fold_of_image = np.zeros(len(features), np.int64)
    for k, (_, held_out) in enumerate(parts):
        fold_of_image[held_out] = k
    results = {spec.name: result for spec, result in trained}
    for group in _groups([spec for spec, _ in trained], features):
        specs = [group] if isinstance(group, LogisticSpec) else group
        p = {spec.name: np.empty((len(features), len(setting.classes))) for spec in specs}
        failed = {}
        for k, (train, held_out) in enumerate(parts):
            fold_setting = replace(setting, progress=_in_fold(setting.progress, k, number))
            for name, head in _train_fold(group, fold_setting, features.take(train)):
                if head is None:
                    failed[name] = Failed(name, f"diverged in fold {k + 1} of {number}: not cross-validated")
                else:
                    p[name][held_out] = head.scores(features.pooled[head.pooling][held_out])
        for spec in specs:
            if spec.name in failed:
                yield failed[spec.name]
            else:
                result, metrics = results[spec.name], measure(p[spec.name], features.targets)
                head = replace(result.head, provenance={**result.head.provenance, "folds": number})
                out_of_fold = Predictions(features.samples, features.targets, p[spec.name], fold_of_image)
                yield replace(result, head=head, folds=metrics, out_of_fold=out_of_fold)


def _train_fold(
    group: LogisticSpec | list[DenseSpec], setting: Setting, train: Features
) -> Iterator[tuple[str, Head | None]]:
    classes, plan = setting.classes, setting.plan
    if isinstance(group, LogisticSpec):
        with setting.progress(group.name, _fits(), "fits") as advance:
            yield group.name, logistic.train(group, classes, train, plan.seed, plan.class_weight, advance).head
        return
    epochs = _find_epochs(group, setting, train)
    with setting.progress(_label(group), max(epochs), "epochs") as advance:
        for trained in population.train_together(group, classes, train, plan, epochs, advance):
            yield trained.spec.name, trained.head


def _find_epochs(group: Sequence[DenseSpec], setting: Setting, train: Features) -> list[int]:
    """Return the number of epochs for each head, found by early stopping on some of these images."""
    plan = setting.plan
    parts = folds.max_folds(train.targets, train.groups, _INNER_FOLDS)
    if parts < 2:  # too few groups to set any aside
        return [plan.epochs] * len(group)
    inner, held_out = (train.take(rows) for rows in folds.split(train.targets, train.groups, parts, plan.seed)[0])
    best = {}
    with setting.progress(f"{_label(group)}, number of epochs", plan.epochs, "epochs") as advance:
        for trained in population.train_together(group, setting.classes, inner, plan, held_out, advance):
            best[trained.spec.name] = max(1, trained.best)
    return [best[spec.name] for spec in group]


def _in_fold(progress: Progress, k: int, number: int) -> Progress:
    return lambda label, total, unit: progress(f"fold {k + 1} of {number}: {label}", total, unit)


def _logistic(spec: LogisticSpec, setting: Setting, train: Features, validation: Features) -> Result:
    plan = setting.plan
    start = perf_counter()
    with setting.progress(f"training {spec.name}", _fits(), "fits") as advance:
        fitted = logistic.train(spec, setting.classes, train, plan.seed, plan.class_weight, advance)
    seconds = perf_counter() - start
    p = fitted.head.scores(validation.pooled[spec.pooling])
    return Result(
        replace(fitted.head, provenance={"recipe": recipe(spec, plan)}),
        seconds,
        measure(p, validation.targets),
        search=fitted.search,
        status="ok" if fitted.converged else "not converged",
        remark=fitted.status,
        predictions=Predictions(validation.samples, validation.targets, p),
        pipeline=fitted.pipeline,
    )


def _dense(trained: population.TrainedHead, plan: Plan, validation: Features) -> Result | Failed:
    diverged = f"diverged in epoch {trained.diverged}" if trained.diverged else ""
    if trained.head is None:
        return Failed(trained.spec.name, f"{diverged}: the loss is NaN or infinite. Use a lower learning rate")
    p = trained.head.scores(validation.pooled[trained.spec.pooling])
    return Result(
        replace(trained.head, provenance={"recipe": recipe(trained.spec, plan)}),
        trained.seconds,
        measure(p, validation.targets),
        history=trained.history,
        status=diverged or "ok",
        remark=f"best epoch: {trained.best} of {len(trained.history)}",
        predictions=Predictions(validation.samples, validation.targets, p),
    )


def _groups(specs: Sequence[Spec], train: Features) -> Iterator[LogisticSpec | list[DenseSpec]]:
    """Yield what is trained together: pooled dense heads in large groups; regressions and flatten heads one at a time."""
    together: list[DenseSpec] = []
    parameters = 0
    alone: list[DenseSpec] = []
    for spec in specs:
        if isinstance(spec, LogisticSpec):
            yield spec
        elif spec.pooling == "flatten":
            alone.append(spec)
        else:
            size = train.pooled[spec.pooling].shape[1] * max(1, spec.units)
            if together and parameters + size > _PARAMETERS_AT_ONCE:
                yield together
                together, parameters = [], 0
            together.append(spec)
            parameters += size
    if together:
        yield together
    for spec in alone:
        yield [spec]


def _label(group: Sequence[DenseSpec]) -> str:
    return group[0].name if len(group) == 1 else f"{len(group)} pooled heads together"


def _fits() -> int:
    return logistic.FOLDS * len(C_VALUES)


def merit(validation: Metrics, parameters: int) -> tuple[float, int]:
    """Sort key of heads and tuned networks, best first: validation log-loss, then number of trained parameters."""
    return validation.log_loss, parameters


def criterion(results: Sequence[Result]) -> Criterion:
    """Return the most reliable criterion that all heads have: same folds, else the same number of seeds, else validation."""
    provenances = [result.head.provenance for result in results]
    if len({provenance.get("recipe", {}).get("seed") for provenance in provenances}) == 1:  # also the seed of the folds
        if (
            all(result.folds for result in results)
            and len({provenance.get("folds") for provenance in provenances}) == 1
        ):
            return "folds"
        if len({result.spread.seeds for result in results if result.spread}) == 1 and all(r.spread for r in results):
            return "seeds"
    return "validation"


def best_first(results: Sequence[Result]) -> list[Result]:
    """Sort heads by log-loss under their common `criterion`, ties by number of trained parameters."""
    by = criterion(results)

    def key(result: Result) -> tuple[float, int]:
        if by == "folds" and result.folds:
            return merit(result.folds, result.head.parameters)
        if by == "seeds" and result.spread:
            return result.spread.log_loss, result.head.parameters
        return merit(result.validation, result.head.parameters)

    return sorted(results, key=key)
