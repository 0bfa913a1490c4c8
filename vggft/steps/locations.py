"""Where featurize writes: workspace and cache, which may not overlap with the pictures."""

import contextlib
from pathlib import Path

from featurize.cache import sharing
from featurize.errors import VggftError
from featurize.process import places
from vggft.steps.options import FeaturizeOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def refuse_overlap(place: Path, data: Path) -> None:
    """Check that pictures are apart from a workspace or cache: vggft writes and deletes files there.

    Raises:
        VggftError: one lies in the other, links resolved.
    """
    folder, pictures = places.resolved(place), places.resolved(data)
    if folder.is_relative_to(pictures) or pictures.is_relative_to(folder):
        raise VggftError(
            f"the workspace or cache {place} and the data folder {data} overlap: one lies inside the other. Choose another "
            "folder with --workspace or --cache."
        )


def choose_cache(workspace: Workspace, options: FeaturizeOptions) -> Path | None:
    """Return the folder of a cache outside the workspace, and let the workspace use it; None for its own.

    Raises:
        VggftError: the folder is not a cache, or overlaps with the workspace or the pictures.
    """
    if options.cache is None:
        stored = workspace.settings.cache if workspace.exists else None
        return Path(stored) if stored else None
    folder, root = places.resolved(options.cache), places.resolved(workspace.root)
    if folder == root / "cache":
        workspace.choose_cache(workspace.root / "cache")
        return None
    if folder.is_relative_to(root) or root.is_relative_to(folder):
        raise VggftError(f"--cache {folder} and the workspace {workspace.root} overlap. Choose a folder outside it.")
    refuse_overlap(folder, options.data)
    sharing.require_cache(folder)
    workspace.choose_cache(folder)
    return folder


def join(workspace: Workspace, folder: Path, ui: Ui) -> None:
    """List the workspace as a user of a cache, before features are computed that another workspace could prune.

    The workspace that the cache belongs to must not be writing: it did not lock the cache while nobody else used it.

    Raises:
        VggftError: it is writing, and this command does not wait.
    """
    if workspace.root in sharing.users(folder):
        return
    owner = Workspace(folder.parent, workspace.architecture, workspace.waiting)
    with owner.writing() if folder.name == "cache" and owner.exists else contextlib.nullcontext():
        sharing.join(folder, workspace.root, ui.say)
