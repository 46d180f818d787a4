#!/usr/bin/env python3
"""Measures the measuring.

    eval.py detectors FOLDER ... [--most 300] [--asr WHISPER]
        rates of the failure detectors -> benchmarks/detectors.json
    eval.py speed [FOLDER] [--clips 60] [--workers 2] [--without distillmos]
        what judging a clip costs, part by part and as a whole, and the memory it takes

FOLDER holds a manifest.jsonl with a row a clip: audio, text, split (train or valid), source. Without one, `speed`
judges the packaged voice.
"""
import argparse, json, resource, sys, tempfile, time
from pathlib import Path
import numpy as np, torch
from tqdm import tqdm
from harmonica import detectors as D
from harmonica.codec import Clip, packaged_voice

HERE = Path(__file__).parent
REPEATS = ("It was very, very, very good.", "No, no, no, no, that is not what I meant.",
    "One two three, one two three, one two three.", "Ha, ha, ha, ha!", "Again and again and again he rang the bell.",
    "Tick tock, tick tock, tick tock, went the clock.", "Blah, blah, blah, they said.",
    "Row, row, row your boat, gently down the stream.", "She said knock, knock, knock, and nobody came.",
    "Never, never, never give up.")

def rows(folders, split=None, most=None, seed=0):
    "Rows of manifests, at most so many of each source and split, drawn at random"
    rng, by = np.random.default_rng(seed), {}
    for f in folders:
        for l in open(f"{f}/manifest.jsonl", encoding="utf-8"):
            r = json.loads(l)
            by.setdefault((r["split"], r.get("source") or "synthetic"),
                []).append(dict(r, path=f"{f}/{r['audio']}", source=r.get("source") or "synthetic", text=r.get("text")
                or None))
    return [r[i] for (s,_),r in sorted(by.items()) if split in (None, s) for i in rng.permutation(len(r))[:most]]

def rate(cases, kind):
    "Share of cases for which a detector rings, and their number"
    v = [f for f in (D.judge(s, t, c).get(kind) for t,s,c in cases) if f is not None]
    return dict(rate=round(float(np.mean(v)), 5), n=len(v)) if v else None

def curve(neg, pos, sign, points=60):
    "False alarms and detections for every limit, thinned"
    neg, pos = sign*np.array(neg), sign*np.array(pos)
    cuts = np.unique(np.r_[np.quantile(neg, np.linspace(.85, 1, points)), np.quantile(neg, (0, .5))])[::-1]
    return [[round(float((neg > c).mean()), 4), round(float((pos > c).mean()), 4)] for c in cuts]

def measure(r): return D.symptoms(Clip.load(r["path"]), r["text"])

