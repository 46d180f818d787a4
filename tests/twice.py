"""All notebooks, run twice from nothing: do they say the same again, and how long do they take?

`make notebooks-twice`, or `python tests/twice.py 10_text 26_sample`. Nothing in nbs/ is changed. A notebook that
says the same twice, but not what is stored in it, is named too. Ends with 1 where something differs or fails."""
import argparse, json, os, resource, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

def outputs(nb):
    "What each code cell of a notebook shows, by the cell's id"
    told = {}
    for c in json.loads(Path(nb).read_text(encoding="utf-8"))["cells"]:
        if c["cell_type"] != "code": continue
        told[c["id"]] = [{k: "".join(v) if isinstance(v, list) else v
            for k,v in {**o.get("data", {}), "text": o.get("text", "")}.items()} for o in c["outputs"]]
    return told

def differing(one, two):
    "Cells whose outputs differ, with the kinds of what differs"
    a, b = outputs(one), outputs(two)
    def kinds(x, y):
        return sorted({k for p,q in zip(x, y) for k in p.keys()
            | q.keys() if p.get(k) != q.get(k)}) or ["number of outputs"]
    return [f"{i} ({', '.join(kinds(a[i], b[i]))})" for i in a if a[i] != b[i]]

def copied(folder):
    "A tree in which only nbs/ is a copy"
    folder.mkdir(parents=True)
    shutil.copytree(ROOT/"nbs", folder/"nbs", ignore=shutil.ignore_patterns(".*", "_proc"))
    for p in ROOT.iterdir():
        if p.name in ("nbs", "_docs", "_proc") or p.name.startswith("."): continue
        if p.is_file(): shutil.copy(p, folder)      # nbdev looks for its settings where they really lie
        else: (folder/p.name).symlink_to(p)
    return folder

def run(tree, name):
    "Seconds that a notebook took, and what it complained of"
    began = time.monotonic()
    env = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    nbdev = Path(sys.executable).with_name("nbdev-test")
    made = subprocess.run([nbdev, "--save", "--n-workers", "0", f"nbs/{name}.ipynb"], cwd=tree, env=env,
        capture_output=True, text=True)
    return time.monotonic()-began, made.stderr[-2000:] if made.returncode else ""

def verdict(name, trees):
    "A line on one notebook, and whether it says the same again"
    (s, wrong), (again, wrong2) = (run(t, name) for t in trees)
    if wrong or wrong2: return f"{name:32} {s:6.1f} s {again:6.1f} s  fails: {wrong or wrong2}", False
    made = [t/f"nbs/{name}.ipynb" for t in trees]
    found, old = differing(*made), differing(ROOT/f"nbs/{name}.ipynb", made[1])
    stale = f"; not as stored: {', '.join(old)}" if old else ""
    told = f"differs: {', '.join(found)}" if found else "the same" + stale
    return f"{name:32} {s:6.1f} s {again:6.1f} s  {told}", not found

def twice(names, workers=2):
    "Run all twice and tell as it goes: is all well?"
    began, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as d:
        trees = [copied(Path(d)/str(i)) for i in (1, 2)]
        with ThreadPoolExecutor(workers) as pool:
            for line,fine in pool.map(lambda n: verdict(n, trees), names):
                print(line, flush=True)
                bad += not fine
    work = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])/120
    print(f"{len(names)} notebooks, {workers} at a time: {(time.monotonic()-began)/120:.1f} minutes a run by the "
        f"clock, {work:.1f} of one processor's work; {bad} differ or fail")
    return not bad

if __name__ == "__main__":
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("names", nargs="*", help="notebooks, such as 10_text or tutorials/serve_it (default: all)")
    ask.add_argument("--workers", type=int, default=2, help="how many side by side")
    given = ask.parse_args()
    all_of_them = sorted(str(p.relative_to(ROOT/"nbs").with_suffix(""))
        for p in (ROOT/"nbs").rglob("*.ipynb") if not any(q.startswith((".", "_")) for q in p.relative_to(ROOT).parts))
    if unknown := [n for n in given.names if n not in all_of_them]:
        sys.exit(f"no notebook {unknown[0]}: choose of {', '.join(all_of_them)}")
    sys.exit(not twice(given.names or all_of_them, given.workers))
