"""cache → heads and their leaderboard."""

from dataclasses import replace
from typing import Any

import numpy as np

from featurize.cache import FeatureCache
from featurize.dataset import Sample
from featurize.errors import VggftError
from featurize.layers import TOP
from heads import search, store
from heads.search import Features, Result
from heads.training import Plan
from vggft import methods
from vggft.console import Ui
from vggft.table import auc_text, interval_text
from vggft.workspace import Workspace

BATCH_SIZE = 32


def run(workspace: Workspace, epochs: int, seed: int, ui: Ui) -> dict[str, Any]:
    """Train every head on the training split, judge on all of the validation split, keep all, mark the best.

    Raises:
        VggftError: no features yet, or fewer than one epoch.
    """
    if epochs < 1:
        raise VggftError(f"--epochs {epochs}: expected 1 or more.")
    _ = workspace.settings  # before the lock makes a folder: is there anything here?
    with workspace.writing():
        return _train(workspace, epochs, seed, ui)


def _train(workspace: Workspace, epochs: int, seed: int, ui: Ui) -> dict[str, Any]:
    dataset = workspace.dataset
    cache = workspace.cache()
    train, validation = (_features(workspace, cache, dataset.accepted(split)) for split in ("train", "validate"))
    made = {
        **methods.provenance(workspace),
        "seed": seed,
        "epochs": epochs,
        "batch_size": BATCH_SIZE,
        **methods.versions(),
    }
    results: list[Result] = []
    specs = search.DEFAULT_SPECS
    with ui.progress("training heads", len(specs) * epochs, "epochs") as advance:
        plan = Plan(epochs, BATCH_SIZE, seed)

        def on_epoch(name: str, epoch: Any) -> None:
            advance(len(results) * epochs + epoch.epoch)

        for result in search.train_all(specs, dataset.classes, train, validation, plan, on_epoch):
            kept = replace(result, head=replace(result.head, provenance={**made, "remark": result.remark}))
            store.save(workspace.heads, kept)
            # A damaged head may be one that is about to be replaced: it is reported at the end, if it still is there.
            store.write_leaderboard(
                workspace.leaderboard, store.load_all(workspace.heads, on_damage=lambda error: None)
            )
            results.append(kept)
            advance(len(results) * epochs)
    store.load_all(workspace.heads, on_damage=lambda error: ui.warn(str(error)))
    ranked = search.best_first(results)
    _show(ranked, ui)
    ui.print(f"leaderboard: {workspace.leaderboard}")
    return {
        "heads": [r.as_json() for r in ranked],
        "best": ranked[0].head.name,
        "leaderboard": str(workspace.leaderboard),
    }


def _features(workspace: Workspace, cache: FeatureCache, samples: list[Sample]) -> Features:
    outputs = cache.read(TOP, [s.digest for s in samples])
    targets = np.asarray(workspace.dataset.targets(samples), np.int64)
    return Features(outputs, targets, [s.group for s in samples])


def _show(ranked: list[Result], ui: Ui) -> None:
    rows = []
    for i, result in enumerate(ranked):
        v = result.validation
        name = result.head.name + ("  ← best" if i == 0 else "")
        numbers = (f"{v.accuracy:.3f}", interval_text(v), f"{v.log_loss:.4f}", auc_text(v))
        rows.append((name, f"{result.head.parameters:,}", *numbers, f"{result.seconds:.1f}"))
    columns = ("head", "parameters", "accuracy", "95% interval", "log-loss", "AUC", "seconds")
    ui.table(f"Heads on {ranked[0].validation.n} validation images, lowest log-loss first", columns, rows)
    for result in ranked:
        if "not converged" in result.remark:
            ui.warn(f"{result.head.name}: {result.remark}")