def detectors(folders, most=300, broken_most=30, asr=None, out=HERE/"detectors.json", seed=0):
    "False alarms on healthy and on unusual speech, detections at each dose"
    healthy, unusual, broken = {"train": [], "valid": []}, {}, {}
    sources = {}
    for split in healthy:
        for r in tqdm(rows(folders, split, most, seed), desc=split):
            healthy[split].append((r["text"], measure(r), None))
            sources.setdefault(r["source"], []).append(healthy[split][-1])
    for i,r in enumerate(tqdm(rows(folders, "train", broken_most, seed+1), desc="broken")):
        c = Clip.load(r["path"])
        for k in D.NATURAL:   # a text is read out at its usual length only where the length was left alone
            t = None if k in ("vowel", "singing") else r["text"]
            unusual.setdefault(k, []).append((t, D.symptoms(D.natural(c, k, i), t), None))
        for k,doses in D.DOSES.items():
            if k == "gibberish": continue
            for d in doses:
                b = D.spoil(c, k, *(d[::-1] if k == "looping" else (d,)), seed=i)
                broken.setdefault(k, {}).setdefault(json.dumps(d), []).append((r["text"], D.symptoms(b, r["text"]),
                    None))
    from hibari import Hibari
    speak = Hibari()
    for i,t in enumerate(REPEATS):
        for seed_ in range(3):
            c = Clip(np.asarray(speak(t, seed=seed_), np.float32), round(24000*(.88, 1., 1.13)[seed_])).to(24000)
            unusual.setdefault("repeated words", []).append((t, D.symptoms(c, t), None))
    field = dict(silence=("silence", 1), muted=("silent_share", 1), clipping=("clipping", 1), looping=("looping", 1),
        noise=("noise", -1), cut_short=("pace", -1), endless=("pace", 1))
    R = dict(schema="harmonica-detectors", version=1, limits=D.LIMITS,
        clips={**{s: len(v) for s,v in healthy.items()}, "broken": len(unusual["whisper"])}, false_alarms={},
        unusual={}, detected={}, roc={}, roc_dose={})
    for k in D.KINDS:
        R["false_alarms"][k] = {**{s: rate(v, k) for s,v in healthy.items()}, "all": rate(sum(healthy.values(), []), k),
            **{s: q for s,v in sorted(sources.items()) if (q := rate(v, k))}}
        R["unusual"][k] = {n: q for n,v in unusual.items() if (q := rate(v, k))}
    R["any"] = {s: round(float(np.mean([any(D.judge(x, t).values()) for t,x,_ in v])), 5) for s,v in healthy.items()}
    for k,doses in broken.items():
        if k in ("cut_short", "endless"):
            blind, doses = {d: [(None, {n: x for n,x in s.items() if n != "pace"}, None) for _,s,_ in v]
                for d,v in doses.items()}, {d: [c for c in v if c[0]] for d,v in doses.items()}
        R["detected"][k] = [dict(dose=json.loads(d), **rate(v, "silence" if k == "muted" else k))
            for d,v in doses.items()]
        if k == "cut_short":
            R["cut_short_without_text"] = dict(false_alarms=rate(
                [(None, {n: x for n,x in s.items() if n != "pace"}, None) for v in healthy.values() for _,s,_ in v], k),
                detected=[dict(dose=json.loads(d), **rate(v, k)) for d,v in blind.items()])
        R["roc_dose"][k] = D.PROMISED[k]
        name, sign = field[k]
        get = lambda v: [s[name] for _,s,_ in v if name in s]
        R["roc"][k] = curve(get(sum(healthy.values(), [])), get(doses[json.dumps(D.PROMISED[k])]), sign)
    if asr: gibberish(R, folders, asr, seed=seed)
    elif Path(out).is_file():   # what a recogniser said is kept from the last time
        old = json.loads(Path(out).read_text())
        R["recogniser"] = old.get("recogniser")
        for part in ("false_alarms", "detected", "roc", "roc_dose"):
            if "gibberish" in old[part]: R[part]["gibberish"] = old[part]["gibberish"]
    return save(R, out)

def save(R, out):
    Path(out).write_text(json.dumps(R, indent=0).replace("\n", " ").replace('}, "', '},\n"') + "\n")
    return R

def gibberish(R, folders, asr, healthy=25, broken=4, seed=0):
    "The same for the detector that needs a recogniser"
    from harmonica.judges import Ear
    ear = Ear(asr)
    hear = lambda c, t: D.words(t, ear(c))["cer"]
    spoken = lambda split, n, s: [r for r in rows(folders, split, n, s) if r["text"]]
    cers = {None: [hear(Clip.load(r["path"]), r["text"])
        for r in tqdm(spoken("valid", healthy, seed), desc="healthy, heard")]}
    for i,r in enumerate(tqdm(spoken("train", broken, seed+1), desc="babble, heard")):
        for d in D.DOSES["gibberish"]:
            cers.setdefault(d, []).append(hear(D.spoil(Clip.load(r["path"]), "gibberish", d, seed=i), r["text"]))
    share = lambda v: dict(rate=round(float(np.mean([c > D.LIMITS["gibberish"] for c in v])), 5), n=len(v))
    R["false_alarms"]["gibberish"] = dict(valid=share(cers[None]), all=share(cers[None]))
    R["detected"]["gibberish"] = [dict(dose=d, **share(v)) for d,v in cers.items() if d]
    R["roc"]["gibberish"] = curve(cers[None], cers[D.PROMISED["gibberish"]], 1)
    R["roc_dose"]["gibberish"] = D.PROMISED["gibberish"]
    R["recogniser"] = "whisper-" + Path(str(asr)).name.removeprefix("whisper-")
    print("gibberish: largest error of healthy clips", max(cers[None]))

def table(R):
    "The figures as text"
    out = [f"{'failure':10}{'false alarms: train':>20}{'valid':>8}{'all':>8}   detected at each dose (* from here on "
        f"95 of 100 are promised)"]
    for k,doses in R["detected"].items():
        fa = R["false_alarms"].get("silence" if k == "muted" else k, {})
        pc = lambda s: f"{100*fa[s]['rate']:.2f}%" if fa.get(s) else "–"
        name = lambda d: "x".join(map(str, d[::-1])) + " s" if isinstance(d, list) else str(d)
        stated = D.PROMISED[k]
        stated = list(stated) if isinstance(stated, tuple) else stated
        out.append(f"{k:10}{pc('train'):>20}{pc('valid'):>8}{pc('all'):>8}   "
            + ", ".join(f"{name(d['dose'])}{'*' if d['dose'] == stated else ''}: {100*d['rate']:.0f}%" for d in doses))
    return "\n".join(out)

