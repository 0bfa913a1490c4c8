"""What the commands do, for Python: one object for a workspace, one for a model that predicts arrays."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurize.errors import VggftError
from featurize.images import RESIZE_FILTERS
from finetune.plan import RATES
from finetune.plan import Plan as TuningPlan
from heads.population import Plan as HeadPlan
from vggft import judging, methods
from vggft.commands import compare, evaluate, featurize, finetune, head
from vggft.console import Ui
from vggft.workspace import Workspace

Picture = NDArray[np.uint8]


class Model:
    """A head or tuned network that is ready to predict.

    Attributes:
        name: what it is called in the workspace.
        classes: names, in the order of the probabilities.
    """

    def __init__(self, name: str, classes: Sequence[str], score: Callable[[Picture], NDArray[np.float64]], fit: Any):
        """Take what `Experiment.model` has loaded."""
        self.name = name
        self.classes = tuple(classes)
        self._score = score
        self._fit = fit

    def predict(self, pictures: Sequence[Picture] | Picture) -> NDArray[np.float64]:
        """Return class probabilities, float64 (n, classes); each row sums to 1.

        Args:
            pictures: n arrays uint8 (height, width, 3), RGB from 0 to 255, of any sizes; or one array (n, height, width, 3).
                They are resized as the images were that the model learnt from.

        Raises:
            VggftError: an array of another type or shape.
        """
        done = []
        for first in range(0, len(pictures), _AT_ONCE):
            done.append(self._score(np.stack([self._fit(one) for one in pictures[first : first + _AT_ONCE]])))
        return np.concatenate(done) if done else np.empty((0, len(self.classes)))


_AT_ONCE = 64  # pictures resized and predicted at a time


class Experiment:
    """A workspace. Each method does what the command of that name does, and returns what it prints with `--json`.

    All methods raise `featurize.errors.VggftError` where a command would end with an error, and say what to do.
    """

    def __init__(self, folder: str | Path = "vggft-work", *, quiet: bool = True) -> None:
        """Name the workspace's folder; it need not exist.

        Args:
            quiet: show warnings only; otherwise messages, tables and progress, as the commands do.
        """
        self.workspace = Workspace(Path(folder))
        self._ui = Ui(quiet=quiet)

    def featurize(self, data: str | Path, **options: Any) -> dict[str, Any]:
        """Run the frozen network once over the images below `data`.

        Args:
            options: attributes of `vggft.commands.featurize.Options`: test=0.2, group_by="(clip\\d+)_", …
        """
        return featurize.run(self.workspace, Path(data), featurize.Options(**options), self._ui)

    def fit_heads(self, **options: Any) -> dict[str, Any]:
        """Train heads.

        Args:
            options: attributes of `heads.population.Plan` (epochs=50, class_weight="balanced", …) and of
                `vggft.commands.head.Options` (names=("logistic-max",), folds=5, …).
        """
        plan = HeadPlan(**_taken(options, HeadPlan))
        return head.run(self.workspace, head.Options(plan, **options), self._ui)

    def finetune(self, **options: Any) -> dict[str, Any]:
        """Tune the upper layers together with a head.

        Args:
            options: attributes of `finetune.plan.Plan` (epochs=10, learning_rate=1e-4, …) and of
                `vggft.commands.finetune.Options` (unfreeze="block5", start="best", name="mine", …).
        """
        plan = _taken(options, TuningPlan)
        plan.setdefault(
            "learning_rate", RATES.get(plan.get("optimizer", TuningPlan.optimizer), TuningPlan.learning_rate)
        )
        precision = {"precision": plan["precision"]} if "precision" in plan else {}
        return finetune.run(self.workspace, finetune.Options(plan=TuningPlan(**plan), **precision, **options), self._ui)

    def resume(self, name: str | None = None) -> dict[str, Any]:
        """Go on with a fine-tuning that was interrupted."""
        return finetune.resume(self.workspace, name, self._ui)

    def compare(self, **options: Any) -> dict[str, Any]:
        """Compare all methods and say which to use.

        Args:
            options: attributes of `vggft.commands.compare.Options`: folds=5, quick=True.
        """
        return compare.run(self.workspace, compare.Options(**options), self._ui)

    def evaluate(self, folder: str | Path, model: str | None = None) -> dict[str, Any]:
        """Judge a model (None: the best) on a labelled folder."""
        return evaluate.run(self.workspace, Path(folder), model, self._ui)

    def model(self, name: str | None = None) -> Model:
        """Load a head or tuned network by name; None: the best."""
        method = methods.chosen(self.workspace, name)
        fingerprint = self.workspace.settings.fingerprint

        def fit(picture: Picture) -> Picture:
            array = np.asarray(picture)
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
                raise VggftError(
                    f"a picture of type {array.dtype} and shape {array.shape}: expected uint8 (height, width, 3), RGB."
                )
            if array.shape[:2] == (fingerprint.size, fingerprint.size):
                return array
            size = (fingerprint.size, fingerprint.size)
            return np.asarray(Image.fromarray(array).resize(size, RESIZE_FILTERS[fingerprint.resize]))

        return Model(method.name, method.classes, judging.from_pixels(method, self.workspace), fit)


def _taken(options: dict[str, Any], plan: type[Any]) -> dict[str, Any]:
    """Take out of the options those that are a plan's."""
    return {field.name: options.pop(field.name) for field in fields(plan) if field.name in options}
