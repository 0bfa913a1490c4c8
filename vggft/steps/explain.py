"""Drawing where in images models see their classes: one PNG file for each image, written as it is drawn."""

import contextlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data.folders import ignored
from featurize.disk import durable
from featurize.disk.transfer import located
from featurize.errors import VggftError, reason
from featurize.pixels import decoding, images
from featurize.pixels.decoding import Decoder
from featurize.process import interrupts, places
from featurize.process.per_process import PerProcess
from vggft.explanation import drawing
from vggft.explanation.drawing import Panel
from vggft.explanation.explainer import AT_ONCE, Explainer
from vggft.prediction import inference, inputs, scoring, selection
from vggft.prediction.model import Model
from vggft.prediction.scoring import File, Scored, Scorer
from vggft.steps.options import ExplainOptions
from vggft.ui.console import Ui
from vggft.ui.visible import shortened, visible
from vggft.workspace.backbone import decoder
from vggft.workspace.workspace import Workspace

_LINE, _LABEL = 40, 20  # characters of a line of a heading, and of a class in it, before its probability


@dataclass(frozen=True)
class _Explained:
    """A model that predicts files and explains its predictions."""

    model: Model
    scorer: Scorer
    explainer: Explainer

    @property
    def notes(self) -> list[str]:
        return [note for note in (self.scorer.note, self.explainer.outputs.note) if note]


@dataclass(frozen=True)
class _Map:
    """A heat map; `empty`: no place speaks for the class."""

    model: str
    label: str
    probability: float
    predicted: bool
    heat: NDArray[np.float32]

    @property
    def empty(self) -> bool:
        return not self.heat.any()

    @property
    def panel(self) -> Panel:
        label = shortened(visible(self.label), _LABEL)
        what = f"{label} {self.probability:.4f}{' (predicted)' if self.predicted else ''}"
        lines = [shortened(self.model, _LINE), what, *(["nothing speaks for it"] if self.empty else [])]
        return Panel(lines, self.heat)

    def __str__(self) -> str:
        return f"{self.model} {self.label} {self.probability:.4f}"

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "class": self.label,
            "probability": self.probability,
            "predicted": self.predicted,
            "empty": self.empty,
        }


def run(workspace: Workspace, options: ExplainOptions, ui: Ui) -> dict[str, Any]:
    """Explain every image among the files and folders, and those that standard input lists.

    Raises:
        VggftError: a path that does not exist, no files at all, an unknown class or model, no model yet, or a folder that cannot
            be written.
    """
    classes = workspace.settings.classes
    unknown = [name for name in options.classes if name not in classes]
    if unknown:
        raise VggftError(f"--class {unknown[0]}: unknown class. Expected one of: {', '.join(classes)}.")
    inputs.require(options.paths)
    choices = selection.contrasted(workspace, options.model, lambda error: ui.warn(f"left out: {error}"))
    folder = _folder(workspace, options.out)
    for choice in choices:
        ui.say(f"model: {choice.model.name} ({choice.reason})")
        if choice.age:
            ui.warn(choice.age)
    explained = [_Explained(*models) for models in _ready(workspace, [choice.model for choice in choices])]
    also = [classes.index(name) for name in options.classes]
    decode = decoder(workspace.settings.fingerprint)
    maps: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    notes: list[Path] = []
    done = 0
    with contextlib.ExitStack() as stack:
        for model in explained:
            stack.enter_context(contextlib.closing(model.scorer))
        advance = None if ui.lines_are_progress else stack.enter_context(ui.progress("explaining"))
        files = _others(inputs.files(options.paths, notes.append), folder)
        while some := list(itertools.islice(files, AT_ONCE)):
            for scored, of_image in _maps(explained, some, decode, also):
                interrupts.check()
                picture = decoding.picture(scored.digest, [scored.path], images.decode) if of_image else scored.reason
                if isinstance(picture, str):
                    ui.warn(f"rejected {scored.path}: {picture}")
                    rejected.append({"path": str(scored.path), "reason": picture})
                else:
                    drawn = drawing.draw(picture, scored.path.name, _rows(of_image, len(explained)))
                    file = drawing.write(folder, scored.path, drawn)
                    maps += [{"image": str(scored.path), **each.as_json(), "file": str(file)} for each in of_image]
                    predicted = ", ".join(str(each) for each in of_image if each.predicted)
                    ui.put(f"{file}  {scored.path}: {predicted}")
                done += 1
                if advance:
                    advance(done)
    for note in dict.fromkeys(note for model in explained for note in model.notes):
        ui.warn(note)
    if notes:
        ui.say(ignored(notes))
    if not done:
        raise VggftError(
            f"{', '.join(map(str, options.paths))}: no files there. Expected images, or folders of images."
        )
    return {
        "models": [choice.model.name for choice in choices],
        "stale": [choice.model.name for choice in choices if choice.age],
        "folder": str(folder),
        "maps": maps,
        "rejected": rejected,
    }


