"""Suspect labels: what heads predict for images that they were not trained on. No ranking changes by it.

Predictions out of fold are computed here where no head has them; they are kept beside the head, without metrics.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from featurize.data.dataset import Sample
from featurize.disk import forms
from featurize.errors import VggftError
from heads import folds, search, store, suspects
from heads.features import Features
from heads.plan import FOLDS, Plan
from heads.search import Result, Setting
from heads.specs import Spec
from heads.suspects import Suspect
from vggft.steps.board import Board
from vggft.steps.leaderboard import announcement
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def cross_validated(workspace: Workspace, board: Board) -> list[str]:
    """Return the names of the heads that have predictions out of fold."""
    heads = workspace.heads
    return [
        name for name, result in board.results.items() if result.folds or (heads / name / store.OUT_OF_FOLD).exists()
    ]


def cross_validate(
    workspace: Workspace,
    names: Sequence[str],
    setting: Setting,
    splits: tuple[Features, Features],
    board: Board,
    ui: Ui,
) -> None:
    """Compute predictions out of fold of the heads that have none, each trained as it was before.

    Args:
        splits: training and validation images.

    Raises:
        VggftError: too few images for two folds.
    """
    finished = cross_validated(workspace, board)
    results = [board.results[name] for name in names if name in board.results and name not in finished]
    if not results:
        return
    train, validation = splits
    number = folds.max_folds(train.targets, train.groups, FOLDS)
    if number < 2:
        raise VggftError("--suspects: at least two classes need two groups of training images each. Add images.")
    ui.say(f"--suspects: {announcement(results, number)}; rankings stay as they are")
    by_plan: dict[Plan, list[tuple[Spec, Result]]] = defaultdict(list)
    for result in results:
        spec, plan = search.of_recipe(result.head.name, result.head.provenance["recipe"])
        by_plan[plan].append((spec, result))
    for plan, pairs in by_plan.items():
        for result in board.succeeded(
            search.cross_validate(pairs, replace(setting, plan=plan), train, validation, number)
        ):
            board.update(replace(board.results[result.head.name], out_of_fold=result.out_of_fold))


def find(workspace: Workspace, samples: Sequence[Sample], board: Board) -> tuple[list[Suspect], list[str]]:
    """Return the images whose label the cross-validated heads doubt, and those heads; write the images to `suspects.csv`.

    Raises:
        VggftError: predictions are missing or damaged, or no head has any.
    """
    names = cross_validated(workspace, board)
    if not names:
        raise VggftError("--suspects: no head could be cross-validated.")
    predictions = [
        store.read_probabilities(workspace.heads, board.results[name].head, samples, store.OUT_OF_FOLD)
        for name in names
    ]
    doubted = suspects.find(samples, workspace.dataset.classes, predictions)
    header = ["path", "label", "predicted", "score"]
    forms.write_csv(workspace.suspects, header, [tuple(suspect.as_json().values()) for suspect in doubted])
    return doubted, names
