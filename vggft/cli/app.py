"""The typer application, generated from the table of commands, and the entry point of the command line."""

import difflib
import inspect
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from featurize.backbone.architecture import Architecture
from featurize.backbone.vgg16 import VGG16
from featurize.options import Field
from featurize.process import descriptors
from vggft.cli.commands import COMMANDS, GROUPS, Command
from vggft.cli.run import FAILED, INTERRUPTED, architecture, close_standard_output, run

HELP = "Transfer learning and fine-tuning of VGG16 on one machine: frozen layers are computed once."
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

# Names of other programs' options → ours.
_SYNONYMS = {"--learning-rate": "--lr", "--folds": "--cv", "--force": "--yes"}

_SIMILAR = 0.75  # of two names of options, from 0 to 1; --augment and --momentum are at 0.63

# Without rich, which takes longer to import than everything else.
app = typer.Typer(
    name="vggft", help=HELP, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=_CONTEXT
)


def _show_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(f"vggft {importlib.metadata.version('vggft')}")
        raise typer.Exit


@app.callback()
def before_any_command(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """Do nothing; --version is handled by its callback."""


def function(command: Command) -> Callable[..., None]:
    """Return a function for typer, whose parameters are the command's arguments and options: text, lists of text, or switches."""

    def invoke(**values: Any) -> None:
        run(command, {name: value for name, value in values.items() if value not in (None, [], False)})

    # Arguments are described here, because typer would list them with their Python type.
    arguments = [f"{field.metavar}: {field.option.help}" for field in command.fields if field.argument]
    invoke.__doc__ = "\n\n".join([command.help, *arguments])
    parameters = [_parameter(field) for field in command.fields]
    invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return invoke


def _parameter(field: Field) -> inspect.Parameter:
    kind: Any = bool if field.kind is bool else list[str] if field.many else str
    if field.argument:
        info: Any = typer.Argument(metavar=field.metavar, hidden=True)
    else:
        info = typer.Option(
            field.flag,
            *([field.option.short] if field.option.short else []),
            metavar=field.metavar or None,
            envvar=field.option.environment or None,
            help=help_text(field),
            show_default=False,
            show_envvar=False,
            autocompletion=lambda incomplete: [word for word in field.choices if word.startswith(incomplete)],
        )
    default = inspect.Parameter.empty if field.required else None
    annotation: Any = Annotated[kind if field.required else kind | None, info]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def help_text(field: Field) -> str:
    """Return an option's help text with its bounds and default."""
    environment = f", or ${field.option.environment}" if field.option.environment else ""
    return f"{field.description} [default: {field.usual}{environment}]" if field.usual else field.description


def _add_commands() -> None:
    groups = {name: typer.Typer(name=name, help=text) for name, text in GROUPS.items()}
    for command in COMMANDS:
        *group, name = command.name.split()
        (groups[group[0]] if group else app).command(name)(function(command))
    for group_app in groups.values():
        app.add_typer(group_app)


_add_commands()


def _message(error: typer.TyperException) -> str:
    """Return what is wrong with a command line; of an unknown option, only names that are spelt much like it are suggested."""
    option = getattr(error, "option_name", None)
    possibilities = getattr(error, "possibilities", None)
    if option is None or possibilities is None:
        message = error.format_message()
        return message if message.endswith(("?", ".")) else f"{message}."
    context = getattr(error, "ctx", None)
    offered = [name for parameter in context.command.params for name in parameter.opts] if context else []
    lower = option.lower().replace("_", "-")
    if lower in offered:
        similar = [lower]
    elif _SYNONYMS.get(lower) in offered:
        similar = [_SYNONYMS[lower]]
    else:
        similar = difflib.get_close_matches(lower, offered, cutoff=_SIMILAR)
    hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
    return f"No such option: {option}.{hint}"


def _command_path(arguments: Sequence[str]) -> str:
    """Return the command that a command line begins with, as far as there is one."""
    words: list[str] = []
    for word in arguments:
        begun = " ".join([*words, word])
        if not any(command.name == begun or command.name.startswith(f"{begun} ") for command in COMMANDS):
            break
        words.append(word)
    return " ".join(["vggft", *words])


def main(network: Architecture = VGG16) -> None:
    """Parse and run the command line, for one network."""
    architecture.set(network)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, for example under cron or in a daemon
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names that are not Unicode must not raise an error
            stream.reconfigure(errors="backslashreplace")
    # In the shell of a notebook, MPLBACKEND may name a backend that is not installed; Keras imports matplotlib and would fail.
    os.environ["MPLBACKEND"] = "agg"
    arguments = sys.argv[1:]
    if arguments in ([], *([group] for group in GROUPS)):
        arguments = [*arguments, "--help"]
    try:
        with descriptors.hiding_libraries():
            code = app(arguments, prog_name="vggft", standalone_mode=False)
        if code == INTERRUPTED:  # typer caught Ctrl-C outside of `execute`, before it was reported
            raise KeyboardInterrupt
        sys.exit(code)
    except typer.TyperException as error:  # invalid command line
        from vggft.ui.console import Ui

        Ui(json="--json" in arguments).error(f"{_message(error)} See {_command_path(arguments)} --help.")
        sys.exit(FAILED)
    except BrokenPipeError:
        close_standard_output()
        sys.exit(FAILED)
