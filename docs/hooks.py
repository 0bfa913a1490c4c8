"""A hook of MkDocs: the page of all commands and options is generated from the command line's own definitions."""

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from vggft.cli.app import app


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add commands.md, which exists only during a build."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="vggft", title="Commands")
    files.append(File.generated(config, "commands.md", content=text))
    return files