def _others(files: Iterable[File], folder: Path) -> Iterator[File]:
    """Yield the files that are not explanations of an earlier run; those may lie below a given folder, too."""
    explanations = places.resolved(folder)
    return (file for file in files if located(file.path).parent != explanations or not drawing.is_drawing(file.path))


def _folder(workspace: Workspace, out: Path | None) -> Path:
    """Return the folder for the pictures, created if missing.

    Raises:
        VggftError: it cannot be created or written.
    """
    folder = workspace.report / "explain" if out is None else out.absolute()
    data = places.resolved(workspace.dataset.root)
    if out is None:
        durable.refuse_link(workspace.report_folder() / folder.name)
    elif places.resolved(folder).is_relative_to(data):
        raise VggftError(
            f"--out {out}: lies in the data folder ({data}), where the pictures would be taken for training images. Choose a "
            "folder outside of it."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise VggftError(f"{folder}: cannot be written ({reason(error)}). Choose another folder with --out.") from None


def _ready(workspace: Workspace, models: Sequence[Model]) -> Iterator[tuple[Model, Scorer, Explainer]]:
    """Yield each model with what predicts and explains; all share an engine, which starts when it is needed."""
    engine = PerProcess(partial(inference.start_its_engine, workspace))
    cache = workspace.cache()
    for model in models:
        yield model, inference.from_pixels(model, workspace, engine), Explainer(model, cache, engine)


def _maps(
    explained: Sequence[_Explained], files: Iterable[File], decode: Decoder, also: Sequence[int]
) -> Iterator[tuple[Scored, list[_Map]]]:
    """Yield each file with its maps: of all models and of all classes that one of them predicts, then of `also`.

    A rejected file has none.
    """
    predictions = [list(scoring.scored(files, decode, model.scorer)) for model in explained]
    of_file = list(zip(*predictions, strict=True))
    of_classes = [_classes(scored, also) for scored in of_file]
    wanted = [(scored[0].digest, target) for scored, some in zip(of_file, of_classes, strict=True) for target in some]
    paths = {scored[0].digest: [scored[0].path] for scored, some in zip(of_file, of_classes, strict=True) if some}
    heats = [iter(model.explainer(paths, wanted)) for model in explained] if wanted else []
    for scored, some in zip(of_file, of_classes, strict=True):
        maps = []
        for model, each, heat in zip(explained, scored, heats, strict=True) if some else ():
            assert each.probabilities is not None  # else no map is wanted
            p, best = each.probabilities, int(each.probabilities.argmax())
            maps += [_Map(model.model.name, model.model.classes[k], float(p[k]), k == best, next(heat)) for k in some]
        yield next((each for each in scored if each.reason), scored[0]), maps


def _classes(scored: Sequence[Scored], also: Sequence[int]) -> list[int]:
    """Return the classes to explain of a file that each model has scored: the predicted ones, then `also`; none if rejected."""
    probabilities = [each.probabilities for each in scored]
    if any(p is None for p in probabilities):
        return []
    return list(dict.fromkeys([*(int(np.argmax(p)) for p in probabilities if p is not None), *also]))


def _rows(maps: Sequence[_Map], models: int) -> list[list[Panel]]:
    """Return the panels of each model."""
    columns = len(maps) // models
    return [[each.panel for each in maps[first : first + columns]] for first in range(0, len(maps), columns)]
