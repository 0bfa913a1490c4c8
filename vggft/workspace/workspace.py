"""The folder of one experiment; no other module knows its layout.

workspace.json   schema version, data folder, classes, fingerprint, how the split was made
manifest.csv     every sample (`featurize.data.dataset`)
checksums.json   of these three files (`checked.write_checked`); in the folders of heads and runs, too
splits.csv       which split every image ever seen belongs to (`featurize.data.assigned`)
cache/           features (`featurize.cache.feature_cache`)
heads/           a folder a head, leaderboard.csv, suspects.csv (`heads.store`)
finetune/        a folder a run (`finetune.store`)
report/          the comparison
part.json        instead of most of these, in the workspace of a part (`vggft.workspace.part`)
lock, lock.txt   held by the command that writes; its process and host, for people
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import featurize.data.assigned
import finetune.store
from featurize.backbone.architecture import Architecture
from featurize.cache import sharing, upkeep
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.data import manifest
from featurize.data.assigned import Assigned
from featurize.data.dataset import Dataset
from featurize.data.shares import Shares
from featurize.disk import checked, durable, forms
from featurize.errors import VggftError, damaged, reason
from featurize.options import Option, records
from featurize.options.choices import MOST_VIEWS, LayoutName
from featurize.process import interrupts, places
from vggft.workspace import earlier, holder, part
from vggft.workspace.folder import workspace_flag

SCHEMA = 1
_POLL_SECONDS = 0.2  # between two attempts to take a lock


@dataclass(frozen=True)
class Settings:
    """The settings that `vggft featurize` fixes for all later commands.

    Attributes:
        data: the data folder, absolute.
        classes: class names in the order of the scores.
        fingerprint: how pixels become features.
        weights_file: the file that `--weights` named, absolute; None for the published weights.
        shares, group_by: how images were assigned to splits.
        manifest_sha256: sha256 of the manifest.csv that these settings belong to.
        layers: those that the last featurize computed for every image.
        cache: the folder of the features that `--cache` named, absolute; None for `cache/` in the workspace.
        views: number of views of each training image in the cache.
        labels: the table of labels, absolute; None where class folders are the labels.
        layout: what the folders in the data folder are, as `--layout` said.
    """

    data: str
    classes: tuple[str, ...]
    fingerprint: Fingerprint
    weights_file: str | None = None
    shares: Shares = field(default_factory=Shares)
    group_by: str | None = None
    manifest_sha256: str = ""
    layers: tuple[str, ...] = ()
    cache: str | None = None
    views: Annotated[int, Option(least=0, most=MOST_VIEWS)] = 0
    labels: str | None = None
    layout: LayoutName = "auto"

    @property
    def weights_file_path(self) -> Path | None:
        """`weights_file` as a path."""
        return Path(self.weights_file) if self.weights_file else None


class Busy(VggftError):
    """Another process is writing in the workspace, or in the cache that it shares."""


class Workspace:
    """One experiment's folder. Opening it reads and writes no files."""

    draws_runs = True  # whether fine-tuning draws the network and its learning curves

    def __init__(self, root: Path, architecture: Architecture, waiting: Callable[[str], None] | None = None) -> None:
        """Name the folder.

        Args:
            root: the folder; it need not exist.
            architecture: the network whose features it keeps.
            waiting: called with a message when a command has to wait for another one that writes; None: it fails at once.

        Raises:
            VggftError: something else than a folder is there, or in place of a folder above it.
        """
        self.root = places.expanded(root).absolute()
        _require_folder(self.root)
        self.architecture = architecture
        self.waiting = waiting
        self.manifest = self.root / earlier.MANIFEST
        self.splits = self.root / earlier.SPLITS
        self.heads = self.root / earlier.HEADS
        self.leaderboard = self.heads / "leaderboard.csv"
        self.suspects = self.heads / "suspects.csv"
        self.finetune = self.root / earlier.FINETUNE
        self.report = self.root / earlier.REPORT
        self._settings = self.root / earlier.SETTINGS
        self._chosen_cache: Path | None = None

    @property
    def cache_folder(self) -> Path:
        """The folder of the features: `cache/` in the workspace, or the one that `--cache` named."""
        if self._chosen_cache is None and self.exists and self.settings.cache is not None:
            return Path(self.settings.cache)
        return self._chosen_cache or self.root / "cache"

    def choose_cache(self, folder: Path) -> None:
        """Use the features in another folder from now on; `settle` stores it."""
        self._chosen_cache = folder

    @property
    def exists(self) -> bool:
        """True once `vggft featurize` has finished here, also where something else is in place of workspace.json."""
        return os.path.lexists(self._settings)

    @property
    def lost(self) -> bool:
        """True if workspace.json was here and is missing."""
        return not self.exists and (earlier.was_settled(self.root) or earlier.has_models(self.root))

    @property
    def unfinished(self) -> bool:
        """True while the first featurize has stored features but not finished."""
        return not self.exists and any((self.root / "cache").glob("*/shards/*.h5"))

    @cached_property
    def settings(self) -> Settings:
        """The settings that featurize fixed.

        Raises:
            VggftError: not a workspace yet, written by a newer vggft, or damaged.
        """
        if self.lost:
            raise VggftError(
                f"{self._settings} is missing. Restore it, or run vggft featurize again with the same data folder and options "
                f"({earlier.OPTIONS}): features and split are kept."
            )
        if not self.exists and (finished := part.finished(self.root)):
            raise VggftError(
                f"{self.root}: part {finished.part} of the features, and no data set. Merge all parts into one workspace: vggft "
                "cache merge PART…"
            )
        if self.unfinished:
            raise VggftError(
                f"{self.root}: features, but no data set yet. Run: vggft featurize DATA{workspace_flag(self.root)}"
            )
        if not self.exists:
            raise VggftError(
                f"{self.root}: no features here yet. Run first: vggft featurize DATA{workspace_flag(self.root)}"
            )
        try:
            stored: dict[str, Any] = checked.read_json(self._settings)
            schema = stored.pop("schema")
            if schema == SCHEMA:
                return records.build(Settings, stored)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            advice = (
                "Delete this file and run vggft featurize again with the same data folder and options "
                f"({earlier.OPTIONS}); features and split are kept."
            )
            raise damaged(self._settings, error, advice) from None
        raise VggftError(
            f"{self.root}: workspace schema {schema}, expected {SCHEMA}. Use the version of vggft that made it."
        )

    @cached_property
    def dataset(self) -> Dataset:
        """The samples as of the last featurize.

        Raises:
            VggftError: as `settings`, or a manifest that is damaged or does not belong to the settings.
        """
        settings = self.settings
        try:
            return manifest.dataset(self.manifest, Path(settings.data), settings.classes, settings.manifest_sha256)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise VggftError(
                f"{self.manifest}: missing or damaged ({reason(error)}). Run vggft featurize again."
            ) from None

    def cache(self, fingerprint: Fingerprint | None = None, *, recheck: bool = False) -> FeatureCache:
        """Open the feature cache of the workspace's fingerprint or of another; `recheck` reads every file of it again."""
        fingerprint = fingerprint or self.settings.fingerprint
        return FeatureCache(self.cache_folder, fingerprint, self.architecture, recheck=recheck)

    def read_by_heads(self, poolings: Iterable[str]) -> list[str]:
        """Return the layers that heads with these poolings need here, of those that featurize computes for every image."""
        pooled = self.architecture.read_by_heads(self.settings.layers)
        return list(dict.fromkeys(self.architecture.top if each == "flatten" else pooled for each in poolings))

    def sharing(self) -> list["Workspace"]:
        """Return the other workspaces that use the same cache folder.

        Raises:
            VggftError: one of them is missing or cannot be read: what it needs is not known.
        """
        place, others = places.resolved(self.cache_folder), []
        owner = [place.parent] if place.name == "cache" and (place.parent / self._settings.name).is_file() else []
        for root in dict.fromkeys([*owner, *sharing.users(place)]):
            if places.resolved(root) == places.resolved(self.root):
                continue
            if not root.is_dir():
                raise VggftError(
                    f"{root}, which uses the features in {place}, is not there. If it was moved, write its new path in its line "
                    f"of {place / sharing.USERS}; if it is gone for good, delete the line."
                )
            other = Workspace(root, self.architecture)
            try:
                _ = other.dataset
            except VggftError as error:
                raise VggftError(
                    f"{root} uses the features in {place}, too, and cannot be read: {error} If it is gone for good, delete its "
                    f"line in {place / sharing.USERS}."
                ) from None
            if places.resolved(other.cache_folder) == place:
                others.append(other)
        return others

    def _join_cache(self) -> None:
        """List this workspace, which may have been moved or copied, as a user of the cache that `--cache` named."""
        if not self.exists or self.settings.cache is None:
            return
        folder = Path(self.settings.cache)
        if folder.is_dir() and all(
            places.resolved(self.root) != places.resolved(root) for root in sharing.users(folder)
        ):
            # A cache that may only be read cannot be pruned; one that another process writes in is joined next time.
            with contextlib.suppress(OSError, VggftError):
                sharing.join(folder, self.root, _do_not_wait)

    def settle(self, dataset: Dataset, settings: Settings, assigned: Sequence[Assigned]) -> None:
        """Write splits, manifest and settings, in this order: the settings name the manifest that they belong to."""
        samples = manifest.table(dataset)
        sha256 = hashlib.sha256(samples).hexdigest()
        settings = replace(settings, manifest_sha256=sha256)
        files = {
            self.splits.name: featurize.data.assigned.table(assigned),
            self.manifest.name: samples,
            self._settings.name: _described(settings),
        }
        checked.write_checked(self.root, files)
        del samples, files  # 400 bytes an image, before the columns are written
        manifest.derive(self.manifest, dataset, sha256)
        self._forget()

    def require_same(self, settings: Settings) -> None:
        """Check that these settings are those of the workspace.json that is missing, where its checksum is known.

        Raises:
            VggftError: they are not.
        """
        earlier.require_same_settings(
            self.root, _described(replace(settings, manifest_sha256=earlier.manifest_sha256(self.root)))
        )

    def _forget(self) -> None:
        """Read settings and manifest again on next use: another process may have written them."""
        for name in ("settings", "dataset"):
            self.__dict__.pop(name, None)

    def report_folder(self) -> Path:
        """Return the report folder, created if missing. To be called before a long computation, so that its result is not lost.

        Raises:
            VggftError: it cannot be created or written.
        """
        durable.refuse_link(self.report)
        try:
            self.report.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.report):
                return self.report
        except OSError as error:
            raise VggftError(
                f"{self.report}: cannot be written ({error.strerror}), and reports go there. Fix its permissions, or move away "
                "what is in its place."
            ) from None

    @contextlib.contextmanager
    def writing(self, *, new: bool = False) -> Iterator[None]:
        """Hold the workspace's only lock, a kernel lock that ends with its process.

        Settings and manifest are read again under it, and temporary files of killed processes are removed.

        Args:
            new: the workspace need not exist; its folder is created.

        Raises:
            VggftError: another process holds it (named) and `waiting` is None, or the folder cannot be written or locked; as
                `settings`, unless `new`.
        """
        import filelock

        if not new:
            _ = self.settings
        who = self.root / "lock.txt"
        lock = filelock.FileLock(self.root / "lock", fallback_to_soft=False)
        earlier.refuse_foreign_lock(self.root / "lock")
        for path in (self.root / "lock", self.cache_folder, self.heads, self.finetune, self.report, self.report / "cv"):
            durable.refuse_link(path)
        for folder in upkeep.fingerprints(self.cache_folder):
            durable.refuse_link(folder / "shards")
            durable.refuse_link(folder / "damaged")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                process = holder.name(who)
                if self.waiting is None:
                    raise Busy(
                        f"{self.root}: {process} is writing here. Wait for it with --wait, or use another --workspace."
                    ) from None
                self.waiting(f"waiting: {process} is writing in {self.root}")
                try:
                    lock.acquire(poll_interval=_POLL_SECONDS, cancel_check=interrupts.heard)
                except filelock.Timeout:
                    interrupts.check()
                    raise
        except (OSError, NotImplementedError) as error:  # the latter on file systems without locks
            raise VggftError(
                f"{self.root}: cannot be written or locked ({reason(error)}). Choose another --workspace."
            ) from None
        try:
            holder.write(who)
            self._forget()
            for folder in (self.root, self.heads, self.finetune, self.report):
                durable.sweep(folder)
            with sharing.free(self.cache_folder) as alone:  # else these files are another process's
                for folder in upkeep.fingerprints(self.cache_folder) if alone else ():
                    durable.sweep(folder)
                    durable.sweep(folder / "shards")
            finetune.store.sweep(self.finetune)
            self._join_cache()
            yield
        finally:
            holder.remove(who)
            lock.release()


def _require_folder(root: Path) -> None:
    place = places.in_the_way(root)
    if place is not None:
        raise VggftError(
            f"{place}: not a folder. Expected the folder of a workspace, or a path where one can be created. Choose another "
            "--workspace, or move away what is in its place."
        )


def _do_not_wait(message: str) -> None:
    raise VggftError(message)


def _described(settings: Settings) -> bytes:
    """Return workspace.json; as in earlier versions, without what has its default."""
    stored = asdict(settings)
    for name, default in (("views", 0), ("labels", None), ("layout", "auto")):
        if stored[name] == default:
            del stored[name]
    return forms.json_bytes({"schema": SCHEMA, **stored})
