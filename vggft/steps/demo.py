"""All four steps on the bundled drawings: featurize, head, finetune, compare."""

import time
from pathlib import Path
from typing import Any

from finetune import store
from vggft.prediction import models
from vggft.steps import compare, featurize, finetune, head
from vggft.steps.options import CompareOptions, FeaturizeOptions, FinetuneOptions, HeadOptions
from vggft.ui.console import Ui
from vggft.workspace import provenance
from vggft.workspace.workspace import Workspace

PICTURES = Path(__file__).resolve().parent.parent / "pictures"
HEAD_EPOCHS = 50
TUNE_EPOCHS = 3
RUN = "demo"


def run(workspace: Workspace, ui: Ui) -> dict[str, Any]:
    """Run the four commands on 132 public-domain drawings in four classes, and print where the results are."""
    began = time.perf_counter()

    def heading(text: str) -> None:
        ui.print("")
        ui.print(text)

    ui.print(f"$ vggft featurize {PICTURES}")
    featurized = featurize.run(workspace, FeaturizeOptions(PICTURES), ui)
    heading(f"$ vggft head --epochs {HEAD_EPOCHS}")
    heads = head.run(workspace, HeadOptions.of(epochs=HEAD_EPOCHS), ui)
    name, begun = _run_of(workspace)
    how = "--resume" if begun else f"--unfreeze {workspace.architecture.unfreeze} --epochs {TUNE_EPOCHS}"
    heading(f"$ vggft finetune {how} --name {name}")
    kept = ui.kept
    options = {"resume": True} if begun else {"epochs": TUNE_EPOCHS}
    tuned = finetune.run(workspace, FinetuneOptions.of(name=name, **options), ui)
    ui.keep(kept)
    heading("$ vggft compare")
    compared = compare.run(workspace, CompareOptions(), ui)
    seconds = time.perf_counter() - began
    heading(f"Done in {seconds:.0f} s. Results in {workspace.root}:")
    written = {
        "manifest": str(workspace.manifest),
        "cache": featurized["cache"],
        "leaderboard": heads["leaderboard"],
        "network": tuned["network"],
        "report": compared["report"],
        "page": compared["page"],
    }
    for what, path in written.items():
        ui.print(f"  {what:<12} {path}")
    ui.print("Next, your own images, in one folder for each class: vggft featurize DATA")
    return {
        "featurize": featurized,
        "head": heads,
        "finetune": tuned,
        "compare": compared,
        "seconds": seconds,
        "written": written,
    }


def _run_of(workspace: Workspace) -> tuple[str, bool]:
    """Return the name of the demo's run, and whether an earlier demo has begun or finished it on the present data."""
    if any(run.folder.name == RUN for run in store.unfinished(workspace.finetune)):
        return RUN, True
    present = provenance.current(workspace)
    runs = models.load_runs(workspace, on_damage=lambda error: None)
    if any(run.name == RUN and provenance.matches(present, run.settings.provenance) for run in runs):
        return RUN, True
    return store.free_name([workspace.finetune, workspace.heads], RUN), False
