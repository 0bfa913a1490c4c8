"""Nested cross-validation: heads, their selection and fine-tuning are repeated in each outer fold, without its held-out images.

Each fold is a workspace of its own below `report/cv/`, on the features of the whole one: the held-out images are its test
split, a fifth of the others its validation split. Training in it is what the commands do, and resumes after an interruption.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

import finetune.plan
from featurize.data.dataset import Dataset, Sample, Split
from featurize.disk import durable
from featurize.errors import VggftError
from featurize.wording import counted
from finetune.network import ParityError
from finetune.plan import BEST, LOGISTIC, SCRATCH
from finetune.store import Run
from heads import features, folds, near_duplicates, search
from heads.plan import Plan
from heads.specs import Spec
from vggft.comparison import fold_files
from vggft.comparison.candidates import Candidate, CandidatePredictions
from vggft.comparison.fold_files import Fold, FoldResult
from vggft.prediction import inference, models
from vggft.prediction.models import Models
from vggft.prediction.network_model import NetworkModel
from vggft.ui.console import Ui, duration
from vggft.workspace import provenance, views
from vggft.workspace.filling import as_it_was, copies
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

BEST_HEAD, BEST_NETWORK = "best head", "best network"  # no model has a name with a space

_VALIDATION_PARTS = 5  # one part of this many of a fold's training images selects epochs and heads
_SEED = 0
_COMPILING = 4.0  # seconds of a fold, and of each network in it, whatever the number of images; measured on drawings


class Ranking(NamedTuple):
    """By how many folds or seeds heads are ranked; 0: by none."""

    folds: int
    seeds: int


class Trainers(Protocol):
    """Trains in a fold as the commands do in a workspace, and resumes what was interrupted there."""

    def train_heads(self, fold: Workspace, plan: Plan, specs: Sequence[Spec], ranking: Ranking, ui: Ui) -> None:
        """Train heads, ranked over as many folds or seeds as in the whole workspace."""

    def tune(self, fold: Workspace, run: Run, ui: Ui) -> None:
        """Tune a network with the settings of a run of the whole workspace."""


def ranking(present: Models) -> Ranking:
    """Return how the workspace ranks its heads."""
    results = [model.result for model in present.heads]
    by = present.heads_ranked_by
    if by == "folds":
        return Ranking(int(results[0].head.provenance[search.TRAINING_FOLDS]), 0)
    if by == "seeds" and results[0].spread:
        return Ranking(0, results[0].spread.seeds)
    return Ranking(0, 0)


def estimate(workspace: Workspace, present: Models, number: int) -> float:
    """Return roughly how many seconds the folds take, from what training took in the workspace."""
    counts = workspace.dataset.split_counts
    images = counts["train"] + counts["validate"]
    share = (1 - 1 / number) * (1 - 1 / _VALIDATION_PARTS) * images / max(1, counts["train"])
    by = ranking(present)
    trainings = 2 if by.folds else max(1, by.seeds)  # of each head; all folds together take about as long as training
    heads = trainings * sum(model.seconds for model in present.heads)
    networks = sum(model.seconds for model in present.networks)
    return number * (share * (heads + networks) + _COMPILING * (1 + len(present.networks)))


def _described(plan: finetune.plan.Plan) -> dict[str, Any]:
    """Return the settings of a plan; without `views` where there are none, as in earlier versions."""
    return {key: value for key, value in asdict(plan).items() if key != "views" or value}


class NestedCrossValidation:
    """The outer folds of a workspace, whose lock must be held.

    Attributes:
        samples, targets: the images, and the positions of their classes (n,).
        groups: the group of each image (n,), with near-duplicates in one group.
        parts: for each fold the positions of the images to train on, and of those it holds out.
        runs: the runs that are repeated in each fold.
        folder: where results are kept.
    """

    def __init__(
        self,
        workspace: Workspace,
        present: Models,
        number: int,
        trainers: Trainers,
        leave_out: Callable[[str], None],
        ui: Ui,
    ) -> None:
        """Read the features and assign images to folds.

        Args:
            number: of folds.
            leave_out: called for each run that cannot be repeated, or not in every fold.

        Raises:
            VggftError: too few images for this many folds, or no run can be repeated.
        """
        self.workspace, self.present, self.number, self.ui = workspace, present, number, ui
        self.trainers, self._leave_out = trainers, leave_out
        dataset = workspace.dataset
        self.samples = [*dataset.accepted("train"), *dataset.accepted("validate")]
        self.samples.sort(key=lambda sample: (sample.digest, sample.label, sample.path))  # files may be renamed
        with ui.progress("reading features", len(self.samples)) as advance:
            read = features.read(
                workspace.cache(),
                self.samples,
                dataset.targets(self.samples),
                ["avg"],
                progress=advance,
                kept=workspace.settings.layers,
            )
        together, grouping = near_duplicates.together(read)
        for sentence in grouping.sentences():
            ui.warn(sentence)
        most = folds.max_folds(together.targets, together.groups, number)
        if most < number:
            raise VggftError(
                f"--cv {number}: at least two classes need {number} groups of images each (near-duplicates and copies form one "
                f"group); here they have {most}. Use fewer folds, or add images."
            )
        self.targets = read.targets
        self.groups = np.asarray(together.groups)
        self.parts = folds.split(read.targets, together.groups, number, _SEED)
        self._ranking = ranking(present)
        self.runs = self._repeatable_runs()
        of_heads, of_runs = (
            [plan.views for plan in self._heads_by_plan()],
            [run.settings.plan.views for run in self.runs],
        )
        self._views = max([*of_heads, *of_runs], default=0)
        self._about = self._describe()
        self.folder = workspace.report / "cv" / fold_files.key(self._about)

    @property
    def network(self) -> NetworkModel:
        """The best network of the workspace among those that are tuned again in each fold."""
        return next(model for model in self.present.networks if model.name == self.runs[0].name)

    def _repeatable_runs(self) -> list[Run]:
        """Return the runs whose head and files are present.

        Raises:
            VggftError: there is none.
        """
        heads = {model.name for model in self.present.heads}
        runs = [model.run for model in self.present.networks]
        reads = self.samples if any(run.split_point is None for run in runs) else []  # from pixels
        files = copies(self.workspace.dataset, {sample.digest for sample in reads})
        missing = [s.path for s in reads if not any(as_it_was(path, s.digest) for path in files[s.digest])]
        repeatable = []
        for run in runs:
            start = run.settings.start
            if start not in (BEST, LOGISTIC, SCRATCH, *heads):
                train = models.training(self.workspace, start)
                self._leave_out(f"{run.name}: the head it starts from is missing. To train it: {train}")
            elif run.split_point is None and missing:
                images = f"{counted(len(missing), 'image')} missing or changed (first: {missing[0]})"
                self._leave_out(f"{run.name}: it is tuned from pixels, and there are files of {images}")
            else:
                repeatable.append(run)
        if runs and not repeatable:
            raise VggftError(
                f"--cv {self.number}: no network of this workspace can be tuned again. Tune one: vggft finetune"
                f"{workspace_flag(self.workspace.root)}"
            )
        return repeatable

    def _describe(self) -> str:
        """Return everything that decides the results, as JSON. The order of its parts decides the folder's name."""
        rows = [(s.digest, s.label, group) for s, group in zip(self.samples, self.groups.tolist(), strict=True)]
        runs = [
            (run.name, run.settings.unfreeze, run.settings.start, _described(run.settings.plan)) for run in self.runs
        ]
        recipes = sorted((model.name, model.recipe) for model in self.present.heads)
        state, backend = provenance.current(self.workspace), provenance.versions()["backend"]
        about = [state, backend, self.number, _SEED, self._ranking, recipes, sorted(runs), rows]
        return json.dumps(about, sort_keys=True)

    def predict(
        self, elsewhere: Callable[[Sequence[int]], None] = lambda folds: None
    ) -> tuple[CandidatePredictions, list[FoldResult]]:
        """Train the folds that are not finished, and merge the predictions of their held-out images.

        Args:
            elsewhere: called with those folds first; the ones that it finishes, in whatever process, are not trained here.

        Raises:
            VggftError: a fold in which no network can be tuned, or too little to hold a validation split back.
        """
        results = []
        self._announce()
        self._compute_views()
        self.folder.mkdir(parents=True, exist_ok=True)
        durable.sweep(self.folder)
        durable.write_bytes(self.folder / fold_files.ABOUT, self._about.encode())
        elsewhere([k for k in range(self.number) if self._finished(k) is None])
        for k in range(self.number):
            result = self._finished(k)
            if result is None:
                result = self.train(k)
                self.keep(k, result, self.number - k - 1)
            durable.remove_known(self._place(k), fold_files.is_ours)  # also what a killed process left
            results.append(result)
        fold_files.remove_others(self.folder.parent, but=self.folder)
        return self.merge(results), results

    def _compute_views(self) -> None:
        """Compute the views of validation images, too: in a fold, some of them are trained on.

        Raises:
            VggftError: files are missing.
        """
        if all(self._finished(k) for k in range(self.number)):
            return
        layers = {model.reads for model in self.present.heads}
        layers |= {run.split_point for run in self.runs if run.settings.plan.views and run.split_point}
        views.compute(self.workspace, self._views, self.samples, sorted(layers), self.ui)

    def _announce(self) -> None:
        finished = sum(self._finished(k) is not None for k in range(self.number))
        seconds = estimate(self.workspace, self.present, self.number) * (self.number - finished) / self.number
        before = f", {finished} of them finished before" if finished else ""
        rest = "nothing to train" if finished == self.number else f"about {duration(seconds)}"
        heads, networks = counted(len(self.present.heads), "head"), counted(len(self.runs), "tuned network")
        self.ui.say(
            f"{self.number} folds of {len(self.samples)} images{before}: {heads} and {networks} in each, {rest}"
        )

    def keep(self, k: int, result: FoldResult, left: int) -> None:
        """Keep the result of fold k, and say what it has selected; `left`: the number of folds that are trained after it."""
        result.save(self._file(k))
        took = f" in {duration(result.seconds)}" if result.seconds else ""
        rest = f"; about {duration(result.seconds * left)} left" if result.seconds and left else ""
        self.ui.say(f"fold {k + 1} of {self.number}{took}: {result.head}, {result.network}{rest}")

    def _finished(self, k: int) -> FoldResult | None:
        """Return the result of a fold that is finished."""
        return FoldResult.read(self._file(k), len(self.parts[k][1]), len(self.workspace.dataset.classes))

    def _place(self, k: int) -> Path:
        return self.folder / f"fold-{k + 1}"

    def _file(self, k: int) -> Path:
        return self.folder / f"fold-{k + 1}.npz"

    def train(self, k: int) -> FoldResult:
        """Train and select models in fold k (from 0), and predict the images that it holds out."""
        resumed, began = self._place(k).exists(), time.perf_counter()
        ui = self.ui.within(f"fold {k + 1} of {self.number}")
        fold = Fold(self.workspace, self._place(k), self.split(k), self._views)
        for plan, specs in self._heads_by_plan().items():
            self.trainers.train_heads(fold, plan, specs, self._ranking, ui)
        for run in self.runs:
            try:
                self.trainers.tune(fold, run, ui)
            except ParityError as error:  # of this fold's head; the other runs can be compared all the same
                self.ui.warn(f"fold {k + 1}: {run.name} cannot be tuned: {error}")
        trained = models.load(fold)
        if not trained.networks:
            raise VggftError(
                f"fold {k + 1} of {self.number}: no network can be tuned from the heads of this fold. Tune one from another "
                "head, with vggft finetune --from, and compare again."
            )
        held_out = [self.samples[i] for i in self.parts[k][1]]
        probabilities = inference.from_cache(trained.fresh, fold, fold.cache(), held_out)
        network = trained.networks[0]
        seconds = None if resumed else time.perf_counter() - began
        return FoldResult(probabilities, trained.heads[0].name, network.name, network.unchanged, seconds)

    def split(self, k: int) -> Dataset:
        """Return the images with those that fold k holds out as the test split, and a fifth of the others as validation."""
        learnt, held_out = self.parts[k]
        groups = self.groups[learnt].tolist()
        parts = folds.max_folds(self.targets[learnt], groups, _VALIDATION_PARTS)
        if parts < 2:
            raise VggftError(
                f"--cv {self.number}: too few images to hold a validation split back in each fold (two classes need two groups "
                "each). Add images, or use more folds."
            )
        validation = folds.split(self.targets[learnt], groups, parts, _SEED)[0][1]
        splits = np.full(len(self.samples), "train", dtype="U8")
        splits[held_out] = "test"
        splits[learnt[validation]] = "validate"
        samples: list[Sample] = [
            replace(sample, split=cast(Split, str(split)), group=str(group))
            for sample, split, group in zip(self.samples, splits, self.groups, strict=True)
        ]
        whole = self.workspace.dataset
        return Dataset(whole.root, whole.classes, tuple(sorted(samples, key=lambda sample: sample.path)))

    def _heads_by_plan(self) -> Mapping[Plan, list[Spec]]:
        """Return the workspace's heads; those with the same plan train together."""
        grouped: dict[Plan, list[Spec]] = defaultdict(list)
        for model in self.present.heads:
            spec, plan = search.of_recipe(model.name, model.recipe)
            grouped[plan].append(spec)
        return grouped

    def merge(self, results: Sequence[FoldResult]) -> CandidatePredictions:
        """Merge the predictions of all folds, of the models that could be trained in each of them."""
        by_name = {model.name: model for model in self.present.fresh}
        everywhere = [name for name in by_name if all(name in result.probabilities for result in results)]
        for name in sorted(by_name.keys() - set(everywhere)):
            self._leave_out(f"{name}: it could not be trained in every fold")
        classes = self.workspace.dataset.classes
        fold_of = np.zeros(len(self.samples), np.int64)
        for k, (_, held_out) in enumerate(self.parts):
            fold_of[held_out] = k

        def merged(names: Sequence[str]) -> NDArray[np.float64]:
            p = np.empty((len(self.samples), len(classes)))
            for result, name, (_, held_out) in zip(results, names, self.parts, strict=True):
                p[held_out] = result.probabilities[name]
            return p

        candidates = [
            Candidate(BEST_HEAD, "chosen", merged([result.head for result in results])),
            Candidate(BEST_NETWORK, "chosen", merged([result.network for result in results])),
            *(Candidate(name, by_name[name].kind, merged([name] * len(results))) for name in everywhere),
        ]
        samples = [replace(s, group=group) for s, group in zip(self.samples, self.groups.tolist(), strict=True)]
        declared = self.workspace.settings.group_by is not None
        return CandidatePredictions(
            "folds", classes, samples, self.targets, candidates, BEST_HEAD, BEST_NETWORK, declared, fold=fold_of
        )
