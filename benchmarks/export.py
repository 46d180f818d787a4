#!/usr/bin/env python3
"""What a voice without torch costs and gains, torch beside it in the same run.

    export.py                       all of it: some minutes; wants a machine that does nothing else
    export.py --only sizes,speed    some of: sizes, speed, start
    export.py --folder my-voice     a folder that harmonica-export has written (default: written anew)

sizes: the folder, and what must be installed. speed: processor seconds of one thread for a second of speech, part by
part, turn by turn, the best of --repeat. start: a process that says one sentence, its processor seconds and most
memory.
Prints JSON; --out keeps it.
"""
import argparse, importlib.util, json, os, re, subprocess, sys, tempfile, time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
import numpy as np

EXAMPLE = Path(__file__).resolve().parents[1]/"examples/speak_onnx.py"
SENTENCES = (
    "It was late, and nobody came to the old house by the river.",
    "The train leaves at ten from the other platform.",
    "Nine small boats came back before the storm reached the bay.",
    "She put down her book, and listened to the wind outside.")

def installed(*names, seen=None):
    "MB of packages and of all that they require, without extras"
    seen = set() if seen is None else seen
    for name in names:
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen: continue
        try: d = distribution(name)
        except PackageNotFoundError: continue            # of another system or Python
        seen.add(key)
        installed(*(re.split(r"[\s<>=!~;\[(]", r)[0] for r in d.requires or () if "extra ==" not in r), seen=seen)
    files = (f.locate() for k in seen for f in distribution(k).files or ())
    return round(sum(f.stat().st_size for f in files if f.is_file())/1e6, 1), sorted(seen)

def sizes(folder):
    from harmonica.checkpoint import packaged_weights
    weights = sum(packaged_weights(k).stat().st_size for k in ("ar", "flow", "mel"))
    made = sum(p.stat().st_size for p in folder.iterdir())
    out = dict(folder_mb=round(made/1e6, 1), packaged_weights_mb=round(weights/1e6, 1))
    small, large = ["onnxruntime", "numpy"], ["harmonica-tts"]
    for name,of in dict(torch_alone=["torch"], harmonica=large, onnxruntime_and_numpy=small).items():
        out[f"{name}_installed_mb"], found = installed(*of)
        out[f"{name}_packages"] = len(found)
    return out

def cpu(f):
    t = time.process_time()
    x = f()
    return x, time.process_time()-t

def speed(folder, repeat):
    import torch
    from harmonica import Voice
    from harmonica.infer import Sampling
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("speak_onnx", EXAMPLE)
    speak = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speak)
    voice, speaker, took, seconds = Voice.load(device="cpu").ready(), speak.Speaker(folder), {}, 0
    noise = np.random.default_rng(0).standard_normal((900, voice.nar.cfg.latent_dim), np.float32)
    def note(way, part, f):
        x, t = cpu(f)
        took.setdefault((way, part), [[] for _ in SENTENCES])[i].append(t)
        return x
    def by_torch(way, request):
        how = Sampling(temperature=0.)
        codes, when = note(way, "ar", lambda: voice.predict_coarse(request, how, torch.Generator(), soft=True))
        z = note(way, "flow", lambda: voice.predict_fine(request, codes, when)[1])
        return note(way, "vocoder", lambda: voice.decode(z))
    with torch.no_grad():
        for turn in range(repeat+1):
            for i,s in enumerate(SENTENCES):
                request = voice.request(voice.pieces(s)[0])
                ids = request.text[0].tolist()
                for way,quick in (("torch, float32", False), ("torch as it speaks", True)):
                    voice.int8 = voice.half = quick
                    clip = by_torch(way, request)
                _, book0, when = note("onnx", "ar", lambda: speaker.coarse(ids, None, temperature=0.))
                z = note("onnx", "flow", lambda: speaker.fine(ids, book0, when, noise))
                note("onnx", "vocoder", lambda: speaker.run("vocoder", z[None]))
                if turn == 0: seconds += clip.seconds
            if turn == 0: took.clear()                   # the first turn lays out matrices
    out = {way: {} for way,_ in took}
    for (way, part), t in took.items(): out[way][part] = round(sum(map(min, t))/seconds, 4)
    for parts in out.values(): parts["all"] = round(sum(parts.values()), 4)
    return out

WATCHED = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)
r = resource.getrusage(resource.RUSAGE_CHILDREN)
print(r.ru_utime+r.ru_stime, r.ru_maxrss)
"""

def start(folder):
    say, wav = "Good morning.", os.path.join(tempfile.mkdtemp(), "a.wav")
    by_torch = f"from harmonica import Voice; Voice.load(device='cpu').say({say!r}, retries=0, watermark=False)"
    ways = dict(torch=["-c", by_torch], onnx=[str(EXAMPLE), str(folder), wav, "--text", say])
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    def once(argv):
        "CPU seconds and kilobytes of a process"
        r = subprocess.run([sys.executable, "-c", WATCHED, *argv], check=True, capture_output=True, text=True, env=env)
        return list(map(float, r.stdout.split()))
    out = {}
    for way,argv in ways.items():
        seconds, memory = map(min, zip(*(once(argv) for _ in range(3))))
        out[way] = dict(cpu_seconds=round(seconds, 2), most_memory_mb=round(memory/1024))
    return out

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="sizes,speed,start")
    p.add_argument("--folder")
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--out")
    a = p.parse_args()
    parts = a.only.split(",")
    if set(parts) - {"sizes", "speed", "start"}: sys.exit(f"--only {a.only}: give some of sizes, speed, start")
    if a.folder is None:
        from harmonica import Voice
        from harmonica.export import export_onnx
        a.folder = export_onnx(Voice.load(device="cpu"), tempfile.mkdtemp())
    folder, out = Path(a.folder), {}
    if "sizes" in parts: out["sizes"] = sizes(folder)
    if "speed" in parts: out["cpu_seconds_per_second"] = speed(folder, a.repeat)
    if "start" in parts: out["start"] = start(folder)
    print(json.dumps(out, indent=1))
    if a.out: Path(a.out).write_text(json.dumps(out, indent=1)+"\n")