def speed(folders=(), n=60, workers=2, seconds=5., leave=()):
    "What judging costs, without a recogniser"
    from harmonica.eval import evaluate
    from harmonica.judges import Judges
    found = [r for r in rows(folders) if r["text"]
        and r["seconds"] >= seconds] if folders else [dict(path=str(packaged_voice()),
        text=json.loads(packaged_voice().with_suffix(".json").read_text())["text"])]
    usage = lambda: sum(resource.getrusage(w).ru_utime + resource.getrusage(w).ru_stime
        for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = lambda: max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))/1024
    with tempfile.TemporaryDirectory() as d:
        made = []
        for i in range(n):
            c = Clip.load(found[i % len(found)]["path"])
            p = Clip(np.resize(c.samples, int(seconds*c.rate)), c.rate).save(f"{d}/{i}.wav")
            made.append(dict(id=str(i), wav=str(p), text=found[i % len(found)]["text"],
                prompt=made[0]["wav"] if made else str(p)))
        J = Judges()
        clips = [Clip.load(r["wav"]) for r in made[:8]]
        total = 0.
        print(f"{seconds:g} s clips, one thread; processor milliseconds a clip:")
        parts = dict(load=lambda i: Clip.load(made[i]["wav"]), failures=lambda i: D.symptoms(clips[i], made[i]["text"]),
            **{k: (lambda i, k=k: J(k)(clips[i], clips[i]) if k in ("pesq", "stoi") else J(k)(clips[i]))
            for k in J.names})
        for k,f in parts.items():
            f(0)
            t = time.process_time()
            [f(i) for i in range(len(clips))]
            ms = 1000*(time.process_time() - t)/len(clips)
            total += ms*(k not in ("pesq", "stoi"))
            print(f"  {k:10} {ms:7.1f}" + ("   (only where there is an original)" if k in ("pesq", "stoi") else ""),
                flush=True)
        scores = [k for k in J.names if k not in ("pesq", "stoi", *leave)]
        took = {}
        print("judges:", *scores)
        for m in (n//3, n):
            t, c = time.perf_counter(), usage()
            evaluate(made[:m], judges=Judges(scores, workers=workers), progress=sys.stderr.isatty(), n_boot=100)
            took[m] = (time.perf_counter() - t, usage() - c)
            print(f"{m} clips by {workers} processes: {took[m][0]:.1f} s, {took[m][1]:.1f} processor seconds, largest "
                f"process {peak():.0f} MB", flush=True)
        each, cost = ((took[n][i] - took[n//3][i])/(n - n//3) for i in (0, 1))
        start = took[n][1] - n*cost
        print(f"1000 clips: {each*1000 + took[n][0] - n*each:.0f} s on this machine as busy as it is; "
            f"{(1000*cost + start)/workers:.0f} s on {workers} idle cores ({1000*cost:.0f} processor ms a clip, "
                f"{start:.0f} s to start)")

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=("detectors", "speed"))
    ap.add_argument("folders", nargs="*")
    ap.add_argument("--most", type=int, default=300)
    ap.add_argument("--broken", type=int, default=30)
    ap.add_argument("--asr")
    ap.add_argument("--without", default="", help="for speed: judges to leave out of the whole, such as distillmos")
    ap.add_argument("--clips", type=int, default=60)
    ap.add_argument("--workers", type=int, default=2)
    ap.add_argument("--out", default=str(HERE/"detectors.json"))
    ap.add_argument("--seconds", type=float, default=5.)
    a = ap.parse_args(argv)
    torch.set_num_threads(1)
    if a.what == "detectors":
        if not a.folders: ap.error("give folders with a manifest.jsonl")
        R = detectors(a.folders, a.most, a.broken, a.asr, a.out)
        print(table(R))
        print("any of the six:", R["any"])
        print("unusual speech:")
        [print(f"  {k:10}", {n: f"{100*v['rate']:.0f}%" for n,v in u.items()}) for k,u in R["unusual"].items()]
        print("by source:")
        [print(f"  {k:10}", {n: f"{100*v['rate']:.1f}%" for n,v in u.items() if v})
            for k,u in R["false_alarms"].items()]
    else: speed(a.folders, a.clips, a.workers, a.seconds, a.without.split(","))

if __name__ == "__main__": main()
