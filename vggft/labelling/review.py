"""What `vggft sort --review` shows: images whose label may be wrong, as the models of a workspace see them.

Two sources: label issues, which `vggft head --suspects` lists, and images that the model that predicts classifies wrongly
although it was not trained on them. Images of the test split are in neither. Correcting only those that a model gets wrong
would move their labels towards the model, and the test would no longer measure how often it is right.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from featurize.data.dataset import Sample
from featurize.disk import checked
from featurize.errors import VggftError, reason
from featurize.wording import counted
from heads import predictions, store
from vggft.prediction import selection
from vggft.prediction.model import Model
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

LABEL_ISSUE = "label issue"


@dataclass(frozen=True)
class ReviewItem:
    """An image whose label may be wrong.

    Attributes:
        file: relative to the data folder, with forward slashes.
        label: its class now.
        suggested: the class that the models predict instead.
        probability: that the label is wrong: 1 minus the probability of the label.
        reason: "label issue", "misclassified by NAME", or both.
    """

    file: str
    label: str
    suggested: str
    probability: float
    reason: str


def items(workspace: Workspace, say: Callable[[str], None]) -> list[ReviewItem]:
    """Return the images to review, the most suspicious first, each once.

    Args:
        workspace: with heads.
        say: called with sentences about what is left out, and how to get it.

    Raises:
        VggftError: no workspace, no heads, or damaged predictions.
    """
    samples = [sample for sample in workspace.dataset.accepted() if sample.split != "test"]
    choice = selection.choose(workspace, None, lambda error: say(f"left out: {error}"))
    if choice.age:
        say(choice.age)
    tested = len(workspace.dataset.accepted("test"))
    if tested:
        say(f"{counted(tested, 'test image')} left out: labels corrected by what models predict would bias the test")
    suspects = {item.file: item for item in _label_issues(workspace, samples, say)}
    for item in _misclassified(choice.model, samples):
        issue = suspects.get(item.file)
        suspects[item.file] = replace(issue, reason=f"{issue.reason}, {item.reason}") if issue else item
    return sorted(suspects.values(), key=lambda item: -item.probability)


def _label_issues(workspace: Workspace, samples: Sequence[Sample], say: Callable[[str], None]) -> Iterator[ReviewItem]:
    """Yield the rows of suspects.csv whose image still has the label that was doubted."""
    command = f"vggft head --suspects{workspace_flag(workspace.root)}"
    try:
        rows = checked.read_csv(workspace.suspects)
        issues = [
            ReviewItem(row["path"], row["label"], row["predicted"], float(row["score"]), LABEL_ISSUE) for row in rows
        ]
    except FileNotFoundError:
        say(f"label issues were not looked for. To find them, run first: {command}")
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"left out: {workspace.suspects} is damaged ({reason(error)}). To make it again, run: {command}")
        return
    labels = {sample.path: sample.label for sample in samples}
    yield from (issue for issue in issues if labels.get(issue.file) == issue.label)


def _misclassified(model: Model, samples: Sequence[Sample]) -> Iterator[ReviewItem]:
    """Yield the images for which a model that was not trained on them predicts another class than their label.

    Images are found by their contents: their files and labels may have changed since the model was trained.
    """
    by_digest: Mapping[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_digest[sample.digest].append(sample)
    path = model.folder / store.OUT_OF_FOLD  # of training and validation images, where a head was cross-validated
    if not path.exists():
        path = model.folder / predictions.FILE
    if not path.exists():
        raise VggftError(f"{path} is missing. Train {model.name} again.")
    predicted = predictions.read(path, model.classes)
    for known, p in zip(predicted.samples, predicted.probabilities, strict=True):
        best = model.classes[int(p.argmax())]
        for sample in by_digest[known.digest]:
            if sample.label != best and sample.label in model.classes:
                doubt = 1 - float(p[model.classes.index(sample.label)])
                yield ReviewItem(sample.path, sample.label, best, doubt, f"misclassified by {model.name}")
