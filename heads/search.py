"""Many heads on the same features, and one leaderboard: what trains together, what is judged on what, what is best."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from time import perf_counter
from typing import Any, Literal

import numpy as np

from heads import folds, logistic, population
from heads.features import Features
from heads.head import Head
from heads.history import Epoch
from heads.logistic import STRENGTHS, Tried
from heads.metrics import Metrics, measure
from heads.plan import Plan
from heads.predictions import Predictions
from heads.specs import DenseSpec, LogisticSpec, Spec

# Shows a bar: what is done, how many steps it has, and what a step is called; the value is told how many are done.
Progress = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]

# Parameters of one batched program, at most: with Adam's two moments and the gradients half a gigabyte.
_PARAMETERS_AT_ONCE = 2**25

_INNER_FOLDS = 5  # one of them is held back inside a fold, to find how long to train

# What heads are ranked by: out-of-fold log-loss, the mean over seeds on validation, or validation log-loss.
Criterion = Literal["folds", "seeds", "validation"]


@dataclass(frozen=True)
class Setting:
    """What all heads of a run share: class names, how they are trained, and who shows the progress."""

    classes: Sequence[str]
    plan: Plan
    progress: Progress


@dataclass(frozen=True)
class Spread:
    """Validation numbers over several seeds: mean, and standard deviation (n − 1)."""

    seeds: int
    log_loss: float
    log_loss_sd: float
    accuracy: float
    accuracy_sd: float

    @classmethod
    def of(cls, measured: Sequence[Metrics]) -> "Spread":
        """Return the spread of two or more measurements."""
        values = np.array([[m.log_loss, m.accuracy] for m in measured])
        mean, sd = values.mean(axis=0), values.std(axis=0, ddof=1)
        return cls(len(measured), float(mean[0]), float(sd[0]), float(mean[1]), float(sd[1]))


@dataclass(frozen=True)
class Result:
    """A trained head and how it did.

    Attributes:
        seconds: of its training; heads that train together share the time of their program evenly.
        validation: metrics on the validation images.
        history: learning curve (dense heads); search: what the search for the strength saw (logistic regression).
        status: "ok", or what a person should know before trusting it ("not converged …", "diverged …").
        remark: how the kept state was chosen.
        folds: metrics of the out-of-fold predictions, where it was cross-validated.
        spread: over seeds, where it was trained with several.
        predictions, out_of_fold, pipeline: only where it was trained just now.
    """

    head: Head
    seconds: float
    validation: Metrics
    history: Sequence[Epoch] = ()
    search: Sequence[Tried] = ()
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
    """A head whose loss was no number before its first epoch was over: nothing of it can be kept."""

    name: str
    reason: str


def recipe(spec: Spec, plan: Plan) -> dict[str, Any]:
    """Return all that decides a head, its features aside, for JSON."""
    if isinstance(spec, LogisticSpec):
        return {"kind": "logistic", **asdict(spec), "seed": plan.seed, "class_weight": plan.class_weight}
    return {"kind": "dense", **asdict(spec), **asdict(plan)}


def of_recipe(name: str, kept: Mapping[str, Any]) -> tuple[Spec, Plan]:
    """Return specification and plan of the head whose `recipe` this is.

    The plan of a regression has of its own only what matters to it; the rest is as usual.
    """
    kind = LogisticSpec if kept["kind"] == "logistic" else DenseSpec
    spec = kind(**{field.name: kept[field.name] for field in fields(kind)})
    return replace(spec, name=name), Plan(**{f.name: kept[f.name] for f in fields(Plan) if f.name in kept})


def train_all(
    specs: Sequence[Spec], setting: Setting, train: Features, validation: Features
) -> Iterator[Result | Failed]:
    """Train heads, and yield each as soon as it has finished, so that a stopped run keeps what it finished.

    A head's provenance is its `recipe`; where the features came from is the caller's to add.
    """
    for group in _programs(specs, train):
        if isinstance(group, LogisticSpec):
            yield _logistic(group, setting, train, validation)
            continue
        with setting.progress(f"training {_called(group)}", setting.plan.epochs, "epochs") as advance:
            for grown in population.grow(group, setting.classes, train, setting.plan, validation, advance):
                yield _dense(grown, setting.plan, validation)


def over_seeds(
    specs: Sequence[Spec], setting: Setting, train: Features, validation: Features, seeds: int
) -> Iterator[Result | Failed]:
    """Train heads again with the seeds after the plan's, `seeds` in all; yield each result."""
    for seed in range(setting.plan.seed + 1, setting.plan.seed + seeds):
        again = replace(setting, plan=replace(setting.plan, seed=seed))
        for result in train_all(specs, again, train, validation):
            if isinstance(result, Failed):
                yield replace(result, reason=f"with seed {seed} {result.reason}")
            else:
                yield result


