"""What the commands do, for Python: one object for a workspace, one for a model that predicts arrays."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurize.errors import VggftError
from featurize.pixels import images
from featurize.pixels.images import RESIZE_FILTERS
from featurize.runner import unreadable
from finetune.plan import RATES
from finetune.plan import Plan as TuningPlan
from heads.population import Plan as HeadPlan
from vggft.prediction import inference, selection
from vggft.steps import compare, evaluate, featurize, finetune, head
from vggft.steps.featurize import Options as Featurizing
from vggft.steps.finetune import Options as Tuning
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

Picture = NDArray[np.uint8]


def read_picture(path: str | Path) -> Picture:
    """Read a picture as vggft does for all its commands: upright, transparency on white, 16 bits as 8.

    Returns:
        uint8 (height, width, 3), RGB: what `Model.predict` takes. `PIL.Image.convert("RGB")` gives other pixels wherever a
        picture is transparent or stored turned.

    Raises:
        VggftError: the file cannot be read, or is no picture.
    """
    try:
        return images.decode(Path(path).read_bytes())
    except OSError as error:
        raise VggftError(f"{path}: {unreadable(error)}. Expected a picture.") from None
    except images.Unreadable as error:
        raise VggftError(f"{path}: {error}. Expected a picture.") from None


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
                Of files, `read_picture` gives the pixels that the model learnt from.
                They are resized as the images were that the model learnt from.

        Raises:
            VggftError: an array of another type or shape, or no arrays.
        """
        if not hasattr(pictures, "__len__"):
            raise VggftError(
                f"{type(pictures).__name__}: expected a list of arrays, or an array (n, height, width, 3)."
            )
        if isinstance(pictures, np.ndarray) and pictures.ndim != 4:
            raise VggftError(
                f"an array of shape {pictures.shape}: expected (n, height, width, 3), or a list of pictures, of one, too."
            )
        done = []
        for first in range(0, len(pictures), _AT_ONCE):
            done.append(self._score(np.stack([self._fit(one) for one in pictures[first : first + _AT_ONCE]])))
        return np.concatenate(done) if done else np.empty((0, len(self.classes)))


_AT_ONCE = 64  # pictures resized and predicted at a time


