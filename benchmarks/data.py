"""What preparing and reading speech costs, and what 60,000 hours would

    python benchmarks/data.py                    a few minutes on two cores
    python benchmarks/data.py --full             20,000 clips, more sound for the codec
    python benchmarks/data.py --device cuda      measure that device's encoding
    python benchmarks/data.py --only cache       encode, memory or cache

Times are CPU seconds (and wall in brackets) on CPU, where other work shares the cores, and wall seconds on other
devices."""
import argparse, json, math, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np, torch
from harmonica.codec import Clip, load_codec
from harmonica.data import CodesDataset, Utterance, collate, CodesLoader, prepare, tidied, write_shard

class Clock:
    "CPU and wall seconds since it was made"
    def __init__(self): self.cpu, self.wall = time.process_time(), time.perf_counter()
    def __call__(self): return np.array([time.process_time()-self.cpu, time.perf_counter()-self.wall])

def voice(seconds, seed, rate=24000):
    "Something with the envelope of speech"
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds*rate))/rate
    f0 = rng.uniform(90, 250)
    x = sum(np.sin(2*np.pi*f0*k*t+.3*np.sin(5*t))/k for k in range(1, 12))*np.interp(t,
        np.linspace(0, seconds, int(4*seconds)+2), rng.uniform(.05, 1, int(4*seconds)+2))
    return Clip((.1*x+.001*rng.standard_normal(len(t))).astype(np.float32), rate)

def the_codec(name, device):
    "By name; where its weights can't be had, one of the same size with random weights, which costs the same"
    try: return load_codec(name, device)
    except (ValueError, ImportError) as e:
        from harmonica.microcodec import MicroCodec
        print(f"  ({str(e)[:100]}: a MicroCodec with random weights instead)")
        torch.manual_seed(0)
        return MicroCodec().eval().to(device)

class Timed:
    "A codec that notes how long it is at work"
    def __init__(self, codec): self.codec, self.took, self.batches = codec, np.zeros(2), []
    def __getattr__(self, k): return getattr(self.codec, k)
    def encode(self, clip):
        c = Clock()
        out = self.codec.encode(clip)
        self.took += c()
        self.batches.append(len(clip))
        return out

def encode(args, res):
    "How busy prepare keeps the codec, from files to the cache, against the codec alone on the same clips"
    codec, n = Timed(the_codec(args.codec, args.device)), 200 if args.full else 40
    with tempfile.TemporaryDirectory() as d:
        d, rng = Path(d), np.random.default_rng(0)
        us, hours = [], 0.
        for i in range(n):
            c = voice(float(np.clip(rng.lognormal(1.4, .5), 1., 12.)), i)
            hours += c.seconds/3600
            us.append(Utterance(c.save(d/f"{i}.flac"), "word "*int(2.5*c.seconds), f"s{i%9}", id=f"{i}"))
        kw = dict(progress=False)
        prepare(us[:4], codec, d/"warm", **kw)
        codec.took[:] = 0
        codec.batches.clear()
        c = Clock()
        prepare(us, codec, d/"codes", **kw)
        total, inside = c(), codec.took.copy()
        clips = [tidied(u, codec.sample_rate) for u in us]
        codec.took[:] = 0
        codec.batches.clear()
        for c in clips: codec.encode(c)
        bare = codec.took.copy()
    w = 0 if args.device == "cpu" else 1
    # sound is read in threads while the codec works: busy is what counts
    share, other = inside[1]/total[1], (total-inside)/hours
    res["encode"] = dict(device=args.device, codec=codec.name, hours=hours, total=total.tolist(),
        inside=inside.tolist(), bare=bare.tolist(), share=float(share), rtf=float(total[w]/hours/3600),
        codec_rtf=float(bare[w]/hours/3600), other_seconds_per_hour=other.tolist())
    print(f"encoding on {args.device}, {codec.name}, {n} clips, {hours*3600:.0f} s of speech\n"
          f"  prepare {total[0]:.2f} s CPU ({total[1]:.2f} wall), of it the codec {inside[0]:.2f} ({inside[1]:.2f}); "
              f"the codec alone {bare[0]:.2f} ({bare[1]:.2f})\n"
          f"  the codec is busy {100*share:.0f}% of the time ({100*inside[0]/total[0]:.0f}% of all CPU time is its "
              f"own); real-time factor {total[w]/hours/3600:.4f}\n"
          f"  reading, tidying, checking, writing: {other[0]:.1f} s CPU an hour of speech: one process feeds a codec "
              f"of up to {3600/(9*other[0]):.0f} x real time at 90%")