def cross_validate(
    trained: Sequence[tuple[Spec, Result]], setting: Setting, features: Features, number: int
) -> Iterator[Result | Failed]:
    """Train heads on all but one fold, predict that one, and so on; yield each with its out-of-fold predictions added.

    Folds are stratified, and part no group. How long a dense head trains, and how strong the L2 of a regression is, is found
    inside each fold, on the images that are learnt from. So no image that is held out chooses anything in its fold.

    Args:
        trained: heads with their results on the validation images.
        features: of the training and validation images together.
        number: of folds.
    """
    parts = folds.share_out(features.targets, features.groups, number, setting.plan.seed)
    held = np.zeros(len(features), np.int64)
    for k, (_, outer) in enumerate(parts):
        held[outer] = k
    results = {spec.name: result for spec, result in trained}
    for group in _programs([spec for spec, _ in trained], features):
        own = [group] if isinstance(group, LogisticSpec) else group
        p = {spec.name: np.empty((len(features), len(setting.classes))) for spec in own}
        failed = {}
        for k, (inner, outer) in enumerate(parts):
            train = features.take(inner)
            own_setting = replace(setting, progress=_in_fold(setting.progress, k, number))
            for name, head in _of_fold(group, own_setting, train):
                if head is None:
                    failed[name] = Failed(name, f"diverged in fold {k + 1} of {number}: not cross-validated")
                else:
                    p[name][outer] = head.scores(features.pooled[head.pooling][outer])
        for spec in own:
            if spec.name in failed:
                yield failed[spec.name]
            else:
                result, measured = results[spec.name], measure(p[spec.name], features.targets)
                head = replace(result.head, provenance={**result.head.provenance, "folds": number})
                out_of_fold = Predictions(features.samples, features.targets, p[spec.name], held)
                yield replace(result, head=head, folds=measured, out_of_fold=out_of_fold)


def _of_fold(
    group: LogisticSpec | list[DenseSpec], setting: Setting, train: Features
) -> Iterator[tuple[str, Head | None]]:
    classes, plan = setting.classes, setting.plan
    if isinstance(group, LogisticSpec):
        with setting.progress(group.name, _fits(), "fits") as advance:
            yield group.name, logistic.train(group, classes, train, plan.seed, plan.class_weight, advance).head
        return
    lengths = _lengths(group, setting, train)
    with setting.progress(_called(group), max(lengths), "epochs") as advance:
        for grown in population.grow(group, classes, train, plan, lengths, advance):
            yield grown.spec.name, grown.head


def _lengths(group: Sequence[DenseSpec], setting: Setting, train: Features) -> list[int]:
    """Return how many epochs each head should train, as a fifth of these images says, held back for that."""
    plan = setting.plan
    parts = folds.most(train.targets, train.groups, _INNER_FOLDS)
    if parts < 2:  # too little to hold anything back
        return [plan.epochs] * len(group)
    inner, outer = folds.share_out(train.targets, train.groups, parts, plan.seed)[0]
    best = {}
    with setting.progress(f"{_called(group)}, how long", plan.epochs, "epochs") as advance:
        for grown in population.grow(group, setting.classes, train.take(inner), plan, train.take(outer), advance):
            best[grown.spec.name] = max(1, grown.best)
    return [best[spec.name] for spec in group]


