#!/usr/bin/env python3
"""What stands behind SECURITY.md, measured. Each kind prints a table and writes KIND.json into the folder --out.

    trust.py watermark  SPEECH [--real REAL]   made speech, marked here: found after compression, noise and cutting? Real clips taken for made ones,
                                               and what the mark costs in quality and likeness (SPEECH rows with prompt; wants harmonica-tts[eval])
    trust.py soak       [--n 2000]             sentences through one Voice: memory and pace from the first to the last
    trust.py threads    [--n 8]                threads that share one fresh Voice, a fork after use, and spawn: the same sound as alone
    trust.py kills      [--n 50]               SIGKILL at random moments of synthesis: nothing half-written has a final name
    trust.py licences                          the licence of every package that the installed extras bring; exit code 1 where one is GPL

SPEECH and REAL are .jsonl files with wav (or audio) in each row, or folders of sound files.
"""
import argparse, hashlib, json, os, random, resource, signal, subprocess, sys, tempfile, threading, time
from importlib.metadata import distributions
from pathlib import Path
import numpy as np

SENTENCES = ("He had slept badly, and it was raining.", "Yes.", "The train leaves at 10:45 from platform 9.", "Who was that?",
    "Nine small boats came back before the storm reached the bay.", "She put down her book, and listened.")

