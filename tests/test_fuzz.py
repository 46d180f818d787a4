"Broken files of every kind end in a result or in one plain line; at length: `benchmarks/fuzz.py --count 5000`"
import sys
from pathlib import Path
import pytest
sys.path.insert(0, str(Path(__file__).parents[1]/"benchmarks"))
import fuzz


@pytest.mark.parametrize("kind", ["manifest", "config", "checkpoint", "model", "cache", "archive", "audio", "testset",
    "lexicon", "report", "codes", "text"])
def test_nothing_escapes(kind):
    n = fuzz.run(60, [kind], seed=1, say=lambda *a, **k: None)[kind]
    assert n["read"]+n["refused"] > 50 and (n["refused"] > 20 or kind in ("audio", "lexicon", "text")) and not [k
        for k in n if k.startswith("escaped")], n
