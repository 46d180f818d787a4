"How rooms are built: small cells, prose beside the code, short functions, nothing private across walls"
import ast, json, re, statistics
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
NBS = sorted((ROOT/"nbs").glob("[0-9][0-9]_*.ipynb"))
MODULES = sorted((ROOT/"harmonica").glob("[a-z]*.py"))

def cells(nb, kind):
    return ["".join(c["source"]) for c in json.loads(nb.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]

def exported(nb):
    "Lines of each exported cell, imports and blank lines left out"
    code = [[l for l in s.split("\n") if l.strip() and not l.startswith("#|")]
        for s in cells(nb, "code") if re.search(r"^#\|\s*export", s, re.M)]
    return [c for c in code if not all(l.startswith(("import ", "from ")) for l in c)]

def shape(nb):
    "Median and largest exported cell, words of prose per exported line"
    sizes = [len(c) for c in exported(nb)] or [0]
    words = sum(len(s.split()) for s in cells(nb, "markdown") if not s.startswith("[!["))
    return dict(median=statistics.median(sizes), largest=max(sizes), prose=round(words/max(1, sum(sizes)), 2))

def longest_run(nb):
    "The most exported cells in a row between which nothing is shown, tried or refused"
    longest = run = 0
    for c in json.loads(nb.read_text(encoding="utf-8"))["cells"]:
        s = "".join(c["source"])
        if c["cell_type"] != "code": continue
        code = [l for l in s.split("\n") if l.strip() and not l.startswith("#|")]
        if re.search(r"^#\|\s*export", s, re.M): run += not all(l.startswith(("import ", "from ")) for l in code)
        elif c.get("outputs") or re.search(r"\b(assert|expect_fail|test_\w+)\b", s): run = 0
        longest = max(longest, run)
    return longest

def functions(path):
    "(name, parameters, lines of the body) of each function of a module; commands take what options they need"
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef): continue
        if any("command" == getattr(d, "id", None) for d in node.decorator_list): continue
        a, body = node.args, node.body[isinstance(node.body[0], ast.Expr)
            and isinstance(node.body[0].value, ast.Constant):]
        args = [x.arg for x in a.posonlyargs+a.args+a.kwonlyargs if x.arg not in ("self", "cls")]
        public = not node.name.startswith("_") or node.name == "__init__"
        yield f"{path.stem}.{node.name}:{node.lineno}", len(args)*public, body[-1].end_lineno-body[
            0].lineno+1 if body else 0

def private_imports(path):
    "Names with an underscore that a file takes from another; nbdev's index of names is made for others"
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("harmonica")):
            out |= {f"{path.name}: {(node.module or '').split('.')[-1]}.{a.name}"
                for a in node.names if a.name.startswith("_") and not a.name.startswith("__") and a.name != "_modidx"}
    return out

# -- checks

@pytest.mark.parametrize("nb", NBS, ids=lambda p: p.stem)
def test_cells_are_small_and_told(nb):
    "Median 15 lines, none over 40, three words of prose for a line of code"
    s = shape(nb)
    assert s["median"] <= 15, f"the median exported cell has {s['median']} lines: split some"
    assert s["largest"] <= 40, f"a cell has {s['largest']} lines: split it"
    assert s["prose"] >= 3, f"{s['prose']} words for a line of code, want 3: say why, and what to notice"

@pytest.mark.parametrize("nb", NBS, ids=lambda p: p.stem)
def test_something_is_shown_after_every_idea(nb):
    "No four exported cells in a row"
    n = longest_run(nb)
    assert n <= 3, f"{n} exported cells in a row: put something to hear, see or try between them"

def test_functions_are_short():
    "At most nine parameters, bodies of at most 40 lines"
    worse = [f for p in MODULES for f in functions(p) if f[1] > 9 or f[2] > 40]
    assert not worse, f"(function, parameters, lines): {worse}"

def test_nothing_private_crosses_a_wall():
    found = set().union(*map(private_imports, [*MODULES, *(ROOT/"tests").glob("*.py")]))
    assert not found, f"private names of other rooms: {sorted(found)}"

def test_rooms_import_each_other_relatively():
    "An import over several lines would stay as the notebook has it"
    for p in MODULES:
        if p.name == "_modidx.py": continue
        found = re.findall(r"^(?:from|import) harmonica\..*", p.read_text(), re.M)
        assert not found, f"{p.name}: {found[0]}: write two imports of one line each"

def test_the_map_knows_every_room():
    "CONTRIBUTING lists the numbered notebooks once each, in order, under what they are about"
    rows = re.findall(r"^\| (\d\d_\w+) \| \S", (ROOT/"CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    assert rows == [nb.stem for nb in NBS]
