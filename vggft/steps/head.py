"""cache → heads and their leaderboard."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

import heads.plan
from featurize.data.dataset import Sample
from featurize.errors import VggftError
from featurize.wording import counted
from finetune.plan import BEST, LOGISTIC, SCRATCH
from heads import folds, grid, near_duplicates, search, store
from heads.features import Features
from heads.metrics import Metrics
from heads.search import Result, Setting
from heads.specs import CLASSIC, DEFAULTS, NAME, DenseSpec, Spec, with_views
from vggft.comparison.order import Certainty, certainty
from vggft.prediction import models
from vggft.steps import head_inputs, label_check, leaderboard
from vggft.steps.board import Board
from vggft.steps.head_inputs import Inputs
from vggft.steps.options import HeadOptions
from vggft.ui.console import Ui
from vggft.workspace import provenance, views
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

_MANY = 5000  # images, above which resampling takes longer than a few seconds


def run(workspace: Workspace, options: HeadOptions, ui: Ui) -> dict[str, Any]:
    """Train heads on the training split, evaluate them on the validation split, and mark the best.

    Raises:
        VggftError: options out of range, no features yet, or no head that could be trained.
    """
    number = views.wanted(workspace, options.views)
    specs = head_inputs.readable(workspace, _specs(options, number), number, ui, named=bool(options.head))
    if number:
        specs = [replace(spec, name=_with_views(spec.name, number)) for spec in specs]
    alone = options.suspects and replace(options, suspects=False) == HeadOptions()
    options = replace(options, plan=replace(options.plan, views=number))
    return train(workspace, options, specs, ui, suspects_alone=alone)


def _with_views(name: str, number: int) -> str:
    named = with_views(name, number)
    if not NAME.fullmatch(named):
        raise VggftError(f"--views: {named!r} is too long for the name of a head. Choose a shorter one than {name!r}.")
    return named


def train(
    workspace: Workspace,
    options: HeadOptions,
    specs: Sequence[Spec],
    ui: Ui,
    *,
    fewer_folds: bool = False,
    suspects_alone: bool = False,
) -> dict[str, Any]:
    """Do what `run` does with these heads and the views of the plan, whatever the options say of names, grid and views.

    Args:
        fewer_folds: with too few images for `options.cv` folds, use as many as there can be.
        suspects_alone: train nothing; heads that are here, however they were trained, look for suspects.

    Raises:
        VggftError: as `run`.
    """
    for spec in specs:
        place = workspace.heads / spec.name
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise VggftError(f"{place}: not a folder, but the head is saved in a folder of this name. Move it away.")
        if (workspace.finetune / spec.name).exists():
            raise VggftError(
                f"head {spec.name}: a tuned network has that name. Give the head another name, or delete the run: "
                f"vggft runs --remove {spec.name}{workspace_flag(workspace.root)}"
            )
        foreign = store.foreign_files(place)
        if foreign:
            raise VggftError(
                f"{foreign[0]}: vggft cannot prove that it wrote this, and the head {spec.name} would replace it. Move it away."
            )
    with workspace.writing():
        board = Board(workspace, options.plan, ui)
        work = _suspecting(workspace, board) if suspects_alone and board.results else None
        work = work or _work(workspace, options, specs, board)
        inputs = _read(workspace, options, work, board, ui)
        number = _folds(options.cv, work.folds, inputs.train, fewer_folds, ui)
        setting = Setting(workspace.dataset.classes, options.plan, ui.progress)
        folded = [name for name, result in board.results.items() if result.folds]
        _train(workspace, work, setting, inputs, board)
        if options.seeds > 1:
            _over_seeds(work, options.seeds, setting, inputs, board)
        if not number and (lost := [name for name in folded if not board.results[name].folds]):
            ui.say(f"out-of-fold predictions are gone with the heads that were replaced: {', '.join(lost)}")
        if number:
            _cross_validate(work.evaluate, number, setting, inputs, board, ui)
        if options.suspects:
            label_check.cross_validate(workspace, work.doubting, setting, (inputs.train, inputs.validation), board, ui)
        return _report(workspace, options, work, inputs, board, ui)


def _specs(options: HeadOptions, number: int) -> list[Spec]:
    """Return the heads to train, with the learning rate that was asked for; `number` of views, which is no part of names yet."""
    specs = _named(options, number)
    if options.lr is None:
        return specs
    if not any(isinstance(spec, DenseSpec) for spec in specs):
        names = ", ".join(spec.name for spec in specs)
        raise VggftError(
            f"--lr {options.lr:g}: only dense heads have a learning rate, and these have none: {names}. Leave out --lr, or "
            "name a dense head."
        )
    return [replace(spec, learning_rate=options.lr) if isinstance(spec, DenseSpec) else spec for spec in specs]


def _named(options: HeadOptions, number: int) -> list[Spec]:
    custom = (
        grid.read(options.grid, [BEST, LOGISTIC, SCRATCH, *(spec.name for spec in DEFAULTS)]) if options.grid else []
    )
    if not options.head:
        return [*custom, CLASSIC] if custom else list(DEFAULTS)
    known = {spec.name: spec for spec in [*DEFAULTS, *custom]}
    names = [name if name in known else name.removesuffix(with_views("", number)) for name in options.head]
    for name in names:
        if name not in known:
            raise VggftError(
                f"--head {name}: no such head. Expected one of: {', '.join(known)}. Define others with --grid FILE."
            )
    return [known[name] for name in dict.fromkeys(names)]


@dataclass(frozen=True)
class _Work:
    """What is to be done.

    Attributes:
        train: heads to train.
        evaluate: those and the ones that are here already.
        folds: of cross-validation, if there are images enough; 0: none.
        doubting: names of the heads that predict out of fold for the suspects.
    """

    train: Sequence[Spec]
    evaluate: Sequence[Spec]
    folds: int
    doubting: Sequence[str] = ()


def _suspecting(workspace: Workspace, board: Board) -> _Work:
    return _Work((), (), 0, () if label_check.cross_validated(workspace, board) else tuple(board.results))


def _work(workspace: Workspace, options: HeadOptions, specs: Sequence[Spec], board: Board) -> _Work:
    missing = [spec for spec in specs if options.retrain or not board.has(spec)]
    few = len(workspace.dataset.accepted("validate")) < heads.plan.FEW
    wanted = (heads.plan.FOLDS if few else 0) if options.cv is None else options.cv
    return _Work(missing, list(specs), wanted, [spec.name for spec in specs] if options.suspects else ())


def _read(workspace: Workspace, options: HeadOptions, work: _Work, board: Board, ui: Ui) -> Inputs:
    """Read the features that the work needs."""
    specs = work.evaluate if work.folds or work.doubting or options.seeds > 1 else work.train
    doubting = [board.results[name].head for name in work.doubting if name in board.results]
    number = max((head.provenance["recipe"].get("views", 0) for head in doubting), default=0)
    if work.train or work.folds or options.seeds > 1:
        number = max(number, options.plan.views)
    began = perf_counter()
    inputs = head_inputs.read(workspace, {one.pooling for one in (*specs, *doubting)}, number, ui)
    board.seconds["reading"] = perf_counter() - began
    return inputs


def _folds(asked: int | None, wanted: int, train: Features, fewer: bool, ui: Ui) -> int:
    """Return the number of folds; 0: none.

    Args:
        asked: the value of --cv; None: by default as many as `wanted`, or fewer.

    Raises:
        VggftError: more were asked for than there can be, and fewer will not do.
    """
    most = folds.max_folds(train.targets, train.groups, wanted)
    if asked and most < asked and not fewer:
        raise VggftError(
            f"--cv {asked}: at least two classes need {asked} groups of training images each (near-duplicates and copies form "
            f"one group); here they have {most}. Use fewer folds, or add images."
        )
    if wanted and most < 2:
        ui.say("too few groups of training images for folds: heads are ranked by validation images only")
    return most if most >= 2 else 0


def _train(workspace: Workspace, work: _Work, setting: Setting, inputs: Inputs, board: Board) -> None:
    if not work.train:
        return
    trained_from = {**provenance.current(workspace), **provenance.versions()}
    for result in board.succeeded(search.train_all(work.train, setting, inputs.train, inputs.validation)):
        head = replace(result.head, provenance={**trained_from, **result.head.provenance})
        board.add(replace(result, head=head))
    if not board.results:
        raise VggftError(f"no head could be trained. {board.failed[0].name}: {board.failed[0].reason}.")


def _over_seeds(work: _Work, seeds: int, setting: Setting, inputs: Inputs, board: Board) -> None:
    """Train again with further seeds, and add mean and spread to each head."""
    specs = []
    for spec in board.present(work.evaluate):
        spread = board.results[spec.name].spread
        if not spread or spread.seeds != seeds:
            specs.append(spec)
    metrics: dict[str, list[Metrics]] = {spec.name: [board.results[spec.name].validation] for spec in specs}
    for result in board.succeeded(search.over_seeds(specs, setting, inputs.train, inputs.validation, seeds)):
        name = result.head.name
        metrics[name].append(result.validation)
        if len(metrics[name]) == seeds:
            board.update(replace(board.results[name], spread=search.Spread.of(metrics[name])))


def _cross_validate(specs: Sequence[Spec], number: int, setting: Setting, inputs: Inputs, board: Board, ui: Ui) -> None:
    """Add predictions out of fold, and their metrics, to each head that lacks them."""
    pairs = []
    for spec in board.present(specs):
        result = board.results[spec.name]
        if not result.folds or result.head.provenance.get(search.TRAINING_FOLDS) != number:
            pairs.append((spec, result))
    if pairs:
        ui.say(leaderboard.announcement([result for _, result in pairs], number))
    for result in board.succeeded(search.cross_validate(pairs, setting, inputs.train, inputs.validation, number)):
        board.update(result)


def _report(
    workspace: Workspace, options: HeadOptions, work: _Work, inputs: Inputs, board: Board, ui: Ui
) -> dict[str, Any]:
    models.load_heads(workspace, on_damage=lambda error: ui.warn(f"left out: {error}"))
    samples = [*inputs.train.samples, *inputs.validation.samples]
    suspicion = label_check.find(workspace, samples, board) if options.suspects else None
    board.write_leaderboard()
    ranked = search.best_first(list(board.results.values()))
    leaderboard.show(ranked, ui)
    order = _order(workspace, ranked, inputs, ui)
    if order:
        leaderboard.show_order(ranked[0].head.name, order, len(ranked) - 1, ui)
    reused = len(work.evaluate) - len(work.train)
    if reused:
        ui.say(f"kept: {counted(reused, 'head')} trained with these options before (--retrain trains them again)")
    if board.trained:
        spent = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in board.seconds.items())
        ui.say(f"{counted(len(board.trained), 'head')} trained: {spent}")
    if board.stale:
        names = ", ".join(result.head.name for result in board.stale)
        ui.say(f"stale, left out (trained on an earlier state of the data): {names}")
    ui.print(f"leaderboard: {workspace.leaderboard}")
    report = {
        "heads": [result.as_json() for result in ranked],
        "best": ranked[0].head.name,
        "ranked_by": search.criterion(ranked),
        "order": order and {"first": order.first, "alike": [ranked[i].head.name for i in order.alike]},
        "trained": board.trained,
        "failed": [asdict(failed) for failed in board.failed],
        "seconds": dict(board.seconds),
        "leaks": [leak.as_json() for leak in inputs.leaks],
        "leak_threshold": near_duplicates.SHARE,
        "leaderboard": str(workspace.leaderboard),
    }
    if suspicion is not None:
        doubted, voters = suspicion
        leaderboard.show_suspects(doubted, len(samples), voters, workspace.suspects, ui)
        report["suspects"] = [suspect.as_json() for suspect in doubted]
        report["suspects_by"] = voters
    return report


def _order(workspace: Workspace, ranked: Sequence[Result], inputs: Inputs, ui: Ui) -> Certainty | None:
    """Return how sure the order of heads is; None for one head, many images, a ranking over seeds, or damaged predictions."""
    by = search.criterion(ranked)
    if len(ranked) < 2 or by == "seeds":
        return None
    samples: Sequence[Sample] = inputs.validation.samples
    file = store.PREDICTIONS
    if by == "folds":
        made = ranked[0].head.provenance
        counted = search.judged(inputs.train, inputs.validation, made[search.TRAINING_FOLDS], made["recipe"]["seed"])
        samples = [s for s, counts in zip((*inputs.train.samples, *samples), counted, strict=True) if counts]
        file = store.OUT_OF_FOLD
    if len(samples) > _MANY:
        return None
    try:
        p = [store.read_probabilities(workspace.heads, result.head, samples, file) for result in ranked]
    except VggftError as error:
        ui.warn(str(error))
        return None
    targets = np.asarray(workspace.dataset.targets(samples), np.int64)
    return certainty(p, targets, [sample.group for sample in samples])
