"""`vggft cache verify --recompute N`: N random images computed again on this machine, and how far their features are."""

import random
from typing import Any

import numpy as np

from featurize import runner
from featurize.cache.recomputed import Recomputed
from featurize.errors import VggftError
from featurize.wording import counted
from vggft.ui.console import Ui
from vggft.workspace.backbone import decoder, start_engine
from vggft.workspace.filling import files_of
from vggft.workspace.workspace import Workspace


def recompute(workspace: Workspace, number: int, ui: Ui) -> dict[str, Any]:
    """Compute random images again from their files, and compare all layers that the workspace has; nothing is written.

    Raises:
        VggftError: no image has features, none of the files can be read, or there are no weights.
    """
    settings, cache = workspace.settings, workspace.cache()
    layers = list(settings.layers or [workspace.architecture.top])
    samples = workspace.dataset.accepted()
    absent = set(cache.missing(layers, [sample.digest for sample in samples]))
    files = files_of(workspace.dataset.root, [sample for sample in samples if sample.digest not in absent])
    chosen = random.sample(sorted(files), min(number, len(files)))
    engine = start_engine(
        workspace.architecture, settings.fingerprint, settings.weights_file_path, ui=ui, images=number
    )
    compared = Recomputed(cache)
    with ui.progress("computing again", len(chosen)) as advance:
        outcome = runner.run(
            {digest: files[digest] for digest in chosen},
            layers,
            decoder(settings.fingerprint),
            engine,
            compared,
            progress=advance,
        )
    for digest, reason in outcome.rejected.items():
        ui.warn(f"not computed again: {files[digest][0]}: {reason}")
    if not compared.errors:
        raise VggftError(f"--recompute {number}: no image could be computed again. Run vggft featurize first.")
    made = ", ".join(f"{engine_name} {rows}" for engine_name, rows in compared.engines.most_common())
    ui.print(
        f"{counted(outcome.computed, 'image')} computed again on {engine.name}; rows in the cache by engine: {made}. Relative "
        f"error, of which at most {compared.bound:g} is expected:"
    )
    rows = [
        (layer, f"{np.median(errors):.1e}", f"{max(errors):.1e}", str(sum(error > compared.bound for error in errors)))
        for layer, errors in compared.errors.items()
    ]
    ui.table("", ("layer", "median", "largest", "too far"), rows)
    for path in sorted(compared.far):
        ui.warn(f"{path}: its features are not those that this machine computes")
    if compared.far:
        ui.print("To compute these again here, delete the files that are named and run vggft featurize.")
    return {
        "images": outcome.computed,
        "engine": engine.name,
        "made_by": dict(compared.engines),
        "bound": compared.bound,
        "errors": {layer: {"median": float(np.median(e)), "largest": max(e)} for layer, e in compared.errors.items()},
        "far": [str(path) for path in sorted(compared.far)],
        "ok": not compared.far,
    }
