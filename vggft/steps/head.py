"""cache → heads and their leaderboard."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import numpy as np

from featurize import durable
from featurize.data.dataset import Sample
from featurize.errors import SEEDS, VggftError, require_whole
from featurize.wording import counted
from heads import features, folds, grid, leaks, search, store, suspects
from heads.features import Features
from heads.head import Pooling
from heads.leaks import Leak
from heads.metrics import Metrics
from heads.population import Plan
from heads.search import Failed, Result, Setting
from heads.specs import BEST, CLASSIC, DEFAULTS, SCRATCH, Spec
from heads.suspects import Suspect
from vggft.prediction import models
from vggft.steps import leaderboard
from vggft.ui.console import Ui
from vggft.workspace import provenance
from vggft.workspace.workspace import Workspace

FEW = 200  # validation images below which the leaderboard offers cross-validation
_FOLDS = 5  # where --suspects has to cross-validate


@dataclass(frozen=True)
class Options:
    """What to train and how.

    Attributes:
        names: heads to train, of the default set or of the grid; none: all of them.
        grid: TOML file that defines heads (`heads.grid`); the classic joins them.
        seeds: train with so many seeds, from the plan's on.
        folds: cross-validate with so many folds; 0: do not.
        suspects: list the images whose label the heads agree is wrong.
        retrain: train also what is here already, made with the same options from the same features.
    """

    plan: Plan = field(default_factory=Plan)
    names: tuple[str, ...] = ()
    grid: Path | None = None
    seeds: int = 1
    folds: int = 0
    suspects: bool = False
    retrain: bool = False


def run(workspace: Workspace, options: Options, ui: Ui) -> dict[str, Any]:
    """Train heads on the training split, judge on all of the validation split, keep all, mark the best.

    Raises:
        VggftError: options out of range, no features yet, or no head that could be trained.
    """
    return train(workspace, options, _specs(options), ui)


def train(workspace: Workspace, options: Options, specs: Sequence[Spec], ui: Ui) -> dict[str, Any]:
    """Do what `run` does with these heads, whatever the options say of names and grid.

    Raises:
        VggftError: as `run`.
    """
    _check(options)
    _ = workspace.settings  # before the lock makes a folder: is there anything here?
    for spec in specs:
        place = workspace.heads / spec.name
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise VggftError(f"{place}: is in the way of the head of that name, which is a folder. Move it away.")
    with workspace.writing():
        return _Session(workspace, options, specs, ui).run()


def _specs(options: Options) -> list[Spec]:
    own = grid.read(options.grid, [BEST, SCRATCH, *(spec.name for spec in DEFAULTS)]) if options.grid else []
    if not options.names:
        return [*own, CLASSIC] if own else list(DEFAULTS)
    known = {spec.name: spec for spec in [*DEFAULTS, *own]}
    for name in options.names:
        if name not in known:
            raise VggftError(
                f"--head {name}: no such head. There are: {', '.join(known)}. Define others with --grid FILE."
            )
    return [known[name] for name in dict.fromkeys(options.names)]


def _check(options: Options) -> None:
    plan = options.plan
    for name, value in (("--epochs", plan.epochs), ("--patience", plan.patience), ("--seeds", options.seeds)):
        require_whole(name, value, 1)
    require_whole("--batch-size", plan.batch_size, 1)
    require_whole("--seed", plan.seed, 0, SEEDS)
    if plan.seed + options.seeds > 2**32:
        raise VggftError(f"--seed {plan.seed} --seeds {options.seeds}: the last seed would be above 4294967295.")
    if options.folds < 0 or options.folds == 1:
        raise VggftError(f"--cv {options.folds}: expected 2 folds or more, such as 5.")
    if plan.class_weight not in (None, "balanced"):
        raise VggftError(f"--class-weight {plan.class_weight}: expected balanced, or leave it out.")


class _Session:
    """One run of the command, under the lock."""

    def __init__(self, workspace: Workspace, options: Options, specs: Sequence[Spec], ui: Ui) -> None:
        self.workspace, self.options, self.specs, self.ui = workspace, options, specs, ui
        self.dataset = workspace.dataset
        self.setting = Setting(self.dataset.classes, options.plan, ui.progress)
        # A damaged head may be one that is about to be replaced: it is reported at the end, if it still is there.
        found = store.load_all(workspace.heads, on_damage=lambda error: None)
        fresh, self.stale = models.fresh_and_stale(workspace, found)
        self.board = {result.head.name: result for result in fresh}
        self.trained: list[str] = []
        self.failed: list[Failed] = []
        self.seconds: dict[str, float] = defaultdict(float)

    def run(self) -> dict[str, Any]:
        options = self.options
        have = [result for result in self.board.values() if result.folds]
        asked_for = replace(options, suspects=False) != Options()  # more than the suspects
        only_suspects = options.suspects and bool(have) and not asked_for
        number = options.folds or (_FOLDS if options.suspects and not only_suspects else 0)
        todo = [] if only_suspects else [spec for spec in self.specs if options.retrain or not self._done(spec)]
        judged = [] if only_suspects else list(self.specs)
        everything, test = self._read(todo, judged, number)
        learnt = sum(sample.split == "train" for sample in everything.samples)
        train = leaks.together(everything.take(slice(0, learnt)))  # by itself: validation images change nothing here
        validation = everything.take(slice(learnt, None))
        everything = leaks.together(everything) if number else everything
        self._check_folds(everything, number)
        found = self._leaks(everything, test)
        self._train(todo, train, validation)
        if options.seeds > 1:
            self._over_seeds(judged, train, validation)
        if number:
            self._cross_validate(judged, everything, number)
        return self._report(everything, validation, found, len(judged) - len(todo))

    def _read(self, todo: Sequence[Spec], judged: Sequence[Spec], number: int) -> tuple[Features, Features | None]:
        """Read what has to be trained on, training images first; of the test images only what finds leaks."""
        splits = {split: self.dataset.accepted(split) for split in ("train", "validate", "test")}
        for split in ("train", "validate"):
            if not splits[split]:
                raise VggftError(
                    f"{self.workspace.manifest}: no usable image in split {split!r}. Add some: vggft featurize"
                )
        used = judged if number or self.options.seeds > 1 else todo
        wanted: set[Pooling] = {"avg", *(spec.pooling for spec in used)}
        began = perf_counter()
        samples = [*splits["train"], *splits["validate"]]
        everything = self._pooled(samples, [pooling for pooling in get_args(Pooling) if pooling in wanted])
        test = self._of_test(splits["test"])
        self.seconds["reading"] = perf_counter() - began
        return everything, test

    def _of_test(self, samples: Sequence[Sample]) -> Features | None:
        """Read the test images, to look for leaks; what is wrong with them stops nobody from training."""
        try:
            return self._pooled(samples, ["avg"]) if samples else None
        except VggftError as error:
            self.ui.warn(f"the test images are not searched for leaks. {error}")
            return None

    def _pooled(self, samples: Sequence[Sample], poolings: Sequence[Pooling]) -> Features:
        with self.ui.progress("reading features", len(samples)) as advance:
            return features.read(
                self.workspace.cache(), samples, self.dataset.targets(samples), poolings, progress=advance
            )

    def _check_folds(self, everything: Features, number: int) -> None:
        most = folds.most(everything.targets, everything.groups, number)
        if most < number:
            raise VggftError(
                f"--cv {number}: at least two classes need {number} groups of images each (near-duplicates and copies count as "
                f"one), here they have {most}. Ask for fewer folds, or add images."
            )

    def _leaks(self, everything: Features, test: Features | None) -> list[Leak]:
        samples, pooled = list(everything.samples), everything.pooled["avg"]
        if test is not None:
            samples += test.samples
            pooled = np.concatenate([pooled, test.pooled["avg"]])
        exact, near = leaks.exact(self.dataset.samples), leaks.near(samples, pooled)
        leaderboard.show_leaks(exact, near, self.ui)
        return [*exact, *near]

    def _done(self, spec: Spec) -> bool:
        kept = self.board.get(spec.name)
        return kept is not None and kept.head.provenance.get("recipe") == search.recipe(spec, self.options.plan)

    def _train(self, todo: Sequence[Spec], train: Features, validation: Features) -> None:
        if not todo:
            return
        made = {**provenance.current(self.workspace), **provenance.versions()}
        for result in self._timed(search.train_all(todo, self.setting, train, validation)):
            if isinstance(result, Failed):
                self._fail(result)
                continue
            self._keep(replace(result, head=replace(result.head, provenance={**made, **result.head.provenance})))
            self.trained.append(result.head.name)
        if not self.board:
            raise VggftError(f"no head could be trained. {self.failed[0].name}: {self.failed[0].reason}.")

    def _timed(self, results: Iterable[Result | Failed]) -> Iterable[Result | Failed]:
        """Pass results on, adding the time between them up by kind."""
        began = perf_counter()
        for result in results:
            now = perf_counter()
            if isinstance(result, Result):
                head = result.head
                kind = "logistic" if head.kind == "logistic" else "flatten" if head.pooling == "flatten" else "pooled"
                self.seconds[kind] += now - began
            yield result
            began = perf_counter()

    def _fail(self, failed: Failed) -> None:
        self.failed.append(failed)
        older = " (the head of that name that is here was made before)" if failed.name in self.board else ""
        self.ui.warn(f"{failed.name}: {failed.reason}{older}")

    def _keep(self, result: Result) -> None:
        before = self.board.get(result.head.name)
        if before and before.folds and not result.folds:
            self.ui.say(f"{result.head.name}: its out-of-fold predictions were of the head it replaces, and are gone")
        store.save(self.workspace.heads, result)
        self.board[result.head.name] = replace(result, predictions=None, out_of_fold=None, pipeline=None)
        self.stale = [other for other in self.stale if other.head.name != result.head.name]
        store.write_leaderboard(self.workspace.leaderboard, list(self.board.values()), self.stale)

    def _present(self, specs: Sequence[Spec]) -> list[Spec]:
        """Return those that could be trained."""
        return [spec for spec in specs if spec.name in self.board and self._done(spec)]

    def _over_seeds(self, specs: Sequence[Spec], train: Features, validation: Features) -> None:
        seeds = self.options.seeds
        wanted = [
            spec
            for spec in self._present(specs)
            if not (spread := self.board[spec.name].spread) or spread.seeds != seeds
        ]
        measured: dict[str, list[Metrics]] = {spec.name: [self.board[spec.name].validation] for spec in wanted}
        again = search.over_seeds(wanted, self.setting, train, validation, seeds)
        for result in self._timed(again):
            if isinstance(result, Failed):
                self._fail(result)
                continue
            name = result.head.name
            measured[name].append(result.validation)
            if len(measured[name]) == seeds:
                self._keep(replace(self.board[name], spread=search.Spread.of(measured[name])))

    def _cross_validate(self, specs: Sequence[Spec], everything: Features, number: int) -> None:
        wanted = []
        for spec in self._present(specs):
            kept = self.board[spec.name]
            if not kept.folds or kept.head.provenance.get("folds") != number:
                wanted.append((spec, kept))
        for result in self._timed(search.cross_validate(wanted, self.setting, everything, number)):
            if isinstance(result, Failed):
                self._fail(result)
            else:
                self._keep(result)

    def _report(self, everything: Features, validation: Features, found: list[Leak], reused: int) -> dict[str, Any]:
        workspace, ui = self.workspace, self.ui
        store.load_all(workspace.heads, on_damage=lambda error: ui.warn(str(error)))
        board = list(self.board.values())
        doubted = self._suspects(everything.samples) if self.options.suspects else None
        store.write_leaderboard(workspace.leaderboard, board, self.stale)
        ranked = search.best_first(board)
        leaderboard.show(ranked, ui)
        if reused:
            ui.say(f"kept: {counted(reused, 'head')} made with these options before (--retrain trains again)")
        if self.trained:
            spent = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.seconds.items())
            ui.say(f"{counted(len(self.trained), 'head')} trained: {spent}")
        if self.stale:
            names = ", ".join(result.head.name for result in self.stale)
            ui.say(f"stale, left out (made from an earlier state of the data): {names}")
        if not any(r.folds for r in board) and len(validation) < FEW:
            leaderboard.show_width(ranked[0].validation, len(everything), ui)
        ui.print(f"leaderboard: {workspace.leaderboard}")
        result = {
            "heads": [r.as_json() for r in ranked],
            "best": ranked[0].head.name,
            "ranked_by": search.criterion(board),
            "trained": self.trained,
            "failed": [asdict(failed) for failed in self.failed],
            "seconds": dict(self.seconds),
            "leaks": [leak.as_json() for leak in found],
            "leak_threshold": leaks.THRESHOLD,
            "leaderboard": str(workspace.leaderboard),
        }
        if doubted is not None:
            voters = [r.head.name for r in ranked if r.folds]
            leaderboard.show_suspects(doubted, len(everything), voters, workspace.suspects, ui)
            result["suspects"] = [suspect.as_json() for suspect in doubted]
            result["suspects_by"] = voters
        return result

    def _suspects(self, samples: Sequence[Sample]) -> list[Suspect]:
        folder = self.workspace.heads
        folded = [result.head for result in self.board.values() if result.folds]
        predictions = [store.read_out_of_fold(folder, head, samples) for head in folded]
        found = suspects.find(samples, self.dataset.classes, predictions)
        header = ["path", "label", "predicted", "score"]
        durable.write_csv(self.workspace.suspects, header, [tuple(s.as_json().values()) for s in found])
        return found
