"""Training and ranking many heads on the same features: grouping, seeds, cross-validation, the order of the leaderboard."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from time import perf_counter
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

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

# Where the provenance of a cross-validated head has the number of folds.
TRAINING_FOLDS = "training_folds"

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
    settings.pop("views", None)
    if plan.views:  # recipes of earlier versions have none
        settings["views"] = plan.views
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
    train = train.with_views(setting.plan.views)
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
    trained: Sequence[tuple[Spec, Result]], setting: Setting, train: Features, validation: Features, number: int
) -> Iterator[Result | Failed]:
    """Cross-validate heads; yield each result with predictions of images that no weight has seen, and their metrics, added.

    Each training image is predicted by a head that was trained without its fold, as long and with the C that training on all
    of them found best. The validation images are predicted by the head itself. Folds are stratified by class and never divide
    a group. Metrics are of the images that are `judged`.

    Args:
        trained: heads with their results on the validation images.
        number: number of folds.
    """
    train = train.with_views(setting.plan.views)
    parts = folds.split(train.targets, train.groups, number, setting.plan.seed)
    counted = judged(train, validation, number, setting.plan.seed)
    fold_of_image = np.full(len(train) + len(validation), -1, np.int64)
    for k, (_, held_out) in enumerate(parts):
        fold_of_image[held_out] = k
    samples = [*train.samples, *validation.samples]
    targets = np.concatenate([train.targets, validation.targets])
    results = {spec.name: result for spec, result in trained}
    for group in _groups([spec for spec, _ in trained], train):
        names = [group.name] if isinstance(group, LogisticSpec) else [spec.name for spec in group]
        p = {name: np.empty((len(samples), len(setting.classes))) for name in names}
        failed = {}
        for k, (learnt, held_out) in enumerate(parts):
            fold_setting = replace(setting, progress=_in_fold(setting.progress, k, number))
            for name, head in _train_again(group, fold_setting, train.take(learnt), results):
                if head is None:
                    failed[name] = Failed(name, f"diverged in fold {k + 1} of {number}: not cross-validated")
                else:
                    p[name][held_out] = head.scores(train.pooled[head.pooling][held_out])
        for name in names:
            if name in failed:
                yield failed[name]
                continue
            result = results[name]
            p[name][len(train) :] = result.head.scores(validation.pooled[result.head.pooling])
            head = replace(result.head, provenance={**result.head.provenance, TRAINING_FOLDS: number})
            out_of_fold = Predictions(samples, targets, p[name], fold_of_image)
            metrics = measure(p[name][counted], targets[counted])
            yield replace(result, head=head, folds=metrics, out_of_fold=out_of_fold)


def judged(train: Features, validation: Features, number: int, seed: int) -> NDArray[np.bool_]:
    """Return which of the training and validation images (n,) tell heads apart in a cross-validation.

    Those whose class is all in one fold do not: no head that predicts them has seen another image of it.
    """
    found = np.ones(len(train) + len(validation), bool)
    for learnt, held_out in folds.split(train.targets, train.groups, number, seed):
        found[held_out] = np.isin(train.targets[held_out], train.targets[learnt])
    return found


def _train_again(
    group: LogisticSpec | list[DenseSpec], setting: Setting, train: Features, results: Mapping[str, Result]
) -> Iterator[tuple[str, Head | None]]:
    """Train heads on other images, with the number of epochs or C of their results; None: the loss diverged."""
    classes, plan = setting.classes, setting.plan
    if isinstance(group, LogisticSpec):
        C = logistic.best_C(results[group.name].search)
        yield group.name, logistic.train(group, classes, train, plan.seed, plan.class_weight, C=C).head
        return
    epochs = [best_epoch(results[spec.name].history) for spec in group]
    with setting.progress(_label(group), max(epochs), "epochs") as advance:
        for trained in population.train_together(group, classes, train, plan, epochs, advance):
            yield trained.spec.name, trained.head


def best_epoch(history: Sequence[Epoch]) -> int:
    """Return the epoch whose weights a dense head has."""
    return min(history, key=lambda epoch: epoch.val_log_loss).epoch


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
        numbers = {provenance.get(TRAINING_FOLDS) for provenance in provenances}
        if all(result.folds for result in results) and len(numbers) == 1 and None not in numbers:
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
