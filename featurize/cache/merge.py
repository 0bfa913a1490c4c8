"""Merging caches of one fingerprint: shards of the others are linked, or copied to another disk, and indexed."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from featurize.cache import shards
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.shards import Damaged
from featurize.disk import transfer
from featurize.errors import VggftError, reason
from featurize.process import interrupts


@dataclass
class Merged:
    """What became of the shards of one cache.

    Attributes:
        added: number of shards that are new here.
        present: number of shards that were here before.
        damaged: shards that were left where they are → reason.
    """

    added: int = 0
    present: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)


def merge(cache: FeatureCache, folder: Path, progress: Callable[[int], None] = lambda count: None) -> Merged:
    """Add the shards of another cache; the caller holds the lock of `cache`, and saves its index.

    Args:
        cache: the cache that they are added to.
        folder: the other cache, of the same fingerprint.
        progress: called with the number of shards that are done.

    Raises:
        VggftError: a shard cannot be written here, such as on a full disk.
    """
    source, merged = folder / "shards", Merged()
    here = shards.present(cache.shards)
    cache.shards.mkdir(parents=True, exist_ok=True)
    cache.describe()
    for count, name in enumerate(shards.present(source), start=1):
        interrupts.check()
        if name in here:
            merged.present += 1
        else:
            try:
                shards.check(source, name)
                shards.open_known(source, name, cache.fingerprint, cache.architecture).close()
                _add(shards.path(source, name), shards.path(cache.shards, name), name)
                merged.added += 1
            except Damaged as error:
                merged.damaged[shards.path(source, name)] = str(error)
        progress(count)
    return merged


def _add(source: Path, target: Path, name: str) -> None:
    """Give a shard a second name in this cache; it never changes, so that a link is as good as a copy."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise Damaged("its place in the other cache is taken by something else") from None
    except OSError:  # another disk, or one without hard links
        try:
            transfer.copy(source, target, name)
        except transfer.ChangedError:
            raise Damaged("changed while it was copied") from None
        except OSError as error:
            raise VggftError(
                f"{source} cannot be copied to {target} ({reason(error)}). Free some space or fix the permissions."
            ) from None
