"""The Python interface: `Experiment`, a workspace, and `Model`, which predicts arrays."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurize.backbone.architecture import Architecture
from featurize.backbone.vgg16 import VGG16
from featurize.engines import Engine
from featurize.errors import VggftError
from featurize.options.signatures import takes
from featurize.pixels import images
from featurize.pixels.decoding import Decoder, contents, unreadable
from featurize.pixels.images import RESIZE_FILTERS
from featurize.process.per_process import PerProcess
from vggft.prediction import inference, selection
from vggft.steps import compare, evaluate, explain, export, featurize, finetune, head
from vggft.steps.options import (
    CompareOptions,
    EvaluateOptions,
    ExplainOptions,
    ExportOptions,
    FeaturizeOptions,
    FinetuneOptions,
    HeadOptions,
)
from vggft.ui.console import Ui
from vggft.workspace.backbone import decoder
from vggft.workspace.folder import DEFAULT_WORKSPACE
from vggft.workspace.workspace import Workspace

Picture = NDArray[np.uint8]


def read_picture(path: str | Path) -> Picture:
    """Decode an image file as the commands do, but in full: upright, transparency on white, 16 bits reduced to 8.

    Returns:
        uint8 (height, width, 3), RGB, for `Model.predict`. `PIL.Image.convert("RGB")` gives other pixels for transparent or
        rotated images.

    Raises:
        VggftError: the file cannot be read, or is not an image.
    """
    return _decoded(path, images.decode)


def _decoded(path: str | Path, decode: Decoder) -> Picture:
    try:
        with contents(Path(path)) as data:
            return decode(data)
    except OSError as error:
        raise VggftError(f"{path}: {unreadable(error)}. Expected a picture.") from None
    except images.Unreadable as error:
        raise VggftError(f"{path}: {error}. Expected a picture.") from None


class Model:
    """A head or tuned network that is ready to predict.

    Attributes:
        name: its name in the workspace.
        classes: class names, in the order of the probabilities.
    """

    def __init__(self, name: str, classes: Sequence[str], score: Callable[[Picture], NDArray[np.float64]], fit: Any):
        """Wrap a loaded model; created by `Experiment.model`."""
        self.name = name
        self.classes = tuple(classes)
        self._score = score
        self._fit = fit

    def __repr__(self) -> str:
        return f"Model({self.name!r}, classes={list(self.classes)})"

    def predict(self, pictures: Sequence[Picture | str | Path] | Picture | str | Path) -> NDArray[np.float64]:
        """Return class probabilities, float64 (n, classes); each row sums to 1.

        Args:
            pictures: n image files, or n arrays uint8 (height, width, 3), RGB from 0 to 255, of any sizes, as `read_picture`
                returns them; or one file; or one array (n, height, width, 3). They are resized as the training images were.

        Raises:
            VggftError: neither files nor arrays, arrays of another type or shape, or a file that is not a readable image.
        """
        if isinstance(pictures, (str, Path)):
            pictures = [pictures]
        if not hasattr(pictures, "__len__"):
            raise VggftError(
                f"{type(pictures).__name__}: expected a list of files or arrays, or an array (n, height, width, 3)."
            )
        if isinstance(pictures, np.ndarray) and pictures.ndim != 4:
            raise VggftError(
                f"an array of shape {pictures.shape}: expected (n, height, width, 3), or a list of pictures."
            )
        batches = []
        for first in range(0, len(pictures), _AT_ONCE):
            batch = np.stack([self._fit(picture) for picture in pictures[first : first + _AT_ONCE]])
            batches.append(self._score(batch))
        return np.concatenate(batches) if batches else np.empty((0, len(self.classes)))


_AT_ONCE = 64  # pictures resized and predicted at a time


class Experiment:
    """A workspace. Each method does what its command does, and returns what the command prints with `--json`.

    Arguments are the options of the command, with the same names, defaults and bounds; only `--from` is `start` and `--class`
    is `classes`, because `from` and `class` are keywords of Python. Errors are `featurize.errors.VggftError`, with the message of
    the command.
    """

    def __init__(
        self, folder: str | Path = DEFAULT_WORKSPACE, architecture: Architecture = VGG16, *, quiet: bool = True
    ) -> None:
        """Open a workspace. Nothing is read or written yet.

        Args:
            folder: folder of the workspace; it need not exist.
            architecture: the network to run and tune.
            quiet: show only warnings; otherwise also messages, tables and progress, as the commands do.
        """
        self.workspace = Workspace(Path(folder), architecture)
        self._ui = Ui(quiet=quiet)
        self._engines: dict[str, PerProcess[Engine]] = {}  # by fingerprint; all models share one

    def __repr__(self) -> str:
        return f"Experiment({str(self.workspace.root)!r})"

    @takes(FeaturizeOptions)
    def featurize(self, data: str | Path, **options: Any) -> dict[str, Any]:
        """Run the frozen network once over the images of a folder."""
        return featurize.run(self.workspace, FeaturizeOptions.of(data=data, **options), self._ui)

    @takes(HeadOptions)
    def fit_heads(self, **options: Any) -> dict[str, Any]:
        """Train heads on the cached features."""
        return head.run(self.workspace, HeadOptions.of(**options), self._ui)

    @takes(FinetuneOptions)
    def finetune(self, **options: Any) -> dict[str, Any]:
        """Tune the upper layers together with a head, from the cached outputs of the layer below them."""
        return finetune.run(self.workspace, FinetuneOptions.of(**options), self._ui)

    @takes(CompareOptions)
    def compare(self, **options: Any) -> dict[str, Any]:
        """Compare all models and recommend one ("recommendation", "use")."""
        return compare.run(self.workspace, CompareOptions.of(**options), self._ui)

    @takes(EvaluateOptions)
    def evaluate(self, folder: str | Path, **options: Any) -> dict[str, Any]:
        """Evaluate a model on a folder of labelled images."""
        return evaluate.run(self.workspace, EvaluateOptions.of(folder=folder, **options), self._ui)

    @takes(ExplainOptions)
    def explain(self, paths: Sequence[str | Path], **options: Any) -> dict[str, Any]:
        """Draw where in images models see their classes; the pictures are listed under "maps"."""
        return explain.run(self.workspace, ExplainOptions.of(paths=paths, **options), self._ui)

    @takes(ExportOptions)
    def export(self, out: str | Path, **options: Any) -> dict[str, Any]:
        """Write a model as a file of another program, with a model card, and check it there."""
        return export.run(self.workspace, ExportOptions.of(out=out, **options), self._ui)

    def model(self, name: str | None = None) -> Model:
        """Load a head or tuned network by name; None: the one that `compare` recommends, or else the best."""
        choice = selection.choose(self.workspace, name, lambda error: self._ui.warn(f"left out: {error}"))
        if choice.age:
            self._ui.warn(choice.age)
        chosen = choice.model
        fingerprint = self.workspace.settings.fingerprint
        engine = self._engines.setdefault(
            fingerprint.key, PerProcess(partial(inference.start_its_engine, self.workspace))
        )

        def fit(picture: Picture | str | Path) -> Picture:
            if isinstance(picture, (str, Path)):
                return _decoded(picture, decoder(fingerprint))
            array = np.asarray(picture)
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
                raise VggftError(
                    f"a picture of type {array.dtype} and shape {array.shape}: expected uint8 (height, width, 3), RGB."
                )
            if array.shape[:2] == (fingerprint.size, fingerprint.size):
                return array
            size = (fingerprint.size, fingerprint.size)
            return np.asarray(Image.fromarray(array).resize(size, RESIZE_FILTERS[fingerprint.resize]))

        return Model(chosen.name, chosen.classes, inference.from_pixels(chosen, self.workspace, engine), fit)
