"""The deliberate breakages of tests/mutations.py fit the code of today."""

import pytest
from mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.file}: {mutation.new.strip()}")
def test_a_breakage_has_one_place(mutation):
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    assert (ROOT / "tests" / mutation.test).is_file()