class Experiment:
    """A workspace. Each method does what the command of that name does, and returns what it prints with `--json`.

    Arguments that are left out are as the command has them. All methods raise `featurize.errors.VggftError` where a command
    would end with an error; its message names options as the command does.
    """

    def __init__(self, folder: str | Path = "vggft-work", *, quiet: bool = True) -> None:
        """Name the workspace's folder; it need not exist.

        Args:
            quiet: show warnings only; otherwise messages, tables and progress, as the commands do.
        """
        self.workspace = Workspace(Path(folder))
        self._ui = Ui(quiet=quiet)

    def featurize(
        self,
        data: str | Path,
        *,
        layers: Sequence[str] = Featurizing.layers,
        validation: float | None = None,
        test: float | None = None,
        group_by: str | None = None,
        seed: int | None = None,
        preprocess: str | None = None,
        weights: str | Path | None = None,
        engine: str = Featurizing.engine,
        shard_rows: int = Featurizing.shard_rows,
        rehash: bool = False,
    ) -> dict[str, Any]:
        """Run the frozen network once over the images below `data`, a folder of class folders or of splits with them.

        Args:
            layers: to keep. A single one may be given as it is.
            validation, test: share of each class that is held back; None: as before in this workspace, or 0.2 and 0.
            group_by: regular expression; files with the same first capture stay in one split.
            seed: of the split; None: as before, or 0.
            preprocess: "caffe" or "raw"; None: as before, or "caffe".
            weights: other VGG16 weights; None: as before, or the published ones.
            engine: "auto", "keras", "winograd" or "mnn".
            shard_rows: images in one file of the cache, at most.
            rehash: read every file again, of the data and of the cache.
        """
        own = None if weights is None else Path(weights)
        options = Featurizing(
            layers=(layers,) if isinstance(layers, str) else layers,
            preprocess=preprocess,
            weights=own,
            validation=validation,
            test=test,
            seed=seed,
            group_by=group_by,
            shard_rows=shard_rows,
            engine=engine,
            rehash=rehash,
        )
        return featurize.run(self.workspace, Path(data), options, self._ui)

    def fit_heads(
        self,
        *,
        names: Sequence[str] = (),
        grid: str | Path | None = None,
        epochs: int = HeadPlan.epochs,
        patience: int = HeadPlan.patience,
        batch_size: int = HeadPlan.batch_size,
        seed: int = HeadPlan.seed,
        class_weight: str | None = None,
        seeds: int = 1,
        folds: int = 0,
        suspects: bool = False,
        retrain: bool = False,
    ) -> dict[str, Any]:
        """Train heads on the cached features.

        Args:
            names: heads to train; none: all of them. A single name may be given as it is.
            grid: TOML file that defines other heads.
            epochs: at most; patience: a head stops after so many without a lower validation log-loss.
            batch_size: images a step.
            seed: of initial weights, order and dropout.
            class_weight: "balanced": rare classes count as much as frequent ones.
            seeds: train with so many seeds.
            folds: judge on all images by so many folds, too; 0: do not.
            suspects: list the images whose label the heads agree is wrong.
            retrain: train also what is here already.
        """
        plan = HeadPlan(epochs, patience, batch_size, seed, class_weight)
        chosen = (names,) if isinstance(names, str) else tuple(names)
        options = head.Options(plan, chosen, None if grid is None else Path(grid), seeds, folds, suspects, retrain)
        return head.run(self.workspace, options, self._ui)

    def finetune(
        self,
        *,
        unfreeze: str = Tuning.unfreeze,
        start: str = Tuning.start,
        name: str | None = None,
        epochs: int = TuningPlan.epochs,
        patience: int = TuningPlan.patience,
        batch_size: int = TuningPlan.batch_size,
        seed: int = TuningPlan.seed,
        optimizer: str = TuningPlan.optimizer,
        learning_rate: float | None = None,
        momentum: float = TuningPlan.momentum,
        schedule: str = TuningPlan.schedule,
        layer_decay: float = TuningPlan.layer_decay,
        l2_sp: float = TuningPlan.l2_sp,
        label_smoothing: float = TuningPlan.label_smoothing,
        class_weight: str | None = None,
        clip: float | None = None,
        precision: str = Tuning.precision,
        memory: int = Tuning.memory,
    ) -> dict[str, Any]:
        """Tune the upper layers together with a head, from the cached outputs of the layer below them.

        Args:
            unfreeze: a block ("block5") or layer ("block5_conv2"): it and all above it; or "all".
            start: "best", the name of a head, or "scratch" (random weights).
            name: of the run; None: made from the settings.
            learning_rate: None: 1e-4 for "sgd", 1e-5 for "adam".
            epochs, patience, batch_size, seed, optimizer, momentum, schedule, layer_decay, l2_sp, label_smoothing,
                class_weight, clip: see `finetune.plan.Plan`.
            precision: "float32", "mixed_float16", or "auto": mixed on a GPU.
            memory: bytes of inputs in memory; what does not fit is read again in every epoch.
        """
        plan = TuningPlan(
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            optimizer=optimizer,
            learning_rate=RATES.get(optimizer, TuningPlan.learning_rate) if learning_rate is None else learning_rate,
            momentum=momentum,
            schedule=schedule,
            layer_decay=layer_decay,
            l2_sp=l2_sp,
            label_smoothing=label_smoothing,
            class_weight=class_weight,
            clip=clip,
            patience=patience,
        )
        return finetune.run(self.workspace, Tuning(unfreeze, start, name, plan, precision, memory), self._ui)

    def resume(self, name: str | None = None, *, memory: int | None = None) -> dict[str, Any]:
        """Go on with a fine-tuning that was interrupted.

        Args:
            name: of the run; None: the one that is unfinished.
            memory: bytes of inputs in memory, if other than before.
        """
        return finetune.resume(self.workspace, name, self._ui, memory)

    def compare(self, *, folds: int = 0, quick: bool = False) -> dict[str, Any]:
        """Compare all methods and say which to use ("recommendation", "use").

        Args:
            folds: judge on all images by so many outer folds, everything trained again in each; 0: do not.
            quick: leave out changed pictures and latency.
        """
        return compare.run(self.workspace, compare.Options(folds, quick), self._ui)

    def evaluate(self, folder: str | Path, model: str | None = None) -> dict[str, Any]:
        """Judge a model on a labelled folder; None: the one that `compare` recommends, or else the best."""
        return evaluate.run(self.workspace, Path(folder), model, self._ui)

    def model(self, name: str | None = None) -> Model:
        """Load a head or tuned network by name; None: the one that `compare` recommends, or else the best."""
        chosen = selection.choose(self.workspace, name).model
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

        return Model(chosen.name, chosen.classes, inference.from_pixels(chosen, self.workspace), fit)