def clips(path, limit):
    "Sounds of a .jsonl or a folder, evenly thinned"
    from harmonica.eval import read_rows
    p = Path(path)
    rows = [dict(wav=str(f)) for f in sorted(p.rglob("*")) if f.suffix in (".wav", ".flac", ".ogg", ".opus", ".mp3")] if p.is_dir() else read_rows(str(p))
    return rows[::max(1, len(rows)//limit)][:limit]

def at_rate(clip, kind, kbps):
    "A clip through a lossy format at about so many kbit/s, by bisection of libsndfile's one dial; the clip, and the rate it came to"
    import io, soundfile as sf
    from harmonica import Clip
    x, low, high = clip.samples.clip(-1, 1), 0., 1.
    for _ in range(7):
        level, out = (low+high)/2, io.BytesIO()
        how = dict(bitrate_mode="CONSTANT") if kind == "MP3" else dict(subtype="OPUS")
        with sf.SoundFile(out, "w", clip.rate, 1, format="MP3" if kind == "MP3" else "OGG", compression_level=level, **how) as f: f.write(x)
        got = len(out.getvalue())*8/clip.seconds/1000
        low, high = (level, high) if got > kbps else (low, level)            # more compression, fewer bits
    return Clip.load(out.getvalue()), got

def watermark(a):
    "Share of marked speech found after each treatment, of real speech taken for made; quality before and after"
    from harmonica import Clip
    from harmonica.eval import SCORES
    from harmonica.watermark import Watermark
    import importlib.util
    mark, rng = Watermark(), np.random.default_rng(0)
    found, rates, took, length = {}, {}, 0., 0.
    def note(name, clip): found.setdefault(name, []).append(float(mark.heard(clip).max()))
    rows = clips(a.speech, a.limit)
    judges = {k: SCORES[k][1]() for k in ("distillmos", "ge2e", "dvec") if importlib.util.find_spec(SCORES[k][0])}
    change = {}
    for r in rows:
        clip = Clip.load(r["wav"]).to(24000)
        begun = time.process_time(); m = mark.mark(clip); took += time.process_time()-begun; length += clip.seconds
        noise = rng.normal(size=len(m)).astype(np.float32)*m.samples.std()/10
        note("not marked", clip); note("marked", m); note("16 kHz", m.to(16000)); note("20 dB noise", Clip(m.samples+noise, m.rate))
        for kind,kbps in (("MP3", 64), ("Opus", 24)):
            worn, got = at_rate(m, kind, kbps); note(f"{kind} {kbps} kbit/s", worn); rates.setdefault(kind, []).append(got)
        note("cut to 2 s", m.cut(max(0., m.seconds/2-1), min(2., m.seconds)))
        pieces = [m for at in np.arange(0, clip.seconds-.05, .4) for m in [clip.cut(at, min(.4, clip.seconds-at))]]
        note("marked in pieces of .4 s", Clip.join(mark.stream(pieces)))
        for k,j in judges.items():
            if k == "distillmos": change.setdefault(k, []).append(j(m)-j(clip))
            elif r.get("prompt"): p = j(Clip.load(r["prompt"])); change.setdefault(k, []).append(float(np.dot(j(m), p)-np.dot(j(clip), p)))
    table = {k: dict(found=round(np.mean([x >= .5 for x in v]), 4), lowest=round(min(v), 3), highest=round(max(v), 3), clips=len(v)) for k,v in found.items()}
    if a.real:
        real = [float(mark.heard(Clip.load(r["wav"])).max()) for r in clips(a.real, a.real_limit)]
        table["real speech"] = dict(found=round(np.mean([x >= .5 for x in real]), 4), lowest=round(min(real), 3), highest=round(max(real), 3), clips=len(real))
    table.update({f"change of {k}": dict(mean=round(float(np.mean(v)), 4), worst=round(float(min(v)), 4), clips=len(v)) for k,v in change.items()})
    table["kbit/s reached"] = {k: round(float(np.mean(v)), 1) for k,v in rates.items()}
    table["CPU seconds a second of speech"] = dict(marking=round(took/length, 4))
    return table

def memory(): return int(Path("/proc/self/statm").read_text().split()[1])*resource.getpagesize()/1e6 if Path("/proc/self/statm").exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3

def soak(a):
    "Memory (MB) and CPU time a sentence, by hundreds"
    from harmonica import Voice
    voice, table = Voice.load(), {}
    begun = time.process_time()
    for i in range(1, a.n+1):
        voice.say(SENTENCES[i % len(SENTENCES)], seed=i)
        if i % 100 == 0:
            now = time.process_time(); table[f"{i} sentences"] = dict(memory_MB=round(memory(), 1), cpu_s_a_sentence=round((now-begun)/100, 3)); begun = now
            print(i, table[f"{i} sentences"], flush=True)
    return table

def spoken(seed=0, voice=None):
    from harmonica import Voice
    c = (voice or Voice.load()).say(SENTENCES[0], seed=seed)
    return hashlib.sha256(c.samples.tobytes()).hexdigest()[:16]

def _forked(f, seconds=120):
    "What `f` says in a forked process, or None if it hangs"
    r, w = os.pipe(); pid = os.fork()
    if not pid: os.write(w, f().encode()); os._exit(0)
    os.close(w); until = time.time()+seconds
    while time.time() < until:
        if os.waitpid(pid, os.WNOHANG)[0]: return os.read(r, 100).decode()
        time.sleep(.1)
    os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)

def threads(a):
    "Does everybody hear the same?"
    import multiprocessing
    from harmonica import Voice
    alone = [spoken(i) for i in range(a.n)]
    voice, got = Voice.load(), [None]*a.n                                   # nobody has spoken with this one yet
    def speak(i): got[i] = spoken(i, voice)
    ts = [threading.Thread(target=speak, args=(i,)) for i in range(a.n)]
    for t in ts: t.start()
    for t in ts: t.join()
    table = {f"{a.n} threads, one fresh voice": dict(same=got == alone)}
    forked = _forked(lambda: spoken(0, voice))
    table["fork after use"] = dict(same=forked == alone[0], hung=forked is None)
    with multiprocessing.get_context("spawn").Pool(2) as pool: table["spawn"] = dict(same=pool.map(spoken, [0, 1]) == alone[:2])
    return table

def kills(a):
    "Synthesis, killed"
    from harmonica import Clip
    dice, left, whole, killed = random.Random(0), 0, 0, 0
    with tempfile.TemporaryDirectory() as d:
        out = Path(d)/"o.wav"
        for _ in range(a.n):
            p = subprocess.Popen([sys.executable, "-c", "import sys; from harmonica.cli import synthesize; sys.exit(synthesize())", "--text", SENTENCES[0], "--output", str(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            try: said, _ = p.communicate(timeout=dice.uniform(0, a.seconds))
            except subprocess.TimeoutExpired: p.kill(); said, _ = p.communicate(); killed += 1
            if out.exists(): Clip.load(out); whole += 1; out.unlink()         # raises where half a file has a final name
            elif said: raise SystemExit("a sound was reported and is not there")
        left = len(list(Path(d).iterdir()))
    return dict(kills=dict(runs=a.n, killed=killed, whole_files=whole, temporary_files_left=left))

def licences(a):
    "Package, version, licence"
    table, bad = {}, []
    for d in sorted(distributions(), key=lambda d: d.metadata["Name"].lower()):
        m = d.metadata
        kinds = [c.split(" :: ")[-1] for c in m.get_all("Classifier") or () if c.startswith("License ::")]
        said = m["License-Expression"] or ", ".join(kinds) or (m["License"] or "").split("\n")[0][:60] or "not stated"
        table[m["Name"]] = dict(version=d.version, licence=said)
        if "GPL" in said.replace("LGPL", "").replace("GPL-3.0-with-GCC-exception", "") or "General Public License" in said.replace("Lesser General Public", ""): bad.append(m["Name"])
    if bad: print("GPL:", ", ".join(bad), file=sys.stderr); a.code = 1
    return table

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kind", choices=("watermark", "soak", "threads", "kills", "licences")); p.add_argument("speech", nargs="?")
    p.add_argument("--real"); p.add_argument("--real-limit", type=int, default=1000); p.add_argument("--limit", type=int, default=100)
    p.add_argument("--n", type=int); p.add_argument("--seconds", type=float, default=12.); p.add_argument("--out", default=".")
    a = p.parse_args(); a.code = 0
    a.n = a.n or dict(soak=2000, threads=8, kills=50).get(a.kind)
    if a.kind == "watermark" and not a.speech: p.error("give SPEECH, a .jsonl file or a folder")
    table = dict(watermark=watermark, soak=soak, threads=threads, kills=kills, licences=licences)[a.kind](a)
    for k,v in table.items(): print(f"{k:28}", *(f"{n} {x}" for n,x in v.items()), sep="  ")
    Path(a.out, f"{a.kind}.json").write_text(json.dumps(table, indent=1)+"\n")
    sys.exit(a.code)

if __name__ == "__main__": main()
