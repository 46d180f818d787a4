"Readings by category, as a person would read them; each may be read in more than one way"
import re
from pathlib import Path
import pytest
from harmonica.text import normalize

def readings():
    "(category, written, readings)"
    kind, out = None, []
    for line in (Path(__file__).parent/"readings.txt").read_text(encoding="utf8").splitlines():
        if re.fullmatch(r"\[\w+\]", line): kind = line[1:-1]
        elif kind and line.strip():
            written, *said = line.split(" | ")
            out.append((kind, written, said))
    return out

def heard(said):
    "What is left when case, marks, hyphens, the spaces between letters and an `and` do not count"
    return re.sub(r"\band\b|[^a-z]", "", said.lower())

CASES = readings()

def right(written, said):
    try: return heard(normalize(written)) in map(heard, said)
    except ValueError: return False

@pytest.mark.parametrize("kind", sorted({k for k,*_ in CASES}))
def test_a_category(kind):
    wrong = [(w, normalize(w), said[0]) for k,w,said in CASES if k == kind and not right(w, said)]
    assert not wrong

def test_there_are_enough(): assert len({k for k,*_ in CASES}) >= 20 and len(CASES) >= 280