def _in_fold(progress: Progress, k: int, number: int) -> Progress:
    return lambda what, total, unit: progress(f"fold {k + 1} of {number}: {what}", total, unit)


def _logistic(spec: LogisticSpec, setting: Setting, train: Features, validation: Features) -> Result:
    plan = setting.plan
    began = perf_counter()
    with setting.progress(f"training {spec.name}", _fits(), "fits") as advance:
        fitted = logistic.train(spec, setting.classes, train, plan.seed, plan.class_weight, advance)
    seconds = perf_counter() - began
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


def _dense(grown: population.Grown, plan: Plan, validation: Features) -> Result | Failed:
    diverged = f"diverged in epoch {grown.diverged}" if grown.diverged else ""
    if grown.head is None:
        return Failed(grown.spec.name, f"{diverged}: its loss is no number. Give it a lower learning rate")
    p = grown.head.scores(validation.pooled[grown.spec.pooling])
    return Result(
        replace(grown.head, provenance={"recipe": recipe(grown.spec, plan)}),
        grown.seconds,
        measure(p, validation.targets),
        history=grown.history,
        status=diverged or "ok",
        remark=f"epoch {grown.best} of {len(grown.history)} kept",
        predictions=Predictions(validation.samples, validation.targets, p),
    )


def _programs(specs: Sequence[Spec], train: Features) -> Iterator[LogisticSpec | list[DenseSpec]]:
    """Yield what trains together: regressions one by one, pooled dense heads all together, those on flattened maps alone."""
    together: list[DenseSpec] = []
    parameters = 0
    alone: list[DenseSpec] = []
    for spec in specs:
        if isinstance(spec, LogisticSpec):
            yield spec
        elif spec.pooling == "flatten":
            alone.append(spec)
        else:
            own = train.pooled[spec.pooling].shape[1] * max(1, spec.units)
            if together and parameters + own > _PARAMETERS_AT_ONCE:
                yield together
                together, parameters = [], 0
            together.append(spec)
            parameters += own
    if together:
        yield together
    for spec in alone:
        yield [spec]


def _called(group: Sequence[DenseSpec]) -> str:
    return group[0].name if len(group) == 1 else f"{len(group)} pooled heads together"


def _fits() -> int:
    return logistic.FOLDS * len(STRENGTHS)


def merit(validation: Metrics, parameters: int) -> tuple[float, int]:
    """What "best" means, for heads and tuned networks: lowest validation log-loss, ties to fewer trained numbers."""
    return validation.log_loss, parameters


def criterion(results: Sequence[Result]) -> Criterion:
    """What these heads can be ranked by: the measure from most images or seeds that all of them have, made alike."""
    made = [result.head.provenance for result in results]
    if len({provenance.get("recipe", {}).get("seed") for provenance in made}) == 1:  # it decides the folds, too
        if all(result.folds for result in results) and len({provenance.get("folds") for provenance in made}) == 1:
            return "folds"
        if len({result.spread.seeds for result in results if result.spread}) == 1 and all(r.spread for r in results):
            return "seeds"
    return "validation"


def best_first(results: Sequence[Result]) -> list[Result]:
    """Order by log-loss as `criterion` says, ties to fewer trained numbers."""
    by = criterion(results)

    def key(result: Result) -> tuple[float, int]:
        if by == "folds" and result.folds:
            return merit(result.folds, result.head.parameters)
        if by == "seeds" and result.spread:
            return result.spread.log_loss, result.head.parameters
        return merit(result.validation, result.head.parameters)

    return sorted(results, key=key)
