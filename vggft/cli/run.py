"""Running one command: parsing its options, reporting errors in one line, and exiting with an exit code."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import typer

from featurize.backbone.architecture import Architecture
from featurize.errors import VggftError
from featurize.process import interrupts
from vggft.cli.commands import Command

# Exit codes, documented in docs/guide.md.
FAILED, PARTIAL, INTERRUPTED = 1, 3, interrupts.EXIT_CODE

# The network that all commands of a run work with; `vggft.cli.app.main` sets it.
architecture: ContextVar[Architecture] = ContextVar("architecture")


def run(command: Command, given: Mapping[str, Any]) -> None:
    """Run a command with the options that were given, name → switch or unparsed text."""

    def invoke(ui: Any) -> dict[str, Any]:
        from vggft.workspace.workspace import Workspace

        step = _step(command.step)
        shared = command.shared.parse(given)
        options = [command.options.parse(given)] if command.options else []
        waits = command.waits or getattr(shared, "wait", False)
        return step(Workspace(shared.workspace, architecture.get(), ui.warn if waits else None), *options, ui)

    execute(invoke, "json" in given, "quiet" in given, "debug" in given, command.kept)


def _step(name: str) -> Callable[..., dict[str, Any]]:
    """Return a function of `vggft.steps`, whose modules are imported only now."""
    module, function = name.split(".")
    step: Callable[..., dict[str, Any]] = getattr(importlib.import_module(f"vggft.steps.{module}"), function)
    return step


def execute(
    command: Callable[[Any], dict[str, Any]], json: bool, quiet: bool, debug: bool, kept: str = "Nothing was changed."
) -> None:
    """Run one command, report errors in one line, and exit with one of the exit codes above."""
    from vggft.ui.console import Ui

    ui = Ui(json=json, quiet=quiet)
    ui.keep(kept)
    try:
        interrupts.check()
        result = command(ui)
        ui.result(result)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        close_standard_output()
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        ui.error(f"interrupted. {ui.kept}")
        sys.exit(INTERRUPTED)
    except (VggftError, OSError) as error:
        if debug:
            raise
        ui.error(str(error))
        raise typer.Exit(FAILED) from None
    except Exception as error:  # a bug in vggft, or an unforeseen condition
        if debug:
            raise
        if interrupts.heard():  # Ctrl-C in a terminal also kills child processes, which causes an error here
            ui.error(f"interrupted. {ui.kept}")
            sys.exit(INTERRUPTED)
        ui.error(f"unexpected: {type(error).__name__}: {error}. {ui.kept} Run it again with --debug for the traceback.")
        raise typer.Exit(FAILED) from None
    if result.get("rejected") or result.get("failed"):
        raise typer.Exit(PARTIAL)
    if result.get("ok") is False:
        raise typer.Exit(FAILED)


def close_standard_output() -> None:
    """Redirect standard output to nowhere, so that the interpreter does not flush into a closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
