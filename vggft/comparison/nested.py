"""Outer folds: heads, their choice and fine-tuning all over again without the images that are predicted then.

Each fold is a workspace of its own below `report/cv/`, on the features of the whole: what is held out is its test split, a
fifth of the rest its validation split. So the same commands train in it, and go on in it after an interruption.
"""

import hashlib
import io
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from featurize import durable
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.data.dataset import Dataset, Sample, Split
from featurize.errors import VggftError
from featurize.wording import counted
from finetune import store
from finetune.network import ParityError
from finetune.store import Run
from heads import features, folds, leaks, search
from heads import store as heads_store
from heads.plan import Plan
from heads.search import Result
from heads.specs import BEST, SCRATCH, Spec
from vggft.comparison.candidates import Candidate, CandidatePredictions
from vggft.prediction import judging, models
from vggft.prediction.models import Model, Models
from vggft.steps import finetune, head
from vggft.steps.options import FinetuneOptions, HeadOptions
from vggft.ui.console import Ui, duration
from vggft.workspace.filling import as_it_was
from vggft.workspace.workspace import Settings, Workspace

BEST_HEAD, BEST_NETWORK = "best head", "best network"  # no name of a head or run has a space

_ABOUT = "folds.json"  # what the folder is named after: the proof that it is vggft's
_FOLD = re.compile(r"fold-\d+(\.npz)?$")
# Names in a fold's folder besides those of `finetune.store`.
_FILES = frozenset(
    {_ABOUT, "heads", "finetune", "report", "lock", "lock.txt", "leaderboard.csv", "suspects.csv", *heads_store.FILES}
)

_HELD_FOR_VALIDATION = 5  # of a fold's training images, one part in so many chooses epochs and heads
_SEED = 0
_COMPILING = 4.0  # seconds of a fold and of each network that no number of images changes: seen on drawings


class Fold(Workspace):
    """A workspace with the features of another one, and its images split in another way."""

    def __init__(self, whole: Workspace, root: Path, dataset: Dataset) -> None:
        """Take the images of `dataset`; nothing is written before something is trained."""
        super().__init__(root, whole.architecture)
        self._whole = whole
        self._dataset = dataset

    @property
    def settings(self) -> Settings:
        """Those of the whole."""
        return self._whole.settings

    @property
    def dataset(self) -> Dataset:
        """The images, split as this fold has them."""
        return self._dataset

    def cache(self, fingerprint: Fingerprint | None = None, *, recheck: bool = False) -> FeatureCache:
        """Open the cache of the whole."""
        return self._whole.cache(fingerprint, recheck=recheck)


