"""Heads that a person defines: what is understood, and how a slip is said."""

import pytest

from featurize.errors import VggftError
from heads import grid
from heads.specs import DenseSpec, LogisticSpec


def read(tmp_path, text, taken=()):
    path = tmp_path / "grid.toml"
    path.write_text(text, encoding="utf-8")
    return grid.read(path, taken)


def test_heads_and_combinations(tmp_path):
    text = """
        [wide]
        pooling = "max"
        units = [0, 512]
        learning_rate = [1e-3, 3e-4]
        l2 = 0.01
        standardise = false

        [base]
        kind = "logistic"
        pooling = ["avg", "flatten"]

        [deep]
        pooling = "avgmax"
        units = 64
        learning_rate = 1e-3
        dropout = 0.25
    """
    assert read(tmp_path, text) == [
        DenseSpec("wide-units0-learning_rate0.001", "max", 0, 1e-3, l2=0.01, standardise=False),
        DenseSpec("wide-units0-learning_rate0.0003", "max", 0, 3e-4, l2=0.01, standardise=False),
        DenseSpec("wide-units512-learning_rate0.001", "max", 512, 1e-3, l2=0.01, standardise=False),
        DenseSpec("wide-units512-learning_rate0.0003", "max", 512, 3e-4, l2=0.01, standardise=False),
        LogisticSpec("base-poolingavg", "avg"),
        LogisticSpec("base-poolingflatten", "flatten"),
        DenseSpec("deep", "avgmax", 64, 1e-3, dropout=0.25),
    ]


GOOD = 'pooling = "avg"\nunits = 8\nlearning_rate = 0.001\n'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (f"[a]\n{GOOD}droput = 0.5\n", 5, ["'droput'", "did you mean 'dropout'?"]),
        (f"# droput = 1\n[b]\n{GOOD}\n[a]\n{GOOD}\ndroput = 0.5\n", 12, ["'droput'", "'a'"]),
        (f'[a]\n{GOOD}"colour" = "red"\n', 5, ["'colour'", "expected kind, pooling, units"]),
        ('[a]\npooling = "mean"\nunits = 8\nlearning_rate = 1e-3\n', 2, ["pooling = 'mean'", '"avgmax"']),
        ('[a]\npooling = "avg"\nunits = [8, -1]\nlearning_rate = 1e-3\n', 3, ["units = -1", "0 (linear)"]),
        ('[a]\npooling = "avg"\nunits = true\nlearning_rate = 1e-3\n', 3, ["units = True"]),
        ('[a]\npooling = "avg"\nunits = []\nlearning_rate = 1e-3\n', 3, ["units = []"]),
        ('[a]\npooling = "avg"\nunits = 8\nlearning_rate = 0\n', 4, ["learning_rate = 0", "above 0"]),
        ('[a]\npooling = "avg"\nunits = 8\nlearning_rate = inf\n', 4, ["learning_rate = inf"]),
        (f"[a]\n{GOOD}dropout = 1.0\n", 5, ["dropout = 1.0"]),
        (f"[a]\n{GOOD}l2 = nan\n", 5, ["l2 = nan"]),
        (f'[a]\n{GOOD}l2 = "small"\n', 5, ["l2 = 'small'"]),
        (f'[a]\n{GOOD}kind = "tree"\n', 5, ["kind = 'tree'", '"logistic"']),
        (f"[a]\n{GOOD}standardise = 1\n", 5, ["standardise = 1"]),
        ('\n\n[a]\npooling = "avg"\nunits = 8\n', 3, ["has no 'learning_rate'"]),
        ('[a]\nkind = "logistic"\npooling = "avg"\nunits = 8\n', 4, ["'units'", "expected kind, pooling"]),
        ('[a]\npooling = "avg"\nunits = 0\nlearning_rate = 1e-3\ndropout = 0.5\n', 5, ["linear", "no dropout"]),
        ("epochs = 3\n", 1, ["'epochs' is not a table"]),
        (f'["a b"]\n{GOOD}', 1, ["'a b' is not a valid head name"]),
        (f'["../x"]\n{GOOD}', 1, ["is not a valid head name"]),
        (f"[taken]\n{GOOD}", 1, ["'taken' is already in use"]),
        (f"[a]\n{GOOD}[a-units8]\n{GOOD}[b]\n{GOOD}\n[a.x]\n", 14, ["'x'"]),
        ('x = {pooling = "avg", unitz = 8, learning_rate = 1e-3}\n', 1, ["'unitz'", "'units'"]),
        ('[a]\npooling = "avg\n', 2, ["not valid TOML"]),
        ("[a]\nunits = 8\nunits = 9\n", 3, ["not valid TOML"]),
        (f"[[a]]\n{GOOD}", 1, ["single brackets"]),
        (f'["leaderboard.csv"]\n{GOOD}', 1, ["no .csv"]),
        ('[a]\n# units = "x"\npooling = "avg"\nunits = "x"\nlearning_rate = 1e-3\n', 4, ["units = 'x'"]),
        (f"[a]\n{GOOD}l2 = {[0] * 99}\ndropout = {[0.1] * 99}\n", 1, ["defines 9801 heads"]),
        ("", None, ["0 heads"]),
    ],
)
def test_slips(tmp_path, text, line, words):
    with pytest.raises(VggftError) as caught:
        read(tmp_path, text, ["taken"])
    said = str(caught.value)
    assert "grid.toml" in said
    for word in words:
        assert word in said
    if line is not None:
        assert f"line {line}" in said


def test_of_a_family_the_linear_head_has_no_dropout(tmp_path):
    text = '\ufeff[a]\npooling = "avg"\nunits = [0, 8]\nlearning_rate = 0.001\ndropout = 0.5\n'  # and a mark of Windows
    assert [spec.dropout for spec in read(tmp_path, text)] == [0.0, 0.5]


def test_two_tables_that_make_one_name(tmp_path):
    with pytest.raises(VggftError, match="line 5: the name 'a-units8' is already in use"):
        read(tmp_path, f'[a]\npooling = "avg"\nunits = [8]\nlearning_rate = 1e-3\n[a-units8]\n{GOOD}')


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(VggftError, match="cannot read the file"):
        grid.read(tmp_path / "none.toml", [])
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(VggftError, match="cannot read the file"):
        grid.read(tmp_path / "binary.toml", [])
