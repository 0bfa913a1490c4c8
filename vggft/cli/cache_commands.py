"""The command line of `vggft cache`: one thin function a command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vggft.cli.command import (
    DEFAULT_WORKSPACE,
    DebugOption,
    JsonOption,
    QuietOption,
    WaitOption,
    WorkspaceOption,
    execute,
    workspace_of,
)

app = typer.Typer(
    name="cache", help="Look after the features on disk: info, verify, prune, export.", no_args_is_help=True
)


@app.command()
def info(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what the cache holds: images, layers, bytes, compression, how the features were made."""

    def command(ui: Any) -> dict[str, Any]:
        from vggft.steps import cache

        return cache.info(workspace_of(workspace, ui), ui)

    execute(command, json, quiet, debug)


@app.command()
def verify(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Read every byte of the cache and name what is damaged or missing; exit code 1 if anything is."""

    def command(ui: Any) -> dict[str, Any]:
        from vggft.steps import cache

        return cache.verify(workspace_of(workspace, ui), ui)

    execute(command, json, quiet, debug)


@app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    wait: WaitOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Remove features that nobody needs: made in another way, of images that are gone, damaged. Asks first."""

    def command(ui: Any) -> dict[str, Any]:
        from vggft.steps import cache

        return cache.prune(workspace_of(workspace, ui, wait), yes, ui)

    execute(command, json, quiet, debug, kept="No feature that is needed was removed; run the same command to go on.")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="The HDF5 file to write; it must not exist.", metavar="FILE.h5")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write one plain HDF5 file (features, labels, splits, paths), for people with h5py."""

    def command(ui: Any) -> dict[str, Any]:
        from vggft.steps import cache

        return cache.export(workspace_of(workspace, ui), file, ui)

    execute(command, json, quiet, debug)