@dataclass(frozen=True)
class _Done:
    """What came of a fold.

    Attributes:
        probabilities: method → (held out, classes).
        head, network: what it would have chosen; `unchanged`: no epoch of fine-tuning was better than the head.
        seconds: that it took; None where it was interrupted.
    """

    probabilities: Mapping[str, NDArray[np.float64]]
    head: str
    network: str
    unchanged: bool
    seconds: float | None

    def chosen(self) -> dict[str, Any]:
        """Return all but the probabilities."""
        return {key: value for key, value in asdict(self).items() if key != "probabilities"}

    def save(self, path: Path) -> None:
        kept = self.chosen()
        buffer = io.BytesIO()
        names = list(self.probabilities)
        arrays = {f"p{i}": self.probabilities[name] for i, name in enumerate(names)}
        np.savez(buffer, about=np.frombuffer(json.dumps({**kept, "names": names}).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        durable.write_bytes(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> "_Done | None":
        """Return what `save` wrote; None where it is missing or damaged, and the fold has to be done again."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                names = about.pop("names")
                return cls({name: arrays[f"p{i}"] for i, name in enumerate(names)}, **about)
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, NotImplementedError, RuntimeError):
            return None


def _key(about: str) -> str:
    """Return the name of the folder of folds that are described like this."""
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def _is_of_folds(folder: Path) -> bool:
    """Return whether a folder is one of outer folds: no link, and named after the description in it."""
    try:
        return not folder.is_symlink() and _key((folder / _ABOUT).read_text(encoding="utf-8")) == folder.name
    except (OSError, ValueError):
        return False


def _remove_other_folds(place: Path, but: Path) -> None:
    """Delete outer folds of other heads, networks or images, and nothing that a person keeps beside or in them."""
    for folder in place.glob("*/"):
        if folder != but and _is_of_folds(folder):
            durable.remove_known(folder, _is_of_fold)
            durable.remove_known(folder, lambda path, own=folder: path == own)  # type: ignore[misc]


def _is_of_fold(path: Path) -> bool:
    """Return whether a file or folder below the folder of folds has a name that vggft gives."""
    named = path.name in _FILES or bool(_FOLD.match(path.name)) or store.is_ours(path)
    return named or (path.is_dir() and path.parent.name in ("heads", "finetune"))  # of a head or a run


def estimate(workspace: Workspace, found: Models, number: int) -> float:
    """Return about how many seconds the folds will take, by what heads and networks took in the workspace."""
    counts = workspace.dataset.split_counts
    images = counts["train"] + counts["validate"]
    share = (1 - 1 / number) * (1 - 1 / _HELD_FOR_VALIDATION) * images / max(1, counts["train"])
    again = 1 + max(_ranking(found))  # heads that are ranked over folds or seeds are trained so often in each
    heads = again * sum(method.seconds for method in found.heads)
    networks = sum(method.seconds for method in found.networks)
    return number * (share * (heads + networks) + _COMPILING * (1 + len(found.networks)))


def _ranking(found: Models) -> tuple[int, int]:
    """Return by how many folds and seeds the workspace ranks its heads; 0: by none."""
    results = [method.made for method in found.heads if isinstance(method.made, Result)]
    by = search.criterion(results)
    if by == "folds":
        return int(results[0].head.provenance["folds"]), 0
    if by == "seeds" and results[0].spread:
        return 0, results[0].spread.seeds
    return 0, 0


class Folds:
    """The outer folds of a workspace; the workspace's lock must be held."""

    def __init__(
        self, workspace: Workspace, found: Models, number: int, leave_out: Callable[[str], None], ui: Ui
    ) -> None:
        """Share the images out.

        Args:
            leave_out: told of a run that is left out, as it cannot be repeated, or not in every fold.

        Raises:
            VggftError: there are too few of them for so many folds.
        """
        self.workspace, self.found, self.number, self.ui = workspace, found, number, ui
        dataset = workspace.dataset
        samples = [*dataset.accepted("train"), *dataset.accepted("validate")]
        samples.sort(key=lambda sample: (sample.digest, sample.label, sample.path))  # files may be renamed
        targets = dataset.targets(samples)
        with ui.progress("reading features", len(samples)) as advance:
            read = features.read(workspace.cache(), samples, targets, ["avg"], advance)
        together = leaks.together(read)
        most = folds.most(together.targets, together.groups, number)
        if most < number:
            raise VggftError(
                f"--cv {number}: at least two classes need {number} groups of images each (near-duplicates and copies count as "
                f"one), here they have {most}. Ask for fewer folds, or add images."
            )
        self.samples, self.targets = samples, read.targets
        self._groups = np.asarray(together.groups)
        self._parts = folds.share_out(read.targets, together.groups, number, _SEED)
        self._ranking = _ranking(found)
        self._recipes = [
            result.made.head.provenance["recipe"] for result in found.heads if isinstance(result.made, Result)
        ]
        self._leave_out = leave_out
        self._runs = self._that_can_be_repeated()
        self._about = self._describe()
        self.folder = workspace.report / "cv" / _key(self._about)

    @property
    def network(self) -> Model:
        """The best network of the workspace among those that are tuned again in each fold."""
        return self.found.named(self._runs[0].name)

    def _that_can_be_repeated(self) -> list[Run]:
        """Return the runs whose head and files are there; others are left out, and named.

        Raises:
            VggftError: there is none.
        """
        root, heads = self.workspace.dataset.root, {method.name for method in self.found.heads}
        runs = [method.made for method in self.found.networks if isinstance(method.made, Run)]
        reads = self.samples if any(run.split_point is None for run in runs) else []  # from pixels
        gone = [sample.path for sample in reads if not as_it_was(root / sample.path, sample.digest)]
        kept = []
        for run in runs:
            start = run.settings.start
            if start not in (BEST, SCRATCH, *heads):
                reason = f"the head that it starts from, {start}, is not here any more: vggft head --head {start}"
            elif run.split_point is None and gone:
                reason = f"it is trained from pixels, and {counted(len(gone), 'image')} gone or changed (the first: {gone[0]})"
            else:
                kept.append(run)
                continue
            self._leave_out(f"{run.name}: {reason}")
        if runs and not kept:
            raise VggftError(f"--cv {self.number}: no network can be tuned again. Tune one that can: vggft finetune")
        return kept

    def _describe(self) -> str:
        """Return everything that decides what comes of the folds, as JSON."""
        rows = [(s.digest, s.label, group) for s, group in zip(self.samples, self._groups.tolist(), strict=True)]
        runs = [(run.name, run.settings.unfreeze, run.settings.start, asdict(run.settings.plan)) for run in self._runs]
        recipes = sorted((method.name, recipe) for method, recipe in zip(self.found.heads, self._recipes, strict=True))
        made = models.provenance(self.workspace)
        how = [made, models.versions()["backend"], self.number, _SEED, self._ranking, recipes, sorted(runs), rows]
        return json.dumps(how, sort_keys=True)

    def evidence(self) -> tuple[CandidatePredictions, Sequence[Mapping[str, Any]]]:
        """Train what is not trained yet, fold by fold, and put the predictions together.

        Returns:
            The evidence; and what each fold would have chosen (head, network), whether no epoch of fine-tuning was better than
            the head there (unchanged), and its seconds (None: it was interrupted).
        """
        done = []
        self._announce()
        self.folder.mkdir(parents=True, exist_ok=True)
        durable.write_bytes(self.folder / _ABOUT, self._about.encode())
        for k, (learnt, held) in enumerate(self._parts):
            path = self.folder / f"fold-{k + 1}.npz"
            kept = _Done.read(path)
            if kept is None:
                kept = self._train(k, learnt, held)
                kept.save(path)
                self._say(k, kept)
            durable.remove_known(self._place(k), _is_of_fold)  # also what a kill left behind
            done.append(kept)
        _remove_other_folds(self.folder.parent, but=self.folder)
        return self._together(done), [{"fold": k + 1, **one.chosen()} for k, one in enumerate(done)]

    def _say(self, k: int, done: _Done) -> None:
        left = self.number - k - 1
        took = f" in {duration(done.seconds)}" if done.seconds else ""
        then = f"; about {duration(done.seconds * left)} left" if done.seconds and left else ""
        self.ui.say(f"fold {k + 1} of {self.number}{took}: {done.head}, {done.network}{then}")

    def _announce(self) -> None:
        finished = sum(_Done.read(self.folder / f"fold-{k + 1}.npz") is not None for k in range(self.number))
        left = estimate(self.workspace, self.found, self.number) * (self.number - finished) / self.number
        kept = f", {finished} of them done before" if finished else ""
        then = "nothing to train" if finished == self.number else f"about {duration(left)}"
        self.ui.say(
            f"{self.number} folds over {len(self.samples)} images{kept}: {counted(len(self._recipes), 'head')} and "
            f"{counted(len(self._runs), 'tuned network')} in each, {then}"
        )

    def _place(self, k: int) -> Path:
        return self.folder / f"fold-{k + 1}"

    def _train(self, k: int, learnt: NDArray[np.intp], held: NDArray[np.intp]) -> _Done:
        """Train and choose in one fold, and predict what it holds out."""
        resumed, began = self._place(k).exists(), time.perf_counter()
        ui = self.ui.within(f"fold {k + 1} of {self.number}")
        fold = Fold(self.workspace, self._place(k), self._split(learnt, held))
        number, seeds = self._ranking
        for plan, specs in self._heads().items():
            head.train(fold, HeadOptions(plan=plan, seeds=seeds or 1, cv=number), specs, ui)
        for run in self._runs:
            try:
                self._tune(fold, run, ui)
            except ParityError as error:  # of this fold's head; the other runs can be compared all the same
                self.ui.warn(f"fold {k + 1}: {run.name} cannot be tuned: {error}")
        found = models.load(fold)
        if not found.networks:
            raise VggftError(
                f"fold {k + 1} of {self.number}: no network can be tuned from the heads there. Tune one from another head, with "
                "vggft finetune --from, and compare again."
            )
        p = judging.judge(found.fresh, fold, fold.cache(), [self.samples[i] for i in held])
        best, network = found.heads[0], found.networks[0]
        seconds = None if resumed else time.perf_counter() - began
        return _Done(p, best.name, network.name, network.unchanged, seconds)

    def _split(self, learnt: NDArray[np.intp], held: NDArray[np.intp]) -> Dataset:
        """Return the images with what is held out as test split, and a fifth of the others as validation."""
        groups = self._groups[learnt].tolist()
        parts = folds.most(self.targets[learnt], groups, _HELD_FOR_VALIDATION)
        if parts < 2:
            raise VggftError(
                f"--cv {self.number}: what a fold leaves is too little to hold a validation part back (two groups of two classes "
                "are needed). Add images, or ask for more folds."
            )
        validation = folds.share_out(self.targets[learnt], groups, parts, _SEED)[0][1]
        split = np.full(len(self.samples), "train", dtype="U8")
        split[held] = "test"
        split[learnt[validation]] = "validate"
        samples: list[Sample] = [
            replace(sample, split=cast(Split, str(own)), group=str(group))
            for sample, own, group in zip(self.samples, split, self._groups, strict=True)
        ]
        whole = self.workspace.dataset
        return Dataset(whole.root, whole.classes, tuple(sorted(samples, key=lambda sample: sample.path)))

    def _heads(self) -> Mapping[Plan, list[Spec]]:
        """Return the workspace's heads, those that are trained in the same way together."""
        grouped: dict[Plan, list[Spec]] = defaultdict(list)
        for method, recipe in zip(self.found.heads, self._recipes, strict=True):
            spec, plan = search.of_recipe(method.name, recipe)
            grouped[plan].append(spec)
        return grouped

    def _tune(self, fold: Fold, run: Run, ui: Ui) -> None:
        """Do in a fold what a run did in the workspace; go on where it was interrupted."""
        if (fold.finetune / run.name / store.RUN).exists():
            return
        if any(begun.folder.name == run.name for begun in store.unfinished(fold.finetune)):
            finetune.run(fold, FinetuneOptions(name=run.name, resume=True), ui)
            return
        settings = run.settings
        options = FinetuneOptions(
            unfreeze=settings.unfreeze,
            start=settings.start,
            name=run.name,
            plan=settings.plan,
            precision=settings.plan.precision,
            memory=settings.memory,
        )
        finetune.run(fold, options, ui)

    def _together(self, done: Sequence[_Done]) -> CandidatePredictions:
        """Put the predictions of all folds together, of the methods that could be trained in each."""
        kinds = {method.name: method for method in self.found.fresh}
        everywhere = [name for name in kinds if all(name in one.probabilities for one in done)]
        lacking = sorted(kinds.keys() - set(everywhere))
        for name in lacking:
            self._leave_out(f"{name}: it could not be trained in every fold")
        classes = self.workspace.dataset.classes
        held_by = np.zeros(len(self.samples), np.int64)
        for k, (_, held) in enumerate(self._parts):
            held_by[held] = k

        def joined(names: Sequence[str]) -> NDArray[np.float64]:
            p = np.empty((len(self.samples), len(classes)))
            for one, name, (_, held) in zip(done, names, self._parts, strict=True):
                p[held] = one.probabilities[name]
            return p

        candidates = [
            Candidate(BEST_HEAD, "chosen", joined([one.head for one in done]), None),
            Candidate(BEST_NETWORK, "chosen", joined([one.network for one in done]), None),
            *(Candidate(name, kinds[name].kind, joined([name] * len(done)), kinds[name]) for name in everywhere),
        ]
        samples = [replace(s, group=group) for s, group in zip(self.samples, self._groups.tolist(), strict=True)]
        declared = self.workspace.settings.group_by is not None
        return CandidatePredictions(
            "folds", classes, samples, self.targets, candidates, BEST_HEAD, BEST_NETWORK, declared, fold=held_by
        )
