"""Same results before and after, in one table: what a change that only moves code must not move.

python benchmarks/same.py HEAD~5            compare that commit with what lies here
python benchmarks/same.py HEAD~5 --resume   ... and run tests/test_resume.py in both

The packaged voice says three sentences, alone, side by side and in pieces, and the codec encodes a recording, with
fixed seeds on one thread: equal sums of their samples are equal sounds. Figures that benchmarks left in
benchmarks/*.json are counted and summed.
"""
import argparse, io, json, os, subprocess, sys, tarfile, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SENTENCES = ("Good morning.", "The year was 1999, and it rained.", "We went out at ten.")
ASK = f"""
import hashlib, json, torch
from harmonica import Clip, Voice, load_codec
from harmonica.codec import packaged_voice
torch.set_num_threads(1)
sha = lambda x: hashlib.sha256(x.tobytes()).hexdigest()[:16]
voice, codec, clip = Voice.load(), load_codec("micro"), Clip.load(packaged_voice()).to(24000)
found = {{f"says {{t!r}}": sha(voice.say(t, seed=0, watermark=False).samples) for t in {SENTENCES!r}}}
found["in pieces"] = sha(voice.say({SENTENCES[2]!r}, chunk=.3, watermark=False).samples)
found["side by side"] = " ".join(sha(c.samples) for c in voice.say_batch({SENTENCES!r}, watermark=False))
found["clones"] = sha(voice.like(packaged_voice()).say({SENTENCES[0]!r}, seed=0, watermark=False).samples)
codes = codec.encode(clip)
found.update({{"codes": sha(codes.numpy()), "decoded": sha(codec.decode(codes).samples)}})
print(json.dumps(found))
"""

def run(root, *args):
    return subprocess.run([sys.executable, *args], cwd=root, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})

def numbers(d, at=""):
    "Every number in nested JSON, by its path"
    if isinstance(d, dict): return {k: v for n,x in d.items() for k,v in numbers(x, f"{at}/{n}").items()}
    if isinstance(d, list): return {k: v for n,x in enumerate(d) for k,v in numbers(x, f"{at}/{n}").items()}
    return {at: d} if isinstance(d, (int, float)) else {}

def measure(root, resume=False):
    "What a checkout says and holds"
    r = run(root, "-c", ASK)
    if r.returncode: raise SystemExit(f"{root}: the voice does not speak: {r.stderr.strip().splitlines()[-1]}")
    out = json.loads(r.stdout.splitlines()[-1])
    for p in sorted((root/"benchmarks").glob("*.json")):
        n = numbers(json.loads(p.read_text()))
        out[f"stored figures of {p.name}"] = f"{len(n)}, sum {sum(n.values()):.6g}"
    if resume:
        out["stops and resumes"] = "no" if run(root, "-m", "pytest", "-q", "tests/test_resume.py").returncode else "yes"
    code = [p for p in (root/"harmonica").glob("*.py") if p.name != "_modidx.py"]
    lines = [l.strip() for p in code for l in p.read_text().splitlines()]
    out["modules"] = len(code)
    out["lines of package code"] = sum(bool(l) and not l.startswith("#") for l in lines)   # no blanks, no comments
    return out

def at_commit(ref, folder):
    "The files of a commit"
    r = subprocess.run(["git", "archive", ref], cwd=ROOT, capture_output=True)
    if r.returncode: raise SystemExit(f"{ref} is no commit here: {r.stderr.decode().strip()}")
    tarfile.open(fileobj=io.BytesIO(r.stdout)).extractall(folder, filter="data")
    return Path(folder)

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("before", help="a commit")
    ap.add_argument("--resume", action="store_true", help="also run tests/test_resume.py in both (minutes)")
    a = ap.parse_args(argv)
    with tempfile.TemporaryDirectory() as d:
        before, now = measure(at_commit(a.before, d), a.resume), measure(ROOT, a.resume)
    print(f"| | {a.before} | now | |\n|---|---|---|---|")
    for k in dict.fromkeys([*before, *now]):
        x, y = before.get(k, "–"), now.get(k, "–")
        print(f"| {k} | {x} | {y} | {'same' if x == y else ''} |")
    return int(any(before[k] != now.get(k) for k in before if k not in ("modules", "lines of package code")))

if __name__ == "__main__": sys.exit(main())
