"""All notebooks, run twice from nothing: do they say the same again, and how long do they take?

`make notebooks-twice`, or `python tests/twice.py 10_text 26_sample`. Nothing in nbs/ is changed.
Ends with 1 where something differs or fails."""
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

def twice(names, workers=2):
    "Lines of a report, and whether all is well"
    with tempfile.TemporaryDirectory() as d:
        trees, minutes, results = [copied(Path(d)/str(i)) for i in (1, 2)], [], {n: [] for n in names}
        for tree in trees:
            began = time.monotonic()
            with ThreadPoolExecutor(workers) as pool:
                for n,r in zip(names, pool.map(lambda n: run(tree, n), names)): results[n].append(r)
            minutes.append((time.monotonic()-began)/60)
        work = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])/120
        lines, bad = [], 0
        for n,((s,wrong),(again,wrong2)) in results.items():
            found = [wrong or wrong2] if wrong or wrong2 else differing(*(t/f"nbs/{n}.ipynb" for t in trees))
            bad += bool(found)
            lines.append(f"{n:32} {s:6.1f} s {again:6.1f} s  {'differs: ' + ', '.join(found) if found else 'the same'}")
    lines.append(f"{len(names)} notebooks, {workers} at a time: {minutes[0]:.1f} and {minutes[1]:.1f} minutes by the "
        f"clock, {work:.1f} a run of one processor's work; {bad} differ or fail")
    return lines, not bad

if __name__ == "__main__":
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("names", nargs="*", help="notebooks, such as 10_text or tutorials/serve_it (default: all)")
    ask.add_argument("--workers", type=int, default=2, help="how many side by side")
    given = ask.parse_args()
    all_of_them = sorted(str(p.relative_to(ROOT/"nbs").with_suffix(""))
        for p in (ROOT/"nbs").rglob("*.ipynb") if not any(q.startswith((".", "_")) for q in p.relative_to(ROOT).parts))
    if unknown := [n for n in given.names if n not in all_of_them]:
        sys.exit(f"no notebook {unknown[0]}: choose of {', '.join(all_of_them)}")
    report, fine = twice(given.names or all_of_them, given.workers)
    print("\n".join(report))
    sys.exit(not fine)
