"""README and docs: every command line parses, every option exists, every link resolves."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from vggft import Experiment
from vggft.cli.app import app

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = typer.main.get_command(app)

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def page(request):
    return request.param.read_text(encoding="utf-8")


def blocks(text, language):
    return [body for kind, body in _BLOCK.findall(text) if kind == language]


def command_lines(line):
    """Return the arguments of each vggft in a line of shell: `vggft a && find . | vggft b > c` has two."""
    words = shlex.shlex(line, punctuation_chars="&|;>", posix=True)
    words.whitespace_split = True
    found, current = [], []
    for word in [*words, "&&"]:
        if set(word) <= set("&|;>"):
            found += [current[1:]] if current[:1] == ["vggft"] else []
            current = []
        else:
            current.append(word)
    return found


def resolve(arguments):
    """Return the command that the first words name, and the words after them."""
    command = COMMAND
    arguments = list(arguments)
    while hasattr(command, "commands") and arguments[:1] != ["--help"]:
        name = arguments.pop(0) if arguments else ""
        assert name in command.commands, f"no such command: {name!r}"
        command = command.commands[name]
    return command, arguments


def options(command):
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def all_options():
    known, commands = {"--help", "-h", "--version"}, [COMMAND]
    while commands:
        command = commands.pop()
        known |= options(command)
        commands += getattr(command, "commands", {}).values()
    return known


def test_shown_command_lines_parse(page):
    lines = [line[2:] for body in blocks(page, "console") for line in body.splitlines() if line.startswith("$ ")]
    for line in lines:
        for arguments in command_lines(line):
            command, rest = resolve(arguments)
            command.make_context(command.name, rest)  # raises where it does not understand


def test_commands_named_in_the_text_exist(page):
    for code in _INLINE.findall(page):
        if not code.startswith("vggft ") or code.startswith("vggft COMMAND"):
            continue
        command, rest = resolve(shlex.split(code)[1:])
        named = {word for word in rest if word.startswith("-") and word != "-"}
        assert named <= options(command) | {"--help"}, code


def test_options_named_in_the_text_exist(page):
    named = {code.split()[0] for code in _INLINE.findall(page) if code.startswith("-") and len(code.split()[0]) > 2}
    assert named <= all_options() | {"--cov"}


def test_files_of_the_repository_named_in_the_text_exist(page):
    for path in re.findall(r"(?<![\w/.-])(?:(?:featurize|heads|finetune|vggft|tests|benchmarks)/[\w/]+\.py)", page):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/guarantees.md"])
def test_rooms_named_in_the_text_exist(name):
    rooms = re.findall(r"`((?:featurize|heads|finetune|vggft|tests|docs)/[\w/.]+)`", (ROOT / name).read_text("utf-8"))
    assert rooms
    assert [room for room in rooms if not (ROOT / room).exists()] == []


def test_python_blocks_compile(page):
    for body in blocks(page, "python"):
        compile(body, "page", "exec")


def test_methods_of_the_python_page_exist():
    table = re.findall(r"^\| `(\w+)\(", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert "compare" in table
    assert all(callable(getattr(Experiment, name, None)) for name in table)


def test_links_between_files_lead_somewhere(page, request):
    folder = request.node.callspec.params["page"].parent
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page):
        if target != "commands.md":  # generated in a build
            assert (folder / target).exists(), target
