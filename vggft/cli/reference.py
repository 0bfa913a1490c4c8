"""The command reference as Markdown, for the documentation. To print it: python -m vggft.cli.reference"""

from collections.abc import Iterable

from featurize.options import Field, offered
from vggft.cli.commands import COMMANDS, GROUPS, Command, Shared, Writing


def markdown() -> str:
    """Return one page: every command with its arguments, its options, and their names in Python."""
    shared = {field.name: field for kind in (Shared, Writing) for field in offered(kind)}
    groups = ", ".join(f"`vggft {name}` ({text[0].lower()}{text[1:-1]})" for name, text in GROUPS.items())
    return "\n\n".join(
        [
            "# Commands",
            "`vggft COMMAND --help` shows the same in the terminal. In Python, the options of a command are keyword arguments of "
            f"the method of `vggft.Experiment` that is shown with it. Groups of commands: {groups}.",
            *map(_section, COMMANDS),
            "## Options of every command",
            "`--wait` is an option of the commands that write in the workspace. In Python, the workspace and `quiet` are "
            "arguments of `Experiment`.",
            _table(shared.values(), python=False),
        ]
    )


def _section(command: Command) -> str:
    step_fields = offered(command.options) if command.options else ()
    arguments = [field for field in step_fields if field.argument]
    usage = " ".join(["vggft", command.name, *map(_in_usage, arguments), "[OPTIONS]"])
    parts = [f"## vggft {command.name}", command.help, f"```\n{usage}\n```"]
    if command.method:
        names = [*(field.name for field in arguments), "…"]
        parts.append(f"Python: `Experiment.{command.method}({', '.join(names)})`")
    parts += [f"`{field.metavar}`: {field.description}" for field in arguments]
    options = [field for field in step_fields if not field.argument]
    if command.shared not in (Shared, Writing):
        options += [field for field in offered(command.shared) if field.name == "workspace"]
    if options:
        parts.append(_table(options, python=bool(command.method)))
    return "\n\n".join(parts)


def _in_usage(argument: Field) -> str:
    return argument.metavar if argument.required else f"[{argument.metavar}]"


def _table(fields: Iterable[Field], python: bool) -> str:
    rows = [
        "| option | Python | default | |" if python else "| option | default | |",
        "|---" * (4 if python else 3) + "|",
    ]
    for field in fields:
        flags = [field.option.short] if field.option.short else []
        option = f"`{', '.join([*flags, field.flag])} {field.metavar}`".replace(" `", "`").replace("|", "\\|")
        cells = [option, *([f"`{field.name}`"] if python else []), _default(field), field.description]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _default(field: Field) -> str:
    return field.usual + (f", or `${field.option.environment}`" if field.option.environment else "")


if __name__ == "__main__":
    print(markdown())
