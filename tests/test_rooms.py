"How rooms are built: small cells, prose beside the code, short functions, nothing private across walls. What does not hold yet is listed, and the lists may only shrink"
import ast, json, re, statistics
from pathlib import Path
import pytest, tomllib

ROOT = Path(__file__).resolve().parents[1]
NBS = sorted((ROOT/"nbs").glob("[0-9][0-9]_*.ipynb"))
MODULES = sorted(p for p in (ROOT/"harmonica").glob("[a-z]*.py"))
KNOWN = json.loads((ROOT/"tests/rooms.json").read_text())      # what does not hold yet; `python tests/test_rooms.py` writes it anew, never longer

def cells(nb, kind): return ["".join(c["source"]) for c in json.loads(nb.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]

def exported(nb):
    "Lines of each exported cell, imports and blank lines left out"
    code = [[l for l in s.split("\n") if l.strip() and not l.startswith("#|")] for s in cells(nb, "code") if re.search(r"^#\|\s*export", s, re.M)]
    return [c for c in code if not all(l.startswith(("import ", "from ")) for l in c)]

def shape(nb):
    "Median and largest exported cell, words of prose per exported line"
    sizes = [len(c) for c in exported(nb)] or [0]
    words = sum(len(s.split()) for s in cells(nb, "markdown") if not s.startswith("[!["))
    return dict(median=statistics.median(sizes), largest=max(sizes), prose=round(words/max(1, sum(sizes)), 2))

def functions(path):
    "(name, parameters, lines of the body) of each function of a module; commands take what options they need"
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef): continue
        if any("command" == getattr(d, "id", None) for d in node.decorator_list): continue
        a, body = node.args, node.body[isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):]
        args = [x.arg for x in a.posonlyargs+a.args+a.kwonlyargs if x.arg not in ("self", "cls")]
        public = not node.name.startswith("_") or node.name == "__init__"
        yield f"{path.stem}.{node.name}:{node.lineno}", len(args)*public, body[-1].end_lineno-body[0].lineno+1 if body else 0

def private_imports(path):
    "Names with an underscore that a file takes from another"
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("harmonica")):
            out |= {f"{path.name}: {(node.module or '').split('.')[-1]}.{a.name}" for a in node.names if a.name.startswith("_") and not a.name.startswith("__")}
    return out

def name(key): return key.rsplit(":", 1)[0]
def too_many(limit, what):
    "Functions beyond a limit, as {name: value}; the largest, where several share a name"
    found = {}
    for p in MODULES:
        if p.name == "_modidx.py": continue
        for key,params,lines in functions(p):
            v = dict(params=params, lines=lines)[what]
            if v > limit: found[name(key)] = max(v, found.get(name(key), 0))
    return found

# -- checks

@pytest.mark.parametrize("nb", NBS, ids=lambda p: p.stem)
def test_cells_are_small_and_told(nb):
    "Median 15 lines, none over 40, three words of prose for a line of code"
    s, k = shape(nb), KNOWN["notebooks"].get(nb.stem, {})
    assert s["median"] <= max(15, k.get("median", 0)), "cells have grown: split them"
    assert s["largest"] <= max(40, k.get("largest", 0)), "a cell has grown: split it"
    assert s["prose"] >= min(3, k.get("prose", 3)), "too little is told: say why, and what to notice"

@pytest.mark.parametrize("what,limit", [("params", 9), ("lines", 40)])
def test_functions_are_short(what, limit):
    known = KNOWN[what]
    worse = {k: v for k,v in too_many(limit, what).items() if v > known.get(k, 0)}
    assert not worse, f"over {limit} {what}: {worse}"

def test_nothing_private_crosses_a_wall():
    found = set().union(*(private_imports(p) for p in [*MODULES, *(ROOT/"tests").glob("*.py")] if p.name != "_modidx.py"))
    assert not found - set(KNOWN["private"]), f"private names of other rooms: {sorted(found-set(KNOWN['private']))}"

def test_the_list_of_exceptions_holds_only_what_needs_one():
    "Whatever has become good leaves the list"
    shapes = {nb.stem: shape(nb) for nb in NBS}
    for n,k in KNOWN["notebooks"].items():
        s = shapes[n]
        assert s["median"] > 15 or s["largest"] > 40 or s["prose"] < 3, f"{n} needs no exception any more: python tests/test_rooms.py"
    for what,limit in (("params", 9), ("lines", 40)):
        assert set(KNOWN[what]) <= set(too_many(limit, what)), f"{set(KNOWN[what]) - set(too_many(limit, what))} need no exception any more: python tests/test_rooms.py"

def test_exceptions_of_the_linter_are_needed():
    "A file is exempt from a rule of style only while it breaks it"
    import subprocess, sys
    rules = tomllib.loads((ROOT/"pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
    def breaks(codes, *paths):
        how = ["--select", codes, "--config", "lint.per-file-ignores={}", "--output-format", "json"]
        r = subprocess.run([sys.executable, "-m", "ruff", "check", *how, *map(str, paths)], cwd=ROOT, capture_output=True, text=True)
        return {(Path(d["filename"]).relative_to(ROOT).as_posix(), d["code"]) for d in json.loads(r.stdout)}
    broken = breaks("E501,E702", "harmonica") | breaks("Q000", *NBS)
    exempt = {(f, c) for f,codes in rules.items() if f.startswith(("harmonica/", "nbs/")) and "*" not in f for c in codes if c in ("E501", "E702", "Q000")}
    assert not exempt - broken, f"no exception needed any more (pyproject.toml): {sorted(exempt-broken)}"

def test_the_map_knows_every_room():
    "CONTRIBUTING lists the numbered notebooks once each, in order, under what they are about"
    rows = re.findall(r"^\| (\d\d_\w+) \| \S", (ROOT/"CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    assert rows == [nb.stem for nb in NBS]

if __name__ == "__main__":
    new = dict(notebooks={nb.stem: s for nb in NBS if (s := shape(nb)) and (s["median"] > 15 or s["largest"] > 40 or s["prose"] < 3)},
        params=too_many(9, "params"), lines=too_many(40, "lines"),
        private=sorted(set().union(*(private_imports(p) for p in [*MODULES, *(ROOT/"tests").glob("*.py")] if p.name != "_modidx.py"))))
    (ROOT/"tests/rooms.json").write_text(json.dumps(new, indent=1)+"\n")
    print({k: len(v) for k,v in new.items()})
