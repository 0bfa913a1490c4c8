"""The arguments and options of every step; training options are in `heads.plan` and `finetune.plan`.

Cheap to import: the command line imports it for every command.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import finetune.plan
import heads.plan
from featurize.backbone.architecture import POOLED
from featurize.backbone.vgg16 import VGG16
from featurize.cluster.address import local_workers
from featurize.data import shares
from featurize.data.shares import Shares
from featurize.errors import VggftError
from featurize.options import Option, Options, offered
from featurize.options.choices import (
    MOST_VIEWS,
    PREPROCESS,
    SEEDS,
    SHARD_ROWS,
    EngineName,
    Layout,
    Precision,
    Preprocess,
)
from featurize.options.combinations import combined
from finetune.recipes import RECIPES, RecipeName
from vggft.export.choices import FormatName, StoredPrecision
from vggft.sorting.journal import How
from vggft.workspace.part import Part

MEMORY = 2_000_000_000  # bytes of inputs that a fine-tuning keeps in memory

_NEW = "in a new workspace"
_TRAINED_VIEWS = Option(
    "Train on N views of each image, too, a random one in each epoch; their number is in the names of heads and runs.",
    least=1,
    most=MOST_VIEWS,
    off=0,
    default="all that featurize computed",
)
_ON = Option(
    "Compute on the workers of this Dask scheduler (tcp://host:8786, tls://host:8786), or on N new processes here (local:N).",
    metavar="ADDRESS",
    default="in this process",
)
_MODEL = Option(
    "Name of a head or tuned network.",
    metavar="NAME",
    default="the one that compare recommends, or the best on validation",
)


@dataclass(frozen=True)
class FeaturizeOptions(Options):
    """Which images, how they become features, and how they are split. None: the workspace's value, or the default."""

    data: Annotated[
        Path,
        Option(
            "Folder of class folders, or of train/, validate/ and test/ with them; or of the files in --labels.",
            metavar="DATA",
        ),
    ]
    labels: Annotated[
        Path | None,
        Option(
            "Table (CSV) with a row for each file in DATA: columns file and label, optionally split and group.",
            metavar="TABLE",
            default="that of the workspace; none in a new one: class folders are the labels",
        ),
    ] = None
    layout: Layout = None
    layers: Annotated[
        tuple[str, ...],
        Option(
            f"Layer to cache; repeat for more. {POOLED}: averages and maxima of the last one, enough for all heads that pool.",
            metavar="LAYER",
            default=f"those of the workspace; {', '.join(VGG16.cached)} {_NEW}",
        ),
    ] = ()
    validation: Annotated[float | None, replace(shares.VALIDATION, default=f"{Shares.validate} {_NEW}")] = None
    test: Annotated[float | None, replace(shares.TEST, default=f"{Shares.test:g} {_NEW}")] = None
    group_by: Annotated[
        str | None,
        Option("Regular expression; files with the same first capture stay in one split.", metavar="REGEX"),
    ] = None
    seed: Annotated[int | None, replace(shares.SEED, default=f"{Shares.seed} {_NEW}")] = None
    preprocess: Annotated[
        Preprocess | None,
        Option("Preprocessing: caffe, as the published weights expect, or raw RGB.", default=f"{PREPROCESS} {_NEW}"),
    ] = None
    weights: Annotated[
        Path | None,
        Option("Other VGG16 weights: .h5, .onnx or .keras.", metavar="FILE", default=f"ImageNet {_NEW}"),
    ] = None
    cache: Annotated[
        Path | None,
        Option(
            "Folder for the features, which several workspaces may share, such as the cache of another one.",
            metavar="FOLDER",
            default="cache/ in the workspace",
        ),
    ] = None
    views: Annotated[
        int | None,
        Option(
            "Also compute N changed copies of each training image, to train on: data augmentation.",
            least=1,
            most=MOST_VIEWS,
            off=0,
            default=f"0 {_NEW}",
        ),
    ] = None
    engine: Annotated[EngineName, Option("Engine for the frozen network; auto picks the fastest on this machine.")] = (
        "auto"
    )
    shard: Annotated[int, Option("Maximum number of images in a file of the cache.", least=1, most=SHARD_ROWS)] = (
        SHARD_ROWS
    )
    rehash: Annotated[bool, Option("Read and hash all data and cache files again.")] = False
    on: Annotated[str | None, _ON] = None
    part: Annotated[
        str | None,
        Option(
            "Compute only part K of N of the features, in a workspace of its own; vggft cache merge joins the parts.",
            metavar="K/N",
            default="all",
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.on is not None:
            local_workers(self.on)
        if self.part is not None:
            Part.parse(self.part)
            if self.on is not None:
                raise VggftError("--part with --on: a part is what one machine computes. Use one of the two.")
            if self.views:
                raise VggftError(f"--part with --views {self.views}: views are computed after the parts are merged.")
            for flag, value in (("--validation", self.validation), ("--test", self.test), ("--seed", self.seed)):
                if value is not None:
                    raise VggftError(f"--part with {flag} {value:g}: the split is drawn after the parts are merged.")
            if self.cache is not None:
                raise VggftError("--part with --cache: a part has features of its own, which vggft cache merge joins.")
        if self.labels is not None and self.layout is not None:
            raise VggftError(
                f"--labels with --layout {self.layout}: with a table, folders are not labels. Use one of the two."
            )


@dataclass(frozen=True)
class HeadOptions(Options):
    """Which heads to train, and how. `views` replaces that of the plan."""

    head: Annotated[tuple[str, ...], Option("Head to train; repeat for more.", metavar="NAME", default="all")] = ()
    grid: Annotated[Path | None, Option("TOML file that defines other heads.", metavar="FILE")] = None
    lr: Annotated[
        float | None, Option("Learning rate of all dense heads.", above=0, default="that of each head's specification")
    ] = None
    plan: heads.plan.Plan = field(default_factory=heads.plan.Plan)
    cv: Annotated[
        int | None,
        Option(
            "Rank heads by cross-validation with N folds of the training images.",
            least=2,
            off=0,
            default=f"{heads.plan.FOLDS} with fewer than {heads.plan.FEW} validation images, else 0",
        ),
    ] = None
    views: Annotated[int | None, _TRAINED_VIEWS] = None
    seeds: Annotated[int, Option("Train with N seeds and show mean and spread.", least=1)] = 1
    suspects: Annotated[bool, Option("List the images whose labels look wrong to the cross-validated heads.")] = False
    retrain: Annotated[bool, Option("Also retrain heads that are up to date.")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan.seed + self.seeds - 1 > SEEDS:
            raise VggftError(
                f"--seed {self.plan.seed} --seeds {self.seeds}: the last seed would be above {SEEDS}. Choose a smaller --seed."
            )


@dataclass(frozen=True)
class FinetuneOptions(Options):
    """What to tune and how. `precision` and `views` replace those of the plan; `memory` None: the default, or the resumed run's.

    `combinations` are the options of each run of a sweep.
    """

    unfreeze: Annotated[
        str | None,
        Option(
            "Tune this block (block5) or layer (block5_conv2) and everything above it; all: the whole network.",
            metavar="LAYER",
            default=VGG16.unfreeze,
        ),
    ] = None
    start: Annotated[
        str,
        Option(
            "Head to start from: its name, logistic (the best logistic regression), best, or scratch (random weights).",
            flag="--from",
            metavar="HEAD",
        ),
    ] = finetune.plan.LOGISTIC
    recipe: Annotated[
        RecipeName | None,
        Option(
            "Repeat an earlier experiment; original: raw pixels, a random head of 256 units and dropout 0.5 on all outputs, "
            "frozen up to block5_conv1, SGD 1e-4 with momentum 0.9, batches of 64, 20 epochs, the last kept. Training options "
            "beside it override it.",
        ),
    ] = None
    name: Annotated[str | None, Option("Run name.", metavar="NAME", default="derived from the settings")] = None
    resume: Annotated[
        bool, Option("Continue an interrupted run with its settings; only --name and --memory may be given.")
    ] = False
    sweep: Annotated[
        str | None,
        Option(
            "Train every combination of some settings and rank them; "
            'for example "unfreeze=block5,block4 lr=1e-3,3e-4 optimizer=sgd,adam".',
            metavar="SETTINGS",
        ),
    ] = None
    plan: finetune.plan.Plan = field(default_factory=finetune.plan.Plan)
    views: Annotated[int, replace(_TRAINED_VIEWS, default="")] = 0
    precision: Annotated[
        Literal["auto", Precision],
        Option("Arithmetic of the training; auto: mixed_float16 on a GPU, float32 on a CPU."),
    ] = "auto"
    memory: Annotated[
        int | None,
        Option(
            "Memory for training inputs; what does not fit is read again in every epoch.",
            memory=True,
            above=0,
            default=f"{MEMORY / 1e9:g}GB; as before with --resume",
        ),
    ] = None
    on: Annotated[str | None, replace(_ON, help=f"With --sweep: each run is a task. {_ON.help}")] = None
    combinations: tuple[Any, ...] = ()

    @classmethod
    def of(cls, **given: Any) -> Self:
        """As `Options.of`.

        Raises:
            VggftError: also an option that contradicts `resume`, `recipe` or `sweep`.
        """
        for option in offered(cls) if given.get("resume") else ():
            if option.name in given and option.name not in ("resume", "name", "memory"):
                raise VggftError(
                    f"--resume with {option.flag}: a resumed run keeps its settings; only --name and --memory may be given."
                )
        on = given.pop("on", None)
        if on is not None:
            local_workers(on)
            if given.get("sweep") is None:
                raise VggftError(
                    "--on without --sweep: only the runs of a sweep are trained on workers. Leave out --on."
                )
        recipe = RECIPES.get(given.get("recipe") or "")
        options = super().of(**(recipe.options(given["recipe"], given) if recipe else given))
        if recipe:
            options = replace(options, plan=recipe.planned(options.plan))
        if options.sweep is None:
            return options
        if options.name is not None:
            raise VggftError("--sweep with --name: each run of a sweep has a name of its own. Leave out --name.")
        fixed = {name: value for name, value in given.items() if name != "sweep"}
        varied = [field for field in offered(cls) if field.name not in ("name", "resume", "sweep", "memory", "on")]
        combinations = combined("--sweep", options.sweep, varied, fixed)
        return replace(
            options, on=on, combinations=tuple(cls.of(**fixed, **combination) for combination in combinations)
        )


@dataclass(frozen=True)
class CompareOptions(Options):
    """How thoroughly to compare."""

    cv: Annotated[int, Option("Nested cross-validation with N outer folds.", least=2, off=0)] = 0
    quick: Annotated[bool, Option("Skip what takes longest: perturbed images, latency and heat maps.")] = False
    open: Annotated[bool, Option("Open the report in a browser.")] = False
    on: Annotated[str | None, replace(_ON, help=f"With --cv: each fold is a task. {_ON.help}")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.on is not None:
            local_workers(self.on)
            if not self.cv:
                raise VggftError(
                    "--on without --cv: only folds are computed on workers. Add --cv 5, or leave out --on."
                )


@dataclass(frozen=True)
class PredictOptions(Options):
    """What to predict, with which model, and what to show."""

    paths: Annotated[
        tuple[Path, ...],
        Option("Images or folders of images; - reads paths from standard input, one per line.", metavar="PATH"),
    ]
    model: Annotated[str | None, _MODEL] = None
    top: Annotated[int, Option("Show the top N classes.", least=1)] = 1
    grey: Annotated[bool, Option("Also predict the grey version of each image, to see what colour decides.")] = False
    csv: Annotated[bool, Option("Write CSV rows to standard output, a batch at a time.")] = False
    json_lines: Annotated[
        bool,
        Option(
            "Write one JSON object for each image to standard output, a batch at a time. (--json writes one object at the end "
            "and holds all images in memory until then.)"
        ),
    ] = False
    into: Annotated[
        Path | None,
        Option(
            "Put each image into FOLDER/CLASS/, unsure ones into FOLDER/unsure/CLASS/; nothing is overwritten.",
            metavar="FOLDER",
        ),
    ] = None
    how: Annotated[
        How, Option("With --into: copy images, make symbolic links to them, or move them; vggft undo undoes each.")
    ] = "copy"


@dataclass(frozen=True)
class UndoOptions(Options):
    """What to undo."""

    list: Annotated[Path, Option("List that predict --into or sort --apply wrote into its folder.", metavar="LIST")]


@dataclass(frozen=True)
class SortOptions(Options):
    """Which pictures to sort, into which classes, and where sorted ones go."""

    folder: Annotated[
        Path | None, Option("Folder of pictures, searched with all folders below it.", metavar="FOLDER", argument=True)
    ] = None
    classes: Annotated[
        tuple[str, ...],
        Option(
            "Class, in the order of the keys; repeat for more. More can be added on the page.",
            flag="--class",
            metavar="NAME",
            default="those of last time",
        ),
    ] = ()
    review: Annotated[
        bool, Option("Instead of FOLDER: images of the workspace whose labels look wrong, or that were misclassified.")
    ] = False
    apply: Annotated[bool, Option("Put the sorted pictures into class folders, without the page.")] = False
    into: Annotated[
        Path | None,
        Option(
            "Where the class folders are created; nothing is overwritten.",
            metavar="FOLDER",
            default="FOLDER-sorted, beside FOLDER",
        ),
    ] = None
    how: Annotated[
        How | None,
        Option(
            "With --apply: copy pictures, make symbolic links to them, or move them; vggft undo undoes each.",
            default="copy; move with --review",
        ),
    ] = None
    port: Annotated[
        int | None,
        # From 1024 on: below, only an administrator may listen, and browsers leave port 80 out of the name of the host.
        Option("Port of the page.", least=1024, most=65_535, default="that of last time, or a free one"),
    ] = None
    no_open: Annotated[bool, Option("Only print the address of the page; do not open a browser.")] = False


@dataclass(frozen=True)
class FramesOptions(Options):
    """Which videos, which of their frames, and where these go. `every` None: `EVERY`."""

    EVERY: ClassVar[float] = 1.0  # seconds

    videos: Annotated[tuple[Path, ...], Option("Videos or folders of videos.", metavar="VIDEO")]
    out: Annotated[Path, Option("Folder for the frames; it may hold frames of other videos.", metavar="OUT")]
    every: Annotated[
        float | None,
        Option("Take a frame every N seconds.", metavar="SECONDS", least=0.001, default=f"{EVERY:g}"),
    ] = None
    changes: Annotated[
        bool, Option("Instead of a frame every N seconds, take each that looks different from all taken before.")
    ] = False
    keep_similar: Annotated[bool, Option("Keep near-duplicates of earlier frames of the video, too.")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.changes and self.every is not None:
            raise VggftError("--changes with --every: every frame is looked at. Leave one of them out.")
        if self.changes and self.keep_similar:
            raise VggftError(
                "--changes with --keep-similar: --changes takes frames by leaving near-duplicates out. Use --every."
            )

    @property
    def selection(self) -> str:
        """The options that decide which frames of a video are kept, in words that stay the same: they are recorded."""
        if self.changes:
            return "changes"
        return f"every {self.every or self.EVERY:.10g}" + (", similar kept" if self.keep_similar else "")


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """Which images and which model."""

    folder: Annotated[
        Path, Option("Folder of class folders with labelled images, or of the files in --labels.", metavar="FOLDER")
    ]
    model: Annotated[str | None, _MODEL] = None
    labels: Annotated[
        Path | None,
        Option("Table (CSV) with the label of each file.", metavar="TABLE", default="class folders are the labels"),
    ] = None


@dataclass(frozen=True)
class ExplainOptions(Options):
    """Which images, which models and classes, and where the pictures go."""

    paths: Annotated[
        tuple[Path, ...],
        Option("Images or folders of images; - reads paths from standard input, one per line.", metavar="IMAGE"),
    ]
    model: Annotated[
        tuple[str, ...],
        Option(
            "Name of a head or tuned network; repeat for more.",
            metavar="NAME",
            default="the best head and the best tuned network",
        ),
    ] = ()
    classes: Annotated[
        tuple[str, ...],
        Option(
            "Class to explain beside the predicted ones; repeat for more.",
            flag="--class",
            metavar="NAME",
            default="none",
        ),
    ] = ()
    out: Annotated[
        Path | None,
        Option("Folder for the pictures.", metavar="FOLDER", default="report/explain in the workspace"),
    ] = None


@dataclass(frozen=True)
class ExportOptions(Options):
    """Where to, in which format, and which model."""

    out: Annotated[Path, Option("File to write (saved_model: folder); must not exist.", metavar="OUT")]
    format: Annotated[
        FormatName | None,
        Option("Format of the file.", default="by the suffix: .keras, .onnx, .xml, .tflite or .skops"),
    ] = None
    precision: Annotated[
        StoredPrecision,
        Option("Precision of the weights in the file; float16: openvino and litert; int8: litert."),
    ] = "float32"
    model: Annotated[str | None, _MODEL] = None


@dataclass(frozen=True)
class RunsOptions(Options):
    """Which runs to remove; none: list them."""

    remove: Annotated[tuple[str, ...], Option("Run to delete, after asking; repeat for more.", metavar="NAME")] = ()
    yes: Annotated[bool, Option("Delete without asking.", short="-y")] = False


@dataclass(frozen=True)
class PruneOptions(Options):
    """Whether to ask."""

    yes: Annotated[bool, Option("Delete without asking.", short="-y")] = False


@dataclass(frozen=True)
class VerifyOptions(Options):
    """What to check besides the bytes of files."""

    recompute: Annotated[
        int, Option("Also compute N random images again here, and show how far their features are.", least=1, off=0)
    ] = 0


@dataclass(frozen=True)
class MergeOptions(Options):
    """What to merge."""

    parts: Annotated[tuple[Path, ...], Option("Workspaces whose features are added to this one.", metavar="PART")]


@dataclass(frozen=True)
class CacheExportOptions(Options):
    """Where to."""

    file: Annotated[Path, Option("HDF5 file to write; must not exist.", metavar="FILE.h5")]
