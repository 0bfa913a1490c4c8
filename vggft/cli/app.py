"""The command line: one thin function a command. What a command does is in `vggft.steps`.

Nothing heavy is imported before the command that needs it, so that `--help` answers at once.
"""

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from featurize import descriptors
from featurize.backbone.architecture import Architecture
from featurize.backbone.vgg16 import VGG16
from vggft.cli import cache_commands, use_commands
from vggft.cli.command import (
    DEFAULT_WORKSPACE,
    DEMO_WORKSPACE,
    FAILED,
    INTERRUPTED,
    DebugOption,
    JsonOption,
    QuietOption,
    SeedOption,
    WaitOption,
    WorkspaceOption,
    architecture,
    close_standard_output,
    execute,
    named_path,
    number_of_bytes,
    require_only,
    workspace_of,
)

app = typer.Typer(
    name="vggft",
    help="Transfer learning and fine-tuning of VGG16 on one machine: nothing frozen is ever computed twice.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cache_commands.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(f"vggft {importlib.metadata.version('vggft')}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
]


@app.callback()
def before_any_command(version: VersionOption = False) -> None:
    """Transfer learning and fine-tuning of VGG16 on one machine: nothing frozen is ever computed twice."""


@app.command()
def featurize(
    data: Annotated[
        Path,
        typer.Argument(
            parser=named_path,
            metavar="DATA",
            help="Folder of class folders, or of train/, validate/ and test/ with them.",
        ),
    ],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", help="Layer to keep; repeat for more.", show_default=", ".join(VGG16.cached)),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(help="Share of each class held back for validation.", show_default="0.2, or as before"),
    ] = None,
    test: Annotated[
        float | None,
        typer.Option(help="Share of each class reserved for the last test.", show_default="0, or as before"),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Regular expression; files with the same first capture stay in one split.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the split.", show_default="0, or as before")] = None,
    preprocess: Annotated[
        str | None, typer.Option(help="caffe (as the weights were trained) or raw.", show_default="caffe, or as before")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Other VGG16 weights: .h5, .onnx or .keras.")] = None,
    engine: Annotated[str, typer.Option(help="Who runs the frozen network: auto, keras, winograd or mnn.")] = "auto",
    shard: Annotated[int, typer.Option(help="Images in one file of the cache, at most.")] = 512,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read every file again, of the data and of the cache.")
    ] = False,
    wait: WaitOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the frozen network once over the images (stage 1: images → cache)."""

    def command(ui: Any) -> dict[str, Any]:
        from vggft.steps import featurize as stage

        options = stage.Options(
            layers=layers or (),
            preprocess=preprocess,
            weights=weights,
            validation=validation,
            test=test,
            seed=seed,
            group_by=group_by,
            shard_rows=shard,
            engine=engine,
            rehash=rehash,
        )
        return stage.run(workspace_of(workspace, ui, wait), data, options, ui)

    execute(command, json, quiet, debug, kept="Features committed so far are kept; run the same command to go on.")


@app.command()
def head(
    epochs: Annotated[int, typer.Option(help="Epochs of the dense heads, at most; the best one of each is kept.")] = 50,
    patience: Annotated[
        int, typer.Option(help="A dense head stops after so many epochs without a lower validation log-loss.")
    ] = 15,
    only: Annotated[
        list[str] | None, typer.Option("--head", help="Head to train; repeat for more.", show_default="all of them")
    ] = None,
    grid: Annotated[
        Path | None, typer.Option(readable=False, help="TOML file that defines other heads; see README.")
    ] = None,
    cv: Annotated[int, typer.Option(help="Judge on all images by so many folds, too; 0: do not.")] = 0,
    seeds: Annotated[int, typer.Option(help="Train with so many seeds, and show mean and spread.")] = 1,
    class_weight: Annotated[
        str | None, typer.Option(help="balanced: rare classes count as much as frequent ones.", show_default="none")
    ] = None,
    suspects: Annotated[
        bool, typer.Option("--suspects", help="List the images whose label the heads agree is wrong.")
    ] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train also the heads that are here already.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    seed: SeedOption = 0,
    wait: WaitOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train dense heads and the logistic-regression baseline (stage 2: cache → leaderboard)."""

    def command(ui: Any) -> dict[str, Any]:
        from heads.population import Plan
        from vggft.steps import head as stage

        plan = Plan(epochs=epochs, patience=patience, seed=seed, class_weight=class_weight)
        options = stage.Options(plan, tuple(only or ()), grid, seeds, cv, suspects, retrain)
        return stage.run(workspace_of(workspace, ui, wait), options, ui)

    execute(command, json, quiet, debug, kept="Heads that were finished are kept; run the same command to go on.")


@app.command()
def finetune(
    context: typer.Context,
    unfreeze: Annotated[
        str | None,
        typer.Option(
            help="Block (block5) or layer (block5_conv2): it and all above it are tuned; or all.",
            show_default=VGG16.unfreeze,
        ),
    ] = None,
    start: Annotated[
        str, typer.Option("--from", help="Head to start from: best, its name, or scratch (random weights).")
    ] = "best",
    name: Annotated[str | None, typer.Option(help="Of the run.", show_default="made from the settings")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that was interrupted (--name, if there are several).")
    ] = False,
    epochs: Annotated[int, typer.Option(help="Epochs, at most; the best is kept: 0, the head as it is, may win.")] = 10,
    patience: Annotated[int, typer.Option(help="Stop after so many epochs without a lower validation log-loss.")] = 5,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 16,
    optimizer: Annotated[str, typer.Option(help="sgd or adam.")] = "sgd",
    lr: Annotated[
        float | None, typer.Option("--lr", help="Learning rate.", show_default="sgd: 1e-4, adam: 1e-5")
    ] = None,
    momentum: Annotated[float, typer.Option(help="Momentum of sgd.")] = 0.9,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: constant, or cosine (down to 0).")] = "constant",
    layer_decay: Annotated[
        float, typer.Option(help="Factor on the rate for each convolution further down: 0.8, say; 1: all alike.")
    ] = 1.0,
    l2_sp: Annotated[
        float, typer.Option("--l2-sp", help="Strength of the pull of tuned layers towards their pretrained weights.")
    ] = 0.0,
    label_smoothing: Annotated[float, typer.Option(help="Part of a label shared among all classes.")] = 0.0,
    class_weight: Annotated[
        str | None, typer.Option(help="balanced: rare classes count as much as frequent ones.", show_default="none")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradients.", show_default="none")] = None,
    precision: Annotated[
        str, typer.Option(help="float32, mixed_float16, or auto: mixed on a GPU, float32 on a CPU.")
    ] = "auto",
    memory: Annotated[
        str, typer.Option(help="For inputs in memory; what does not fit is read again in every epoch.")
    ] = "2GB",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    seed: SeedOption = 0,
    wait: WaitOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Tune the upper layers together with the best head (stage 3: cache → tuned network)."""

    def command(ui: Any) -> dict[str, Any]:
        from finetune.plan import RATES, Plan
        from vggft.steps import finetune as stage

        opened = workspace_of(workspace, ui, wait)
        if resume:
            given = require_only(context, "resume", "name", "memory")
            bound = number_of_bytes("--memory", memory) if "memory" in given else None
            return stage.resume(opened, name, ui, bound)
        plan = Plan(
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            optimizer=optimizer,
            learning_rate=RATES.get(optimizer, 1.0) if lr is None else lr,
            momentum=momentum,
            schedule=schedule,
            layer_decay=layer_decay,
            l2_sp=l2_sp,
            label_smoothing=label_smoothing,
            class_weight=class_weight,
            clip=clip,
            patience=patience,
        )
        options = stage.Options(unfreeze, start, name, plan, precision, number_of_bytes("--memory", memory))
        return stage.run(opened, options, ui)

    execute(command, json, quiet, debug, kept="Finished epochs are kept; go on with: vggft finetune --resume")


@app.command()
def compare(
    cv: Annotated[
        int,
        typer.Option(
            help="Judge on all images by so many folds, all choices and trainings repeated in each; 0: do not."
        ),
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what takes longest: changed pictures, and latency.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    wait: WaitOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare transfer learning with fine-tuning, and say which to use."""

    def command(ui: Any) -> dict[str, Any]:
        from vggft.steps import compare as stage

        return stage.run(workspace_of(workspace, ui, wait), stage.Options(cv, quick), ui)

    execute(
        command,
        json,
        quiet,
        debug,
        kept="Finished folds and features of changed pictures are kept; run the same command to go on.",
    )


app.command()(use_commands.predict)
app.command()(use_commands.evaluate)


@app.command()
def doctor(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what will be used on this machine (device, backend, weights, disk), and what to do where it is not right."""

    def command(ui: Any) -> dict[str, Any]:
        from vggft.steps import doctor as stage

        return stage.run(workspace_of(workspace, ui), ui)

    execute(command, json, quiet, debug)


@app.command()
def demo(
    workspace: Annotated[
        Path,
        typer.Option(
            "--workspace", "-w", parser=named_path, metavar="PATH", help="Folder that keeps everything of the demo."
        ),
    ] = DEMO_WORKSPACE,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """See the whole story on bundled drawings: featurize, head, finetune, compare. A few minutes."""

    def command(ui: Any) -> dict[str, Any]:
        from vggft.steps import demo as stage

        return stage.run(workspace_of(workspace, ui), ui)

    execute(command, json, quiet, debug, kept="Steps that were finished are kept; run the same command to go on.")


def main(network: Architecture = VGG16) -> None:
    """Understand and run the command line, for one network."""
    architecture.set(network)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as cron and daemons may have it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names that are no Unicode are shown, not crashed on
            stream.reconfigure(errors="backslashreplace")
    descriptors.hide_libraries()
    # A notebook's shell names a backend that may not be installed here; Keras imports matplotlib, and fails.
    os.environ["MPLBACKEND"] = "agg"
    arguments = sys.argv[1:] or ["--help"]
    try:
        code = app(arguments, prog_name="vggft", standalone_mode=False)
        if code == INTERRUPTED:  # outside of `execute`, which ends by itself: typer has caught it, and nobody was told
            raise KeyboardInterrupt
        sys.exit(code)
    except typer.TyperException as error:  # a command line that cannot be understood
        from vggft.ui.console import Ui

        Ui(json="--json" in arguments).error(f"{error.format_message()} See vggft --help.")
        sys.exit(FAILED)
    except BrokenPipeError:
        close_standard_output()
        sys.exit(FAILED)
