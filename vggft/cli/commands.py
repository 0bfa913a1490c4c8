"""The table of commands: help text, options, and the function in `vggft.steps` that runs each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from featurize.options import Field, Option, Options, offered
from vggft.steps.options import (
    CacheExportOptions,
    CompareOptions,
    EvaluateOptions,
    ExplainOptions,
    ExportOptions,
    FeaturizeOptions,
    FinetuneOptions,
    FramesOptions,
    HeadOptions,
    MergeOptions,
    PredictOptions,
    PruneOptions,
    RunsOptions,
    SortOptions,
    UndoOptions,
    VerifyOptions,
)
from vggft.workspace.folder import DEFAULT_WORKSPACE

_WORKSPACE = Option("Folder that holds the experiment.", short="-w", environment="VGGFT_WORKSPACE")


@dataclass(frozen=True)
class Shared(Options):
    """Options of every command."""

    workspace: Annotated[Path, _WORKSPACE] = DEFAULT_WORKSPACE
    json: Annotated[bool, Option("Print one JSON object on standard output; messages go to standard error.")] = False
    quiet: Annotated[
        bool,
        Option("Show only warnings, errors and predictions.", short="-q"),
    ] = False
    debug: Annotated[bool, Option("Show the traceback of an error.")] = False


@dataclass(frozen=True)
class Writing(Shared):
    """Options of commands that write in the workspace; only one process at a time may write."""

    wait: Annotated[bool, Option("Wait for another vggft process that is writing in this workspace.")] = False


@dataclass(frozen=True)
class Apart(Shared):
    """Options of the demo, which never runs in the workspace of an experiment."""

    workspace: Annotated[Path, Option("Folder for everything that the demo writes.", short="-w")] = Path("vggft-demo")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: as typed after vggft.
        help: one sentence.
        step: function in `vggft.steps`; its arguments are the workspace, the options (if any), and the Ui.
        options: options of the step; None if it has none.
        shared: options that only the command line has.
        kept: message after an interruption: what was kept, and how to continue.
        waits: wait for other writing processes even without --wait.
        method: the corresponding method of `vggft.Experiment`; empty if there is none.
    """

    name: str
    help: str
    step: str
    options: type[Options] | None
    shared: type[Shared] = Shared
    kept: str = "Nothing was changed."
    waits: bool = False
    method: str = ""

    @property
    def fields(self) -> Sequence[Field]:
        """Arguments and options, those of the step first."""
        return [*(offered(self.options) if self.options else ()), *offered(self.shared)]


_SCORED = "Features of some of the images may have been added to the cache; nothing else was changed."

COMMANDS = (
    Command(
        "featurize",
        "Stage 1: run the frozen network once over your images.",
        "featurize.run",
        FeaturizeOptions,
        Writing,
        "Features computed so far are kept. Run the same command to continue.",
        method="featurize",
    ),
    Command(
        "head",
        "Stage 2: train heads on the cached features.",
        "head.run",
        HeadOptions,
        Writing,
        "Finished heads are kept. Run the same command to continue.",
        method="fit_heads",
    ),
    Command(
        "finetune",
        "Stage 3: tune the upper layers together with a head.",
        "finetune.run",
        FinetuneOptions,
        Writing,
        "Nothing was changed. Run the same command again.",  # until a run is begun
        method="finetune",
    ),
    Command(
        "compare",
        "Compare heads with tuned networks and recommend one.",
        "compare.run",
        CompareOptions,
        Writing,
        "Finished folds and features of perturbed images are kept. Run the same command to continue.",
        method="compare",
    ),
    Command(
        "predict",
        "Predict the class of each image.",
        "predict.run",
        PredictOptions,
        kept=_SCORED,
    ),
    Command(
        "sort",
        "Sort pictures by hand in a page that learns while you sort.",
        "sort.run",
        SortOptions,
    ),
    Command(
        "undo",
        "Undo what predict --into or sort --apply did with files.",
        "undo.run",
        UndoOptions,
        kept="Files that were not undone yet are where they were. Run the same command to continue.",
    ),
    Command(
        "evaluate",
        "Evaluate a model on a folder of labelled images.",
        "evaluate.run",
        EvaluateOptions,
        kept=_SCORED,
        waits=True,  # it writes only at the end, when the results must not be lost
        method="evaluate",
    ),
    Command(
        "explain",
        "Show where in an image a model sees its class, as a heat map.",
        "explain.run",
        ExplainOptions,
        kept="Pictures drawn so far are kept; features of some of the images may have been added to the cache.",
        method="explain",
    ),
    Command(
        "export",
        "Write a model as a file of another program, with a model card, and check it there.",
        "export.run",
        ExportOptions,
        kept=_SCORED,
        method="export",
    ),
    Command(
        "frames",
        "Cut frames from videos, without near-duplicates.",
        "frames.run",
        FramesOptions,
        kept="Frames written so far are kept. Run the same command to continue.",
    ),
    Command(
        "runs",
        "List fine-tuning runs with state and size, or delete some.",
        "runs.run",
        RunsOptions,
        Writing,
        "Runs that were not deleted yet are kept. Run the same command to continue.",
    ),
    Command("doctor", "Check device, backend, weights and disk, and say what to fix.", "doctor.run", None),
    Command(
        "demo",
        "Run all stages on bundled drawings; takes a few minutes.",
        "demo.run",
        None,
        Apart,
        "Finished steps are kept. Run the same command to continue.",
    ),
    Command("cache info", "Show the images, layers and bytes in the cache.", "cache.info", None),
    Command(
        "cache verify",
        "Check every byte of the cache; exit code 1 if any is damaged.",
        "cache.verify",
        VerifyOptions,
    ),
    Command(
        "cache prune",
        "Delete stale, orphaned and damaged features, after asking.",
        "cache.prune",
        PruneOptions,
        Writing,
        "No feature in use was deleted. Run the same command to continue.",
    ),
    Command(
        "cache merge",
        "Add the features of other workspaces, such as those of featurize --part.",
        "merge.run",
        MergeOptions,
        Writing,
        "Files that were merged are kept. Run the same command to continue.",
    ),
    Command("cache export", "Write features, labels and splits to one HDF5 file.", "cache.export", CacheExportOptions),
)
GROUPS = {"cache": "Inspect, check, clean up and export cached features."}
