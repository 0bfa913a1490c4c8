"""The data sets that benchmarks draw: the same pictures each time, and no two alike."""

import pytest

from benchmarks import tuning_defaults


@pytest.mark.parametrize("name", tuning_defaults.MADE)
def test_a_set_is_the_same_each_time(name, tmp_path):
    classes, _ = tuning_defaults.MADE[name]
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.png"))}
        for folder in (tuning_defaults.made(tmp_path / part, name, 2 * len(classes)) for part in "ab")
    )
    assert first == second
    assert sorted({path.parent.name for path in first}) == sorted(classes)
    assert len(set(first.values())) == len(first) == 2 * len(classes)


def test_tables_show_means_and_ratios_to_the_head():
    rows = [
        {"set": "a", "setting": "the head", "log_loss": 0.5, "accuracy": 0.8, "seconds": 0.0},
        {"set": "a", "setting": "lr=1e-4", "log_loss": 0.3, "accuracy": 0.9, "seconds": 10.0},
        {"set": "a", "setting": "lr=1e-4", "log_loss": 0.2, "accuracy": 0.9, "seconds": 20.0},
    ]
    shown = tuning_defaults.table(rows).splitlines()
    assert "| lr=1e-4 | 0.250 | 0.500 | 15 |" in shown
    assert "| lr=1e-4 | 0.900 | 1.125 | 15 |" in shown


def test_settings_are_keyword_arguments():
    assert tuning_defaults.arguments("lr=1e-3 schedule=cosine epochs=6") == {
        "lr": 1e-3,
        "schedule": "cosine",
        "epochs": 6,
    }
