"""A hook of MkDocs: the page of all commands and options is generated from the code at every build."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from vggft.cli import reference


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add commands.md, which exists only during a build."""
    files.append(File.generated(config, "commands.md", content=reference.markdown()))
    return files
