"""The comparison in the terminal."""

from featurize.wording import counted
from vggft.comparison.report import sentences, tables
from vggft.comparison.report.record import Record
from vggft.ui.console import Ui


def show(record: Record, ui: Ui) -> None:
    """Print the recommendation, the first pair, tables and what to do next."""
    comparison = record.comparison
    ui.sentence(sentences.recommendation(comparison))
    ui.print("")
    if comparison.difference:
        ui.sentence(sentences.first_pair(comparison.difference, comparison.no_p_value))
        ui.print("")
    rows = tables.most_important(record)
    _table(tables.quality(record, rows), ui)
    if len(rows) < len(comparison.rows):
        ui.print(f"{counted(len(comparison.rows) - len(rows), 'other model')}: compare.csv")
    for note in sentences.notes(record.comparison, record.ranked_by):
        ui.sentence(note)
    by_class = tables.by_class(comparison)
    for table in (tables.costs(record), tables.perturbations(record), by_class):
        _table(table, ui)
    if by_class is None:
        ui.say(
            f"{len(comparison.predictions.classes)} classes: compare.json has precision, recall, F1 and confusions of each"
        )
    mistakes = tables.mistakes(comparison)
    _table(mistakes, ui)
    if mistakes is None:
        ui.print(f"{comparison.used_row.name} classifies all of these images correctly.")
    for advice in record.advice:
        ui.print(sentences.advise(advice))
    if record.stale:
        ui.warn(f"stale, not compared (made from an earlier state of the data): {', '.join(record.stale)}")


def _table(table: tables.Table | None, ui: Ui) -> None:
    if table is not None:
        ui.table(table.title, table.columns, table.rows)
