"""What all commands share: their options, how errors are said, and the exit codes."""

import os
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer

from featurize import interrupts
from featurize.backbone.architecture import Architecture
from featurize.errors import VggftError

# Exit codes, see README.
FAILED, PARTIAL, INTERRUPTED = 1, 3, interrupts.EXIT_CODE


def named_path(text: str | Path) -> Path:
    """Read a path that a person names. "", which is what an unset variable of a shell gives, is the current folder to pathlib.

    Raises:
        typer.BadParameter: it is empty.
    """
    if text == "":
        raise typer.BadParameter("an empty path, perhaps an unset variable.")
    path = Path(text)
    return path.absolute() if path == Path("-") and str(text) != "-" else path  # ./- is a file of that name


WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace",
        "-w",
        envvar="VGGFT_WORKSPACE",
        parser=named_path,
        metavar="PATH",
        help="Folder that keeps everything of one experiment.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, messages on standard error.")
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="No progress and no tables; only warnings, errors, and what predict says of each file."
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of weights, order and dropout.")]

WaitOption = Annotated[bool, typer.Option("--wait", help="Wait for another vggft that is writing in this workspace.")]

DEFAULT_WORKSPACE = Path("vggft-work")
DEMO_WORKSPACE = Path("vggft-demo")  # never $VGGFT_WORKSPACE: a demo has no business in a person's own experiment


# The network that all commands of a run work with; `vggft.cli.app.main` sets it.
architecture: ContextVar[Architecture] = ContextVar("architecture")


def workspace_of(root: Path, ui: Any, wait: bool = False) -> Any:
    """Open a workspace whose lock is waited for, or not."""
    from vggft.workspace.workspace import Workspace

    return Workspace(root, architecture.get(), ui.warn if wait else None)


_EVERYWHERE = {"workspace", "wait", "json", "quiet", "debug"}  # options that say nothing about what is to be done
_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def require_only(context: typer.Context, option: str, *allowed: str) -> set[str]:
    """See that an option is given alone, but for those in `allowed`; return the names of those that were given.

    Raises:
        VggftError: another one was given.
    """
    given = set()
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is None or source.name != "COMMANDLINE":
            continue
        given.add(str(parameter.name))
        if parameter.name not in {option, *allowed, *_EVERYWHERE}:
            with_it = ", ".join(f"--{name}" for name in allowed)
            raise VggftError(
                f"--{option} with {parameter.opts[0]}: what was begun goes on with the settings it was begun with. Expected "
                f"{with_it} at most."
            )
    return given


def number_of_bytes(option: str, text: str) -> int:
    """Read an amount such as 2GB, 500 MB or 1.5GiB.

    Raises:
        VggftError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)", text.strip().upper())
    if found is None or found[2] not in _UNITS or not float(found[1]):
        raise VggftError(f"{option} {text!r}: expected an amount of memory, such as 2GB or 500MB.")
    return int(float(found[1]) * _UNITS[found[2]])


def execute(
    command: Callable[[Any], dict[str, Any]], json: bool, quiet: bool, debug: bool, kept: str = "Nothing was changed."
) -> None:
    """Run one command; say errors in a line or two; leave with the exit code that README promises."""
    from vggft.ui.console import Ui

    ui = Ui(json=json, quiet=quiet)
    interrupted = f"interrupted. {kept}"
    interrupts.announce(interrupted, ui.tell_programs)
    try:
        interrupts.check()
        result = command(ui)
        ui.result(result)
    except BrokenPipeError:  # the reader has seen enough
        close_standard_output()
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        ui.error(interrupted)
        sys.exit(INTERRUPTED)
    except (VggftError, OSError) as error:
        if debug:
            raise
        ui.error(str(error))
        raise typer.Exit(FAILED) from None
    except Exception as error:  # a bug of ours, or something no one foresaw: said in a line all the same
        if debug:
            raise
        if interrupts.heard():  # a terminal's Ctrl-C reaches child processes, too, and their end is an error here
            ui.error(interrupted)
            sys.exit(INTERRUPTED)
        ui.error(f"unexpected: {type(error).__name__}: {error}. {kept} With --debug it says where it happened.")
        raise typer.Exit(FAILED) from None
    if result.get("rejected") or result.get("failed"):
        raise typer.Exit(PARTIAL)
    if result.get("ok") is False:
        raise typer.Exit(FAILED)


def close_standard_output() -> None:
    """Leave nothing for the interpreter to flush into a pipe that nobody reads."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