CHILD = '''
import resource, sys, numpy as np, torch
from harmonica.codec import Clip
from harmonica.data import Utterance, prepare
class Toy:
    name,sample_rate,frame_rate,n_q,codebook_size,hash = 'toy',24000,50,8,1024,'feedc0ffee00'
    def encode(self, c): return torch.zeros(8, len(c)//480, dtype=torch.long)
t = np.arange(14400); few = [(.3*np.sin(t*.02*(i+1))).astype(np.float32) for i in range(8)]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(1024**2 if sys.platform == "darwin" else 1024)
def us(a, b):
    for i in range(a, b): yield Utterance(Clip(few[i%8].copy(), 24000), f'sentence {i}', f's{i%50}', id=f'u{i}')
prepare(us(0, 600), Toy(), sys.argv[1]+'-warm', progress=False); before = peak()
prepare(us(0, int(sys.argv[2])), Toy(), sys.argv[1], progress=False); print(before, peak())
'''
def memory(args, res):
    "Peak memory of prepare in a process of its own"
    rows = []
    with tempfile.TemporaryDirectory() as d:
        for n in (1000, 20000) if args.full else (1000, 4000):
            r = subprocess.run([sys.executable, "-c", CHILD, f"{d}/{n}", str(n)], capture_output=True, text=True,
                check=True)
            before, after = map(float, r.stdout.split()[-2:])
            rows.append(dict(clips=n, before=before, peak=after))
            print(f"preparing {n} clips: peak {after:.0f} MB, {after-before:+.1f} MB after the first 600")
    res["memory"] = rows

def fake_cache(out, n, mean=200, n_q=8, bins=1024):
    "n utterances of random codes, lengths like those of speech"
    rng = np.random.default_rng(0)
    out.mkdir(parents=True)
    for k in range(0, n, 5000):
        T = np.clip(rng.lognormal(math.log(mean), .5, min(5000, n-k)), 20, 1000).astype(int)
        at = np.r_[0, n_q*T.cumsum()]
        codes = rng.integers(0, bins, at[-1]).astype(np.int16)
        write_shard([dict(id=f"r{k+i}", text=f"a sentence of some words with the number {k+i}",
            speaker=f"s{(k+i)%max(1, n//50)}", source="made", split="train" if i%50 else "valid", seconds=t/50,
            n_frames=int(t), codes=codes[a:b]) for i,(t,a,b) in enumerate(zip(T.tolist(), at, at[1:]))],
            out/f"000-of-001-{k//5000:05d}.arrow")
    (out/"card.json").write_text(json.dumps(dict(version=1, codec="made", codec_hash="0"*12, frame_rate=50,
        sample_rate=24000, n_q=n_q, codebook_size=bins)))

class Letters:
    def encode(self, text, **kw): return [1+ord(c)%50 for c in text]

