"""The command line: a typer application made of the table of commands, and the console script."""

import inspect
import io
import os
import sys
from collections.abc import Callable
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

# Plain help: rich, which would draw it in boxes, takes longer to import than all the rest.
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
    """Do nothing: what comes before a command is in its options."""


def function(command: Command) -> Callable[..., None]:
    """Return what typer is to call: its parameters are the command's arguments and options, all of them text or switches."""

    def invoke(**values: Any) -> None:
        run(command, {name: value for name, value in values.items() if value not in (None, [], False)})

    # Arguments are explained here: typer would list them with their Python type.
    arguments = [f"{field.metavar}: {field.option.help}" for field in command.fields if field.required]
    invoke.__doc__ = "\n\n".join([command.help, *arguments])
    parameters = [_parameter(field) for field in command.fields]
    invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return invoke


def _parameter(field: Field) -> inspect.Parameter:
    kind: Any = bool if field.kind is bool else list[str] if field.many else str
    if field.required:
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
    """Return an option's help text with its default."""
    environment = f", or ${field.option.environment}" if field.option.environment else ""
    return f"{field.option.help} [default: {field.usual}{environment}]" if field.usual else field.option.help


def _add_commands() -> None:
    groups = {name: typer.Typer(name=name, help=text) for name, text in GROUPS.items()}
    for command in COMMANDS:
        *group, name = command.name.split()
        (groups[group[0]] if group else app).command(name)(function(command))
    for group_app in groups.values():
        app.add_typer(group_app)


_add_commands()


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
    arguments = sys.argv[1:]
    if arguments in ([], *([group] for group in GROUPS)):
        arguments = [*arguments, "--help"]
    try:
        code = app(arguments, prog_name="vggft", standalone_mode=False)
        if code == INTERRUPTED:  # outside of `execute`, which ends by itself: typer has caught it, and nobody was told
            raise KeyboardInterrupt
        sys.exit(code)
    except typer.TyperException as error:  # a command line that cannot be understood
        from vggft.ui.console import Ui

        context = getattr(error, "ctx", None)
        command = context.command_path if context else "vggft"
        Ui(json="--json" in arguments).error(f"{error.format_message()} See {command} --help.")
        sys.exit(FAILED)
    except BrokenPipeError:
        close_standard_output()
        sys.exit(FAILED)
