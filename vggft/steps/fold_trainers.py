"""Training in the folds of nested cross-validation: by the steps that train in a workspace."""

from collections.abc import Sequence

from finetune import store
from finetune.store import Run
from heads.plan import Plan
from heads.specs import Spec
from vggft.comparison.nested import Ranking
from vggft.steps import finetune, head
from vggft.steps.options import FinetuneOptions, HeadOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


class StepTrainers:
    """The trainers of `vggft.comparison.nested`."""

    def train_heads(self, fold: Workspace, plan: Plan, specs: Sequence[Spec], ranking: Ranking, ui: Ui) -> None:
        """Train heads; those that are there already stay."""
        head.train(
            fold, HeadOptions(plan=plan, seeds=ranking.seeds or 1, cv=ranking.folds), specs, ui, fewer_folds=True
        )

    def tune(self, fold: Workspace, run: Run, ui: Ui) -> None:
        """Repeat a run; one that is finished stays, one that was interrupted is resumed."""
        if (fold.finetune / run.name / store.RUN).exists():
            return
        if any(unfinished.folder.name == run.name for unfinished in store.unfinished(fold.finetune)):
            finetune.run(fold, FinetuneOptions(name=run.name, resume=True), ui)
            return
        settings = run.settings
        options = FinetuneOptions(
            unfreeze=settings.unfreeze,
            start=settings.start,
            name=run.name,
            plan=settings.plan,
            precision=settings.plan.precision,
            memory=settings.memory,
            views=settings.plan.views,
            recipe=settings.recipe,
        )
        finetune.run(fold, options, ui)
