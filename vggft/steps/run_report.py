"""The result of a fine-tuning run, for the terminal and for --json."""

from typing import Any

from featurize.wording import counted
from finetune import store
from finetune.store import Run
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def report(workspace: Workspace, run: Run, ui: Ui) -> dict[str, Any]:
    """Print the result of a run, and return it for --json."""
    result, plan = as_json(workspace, run), run.settings.plan
    v, s, trained = run.validation, run.start_validation, run.history[-1].epoch
    if run.diverged:
        lower = f"--lr {plan.learning_rate / 10:g}"
        ui.warn(
            f"{result['failed'][0]}: training stopped, and epoch {run.best_epoch} is kept. Try a tenth of the learning rate: "
            f"{lower}"
        )
    elif run.ended == "patience":
        ui.say(
            f"stopped after epoch {trained}: {counted(plan.patience, 'epoch')} without a lower validation log-loss (--patience)"
        )
    kept = "last" if plan.keep == "last" else "best"
    ui.print(
        f"{run.name}: {kept} epoch {run.best_epoch} of {trained}; on {v.n} validation images accuracy {v.accuracy:.3f} (head "
        f"{s.accuracy:.3f}), log-loss {v.log_loss:.4f} (head {s.log_loss:.4f})"
    )
    if run.best_epoch == 0 and plan.keep == "best":
        ui.print(f"no epoch was better than {run.start}: the network is that head on the pretrained backbone")
    ui.print(f"network: {result['network']}")
    return result


def as_json(workspace: Workspace, run: Run) -> dict[str, Any]:
    """Return what --json says of a finished run."""
    failed = []
    if run.diverged:
        failed = ["the loss or a weight became NaN or infinite at epoch {}, step {}".format(*run.diverged)]
    return {
        "name": run.name,
        "recipe": run.settings.recipe,
        "start": run.start,
        "unfreeze": run.settings.unfreeze,
        "split_point": run.split_point,
        "epochs": run.history[-1].epoch,
        "best_epoch": run.best_epoch,
        "ended": run.ended,
        "failed": failed,
        "parity": run.parity,
        "seconds": run.seconds,
        "network": str(workspace.finetune / run.name / store.NETWORK),
        "validation": run.validation.as_json(),
        "start_validation": run.start_validation.as_json(),
        "moved": list(run.moved),
    }
