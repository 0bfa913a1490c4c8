"""What `vggft featurize` starts from: the state of the workspace, the fingerprint of the features, and the files."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import featurize.data.scan
from featurize import engines
from featurize.backbone import weights
from featurize.backbone.architecture import POOLED, Architecture
from featurize.cache import shards, upkeep
from featurize.cache.fingerprint import Fingerprint
from featurize.data.assigned import Assigned
from featurize.data.dataset import Sample
from featurize.data.scan import Rules, Scan
from featurize.data.split_rules import SplitPlan
from featurize.errors import VggftError
from featurize.pixels.images import DECODER_VERSION
from featurize.process import places
from vggft.steps import locations
from vggft.steps.options import FeaturizeOptions
from vggft.ui.console import Advance, Ui
from vggft.workspace.workspace import Settings, Workspace


@dataclass(frozen=True)
class Before:
    """State of the workspace before: settings (None: a new one), samples of the last scan, all splits ever assigned."""

    settings: Settings | None
    samples: Sequence[Sample] = ()
    assigned: Sequence[Assigned] = ()

    @property
    def split(self) -> SplitPlan | None:
        """How its split was made; None for a new workspace."""
        return SplitPlan(self.settings.shares, self.settings.group_by) if self.settings else None


def refuse_overlaps(workspace: Workspace, found: Scan) -> None:
    """Check that the workspace and its cache are apart from all images.

    Raises:
        VggftError: they are not.
    """
    folders = {s.path.rpartition("/")[0] for s in found.samples}
    for folder in (found.root / path for path in folders):  # a class folder may be a link
        if folder.is_dir():
            locations.refuse_overlap(workspace.root, folder)
            locations.refuse_overlap(workspace.cache_folder, folder)


def fingerprint(
    options: FeaturizeOptions, workspace: Workspace, before: Settings | None
) -> tuple[Fingerprint, Path | None]:
    """Return the fingerprint of the features, and the file of the weights.

    A new workspace takes that of the features in it, if there are any, such as those of merged parts. None stands for the
    published weights where this machine has another copy than the file that `--weights` names.
    """
    architecture = workspace.architecture
    if before is None:
        present = upkeep.fingerprints(workspace.cache_folder) if workspace.cache_folder.is_dir() else {}
        plain = [one for folder, one in present.items() if one and not one.probe and shards.present(folder / "shards")]
        default = (
            replace(plain[0], decoder=DECODER_VERSION)
            if len(plain) == 1
            else Fingerprint.of(architecture, precision=engines.choose(architecture, options.engine).precision)
        )
    else:
        default = replace(before.fingerprint, decoder=DECODER_VERSION)
    default = replace(default, preprocess=options.preprocess or default.preprocess)
    if options.weights is None:
        return default, before.weights_file_path if before else None
    loaded = weights.load(architecture, weights.locate(architecture, options.weights))
    elsewhere = loaded.published and weights.available(architecture)
    return replace(default, weights=loaded.digest), None if elsewhere else places.resolved(options.weights)


def layers(options: FeaturizeOptions, architecture: Architecture, before: Settings | None) -> list[str]:
    """Return the layers to cache: those of the options, else of the workspace if heads can be trained on them, else the default.

    Raises:
        VggftError: an unknown layer.
    """
    kept = before.layers if before and {architecture.top, POOLED} & set(before.layers) else architecture.cached
    return list(dict.fromkeys(architecture.layer(name).name for name in options.layers or kept))


def rules(options: FeaturizeOptions, before: Before, group_by: str | None) -> Rules:
    """Return how files get labels, splits and groups: as the options say, else as the workspace remembers."""
    if options.labels is not None:
        return Rules(group_by, table=places.resolved(options.labels))
    if options.layout is not None or before.settings is None:
        return Rules(group_by, options.layout or "auto")
    table = before.settings.labels
    return Rules(group_by, before.settings.layout, Path(table) if table else None)


def scan(options: FeaturizeOptions, before: Before, rules: Rules, ui: Ui) -> Scan:
    """Find and hash the labelled files of the data folder, with progress.

    Raises:
        VggftError: as `featurize.data.scan.scan`.
    """
    known = () if options.rehash else before.samples
    spelt = before.settings.classes if before.settings else ()
    with contextlib.ExitStack() as bar:
        advance: Advance | None = None

        def progress(done: int, total: int) -> None:
            nonlocal advance
            advance = advance or bar.enter_context(ui.progress("reading files", total, "files"))
            advance(done)

        try:
            return featurize.data.scan.scan(options.data, known, rules, progress, spelt)
        except VggftError as error:
            if rules.table is None or options.labels is not None:
                raise
            raise VggftError(
                f"{error} (The workspace remembers this table. Another one: --labels; class folders instead: --layout auto.)"
            ) from None
