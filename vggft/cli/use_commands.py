"""The command line of what uses a model: `vggft predict` and `vggft evaluate`, one thin function each."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vggft.cli.command import (
    DEFAULT_WORKSPACE,
    DebugOption,
    JsonOption,
    QuietOption,
    WorkspaceOption,
    execute,
    named_path,
    workspace_of,
)

_Model = Annotated[
    str | None,
    typer.Option(help="A head or tuned network by name.", show_default="what compare recommends, else the best"),
]


def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            parser=named_path,
            help="Images, folders of images, and -: paths on standard input, one a line.",
            metavar="PATH...",
        ),
    ],
    model: _Model = None,
    top: Annotated[int, typer.Option(help="Show so many of the most probable classes.")] = 1,
    csv: Annotated[bool, typer.Option("--csv", help="CSV rows on standard output, a batch at a time.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Say class and score of each image."""

    def command(ui: Any) -> dict[str, Any]:
        from vggft.steps import predict as stage

        return stage.run(workspace_of(workspace, ui), paths, stage.Options(model, top, csv), ui)

    execute(command, json, quiet, debug)


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(parser=named_path, metavar="FOLDER", help="Folder of class folders with labelled images."),
    ],
    model: _Model = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Judge a model on a labelled folder: every metric, from the pixels."""

    def command(ui: Any) -> dict[str, Any]:
        from vggft.steps import evaluate as stage

        # It writes when all is computed, and waits for its turn rather than lose that.
        return stage.run(workspace_of(workspace, ui, wait=True), folder, model, ui)

    execute(command, json, quiet, debug)