def rss():
    "MB of memory that are this process' own: pages of mapped files are not counted"
    try: return sum(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon"))/1024
    except OSError: return float("nan")

def cache(args, res):
    "Opening a cache and drawing batches from it, at growing size"
    rows = []
    print("rows     MB on disk   open s CPU (wall)   plan of an epoch s   random batch ms   next batch ms   own MB")
    with tempfile.TemporaryDirectory() as d:
        for n in (1000, 10_000, 100_000):
            fake_cache(Path(d)/"c", n, mean=200 if args.full else 60)
            size = sum(f.stat().st_size for f in (Path(d)/"c").glob("*"))
            if n == 1000: CodesDataset(Path(d)/"c") # imports
            had = rss()
            c = Clock()
            ds = CodesDataset(Path(d)/"c", tokenizer=Letters())
            opened = c()
            own = rss()-had
            rng, took = np.random.default_rng(1), []
            for i in range(40):
                idx = rng.integers(0, len(ds), 16)
                c = Clock()
                collate([dict(index=j, id=ds.id(j), codes=ds.codes(j), tokens=ds.tokens(j)) for j in idx], rng, ds)
                took.append(c())
            took = np.median(took, 0)*1e3
            loader = CodesLoader(ds, max_frames=4000)
            c = Clock()
            loader.sampler.plan(0)
            planned = c()
            it = iter(loader)
            nexts = []
            for i in range(20):
                c = Clock()
                next(it)
                nexts.append(c())
            nexts = np.median(nexts, 0)*1e3
            rows.append(dict(rows=n, bytes=size, open=opened.tolist(), random_batch_ms=took.tolist(),
                plan=planned.tolist(), next_batch_ms=nexts.tolist(), own_mb=own))
            print(f"{n:<8} {size/1e6:<12.1f} {opened[0]:.3f} ({opened[1]:.3f})       {planned[0]:.3f} "
                f"({planned[1]:.3f})        {took[0]:.2f} ({took[1]:.2f})       {nexts[0]:.2f} ({nexts[1]:.2f})     "
                    f"{own:.1f}")
            del ds, loader, it
            for f in (Path(d)/"c").glob("*"): f.unlink()
            (Path(d)/"c").rmdir()
    res["cache"] = rows

def extrapolate(args, res):
    "60,000 hours, as VALL-E had"
    H, per = 60_000, 12. # s an utterance, about LibriLight cut at pauses
    n, rtf = H*3600/per, res.get("encode", {}).get("rtf")
    for name,rate,n_q in (("micro",50,8), ("encodec_24khz",75,8)):
        size = H*3600*rate*n_q*2+n*230 # 230 bytes: id, text, names
        print(f"{H} hours, {name}: {size/1e9:.0f} GB of codes in {n/500:.0f} files of 500 utterances, {n/1e6:.0f}M "
            f"utterances of {per:g} s")
    if "cache" in res:
        a, b = res["cache"][0], res["cache"][-1]
        grow = (b["open"][0]-a["open"][0])/(b["rows"]-a["rows"])
        print(f"  opening {n/1e6:.0f}M rows at {grow*1e6:.2f} s CPU a million: about {grow*n:.0f} s; their own memory "
            f"about {b['own_mb']/b['rows']*n/1e3:.1f} GB; a machine that trains on its share of files has its share "
                f"of both")
    speeds = {f"this {args.device} ({res['encode']['codec']}, measured)": rtf} if rtf else {}
    speeds |= {"a device 100 x faster than real time": .01, "a device 500 x faster than real time": .002}
    res["60k"] = {}
    for k,v in speeds.items():
        h = H*v
        res["60k"][k] = dict(hours=h, machines_for_a_day=math.ceil(h/24))
        print(
            f"  {k}: {h:.0f} hours of encoding, {math.ceil(h/24)} of them for a day (--shard 0/{math.ceil(h/24)} ...)")

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--full", action="store_true")
    p.add_argument("--device", default="cpu")
    p.add_argument("--codec", default="micro")
    p.add_argument("--only", choices=["encode","memory","cache"])
    p.add_argument("--out", help="also write the figures to this JSON file")
    args, res = p.parse_args(), {}
    for f in (encode, memory, cache):
        if args.only in (None, f.__name__): f(args, res)
    extrapolate(args, res)
    if args.out: Path(args.out).write_text(json.dumps(res, indent=1))
