#!/usr/bin/env python3
"""How fast is a training step? Everything in one run on one machine, so that the figures compare.

    speed.py                       full size, all cores: a quarter of an hour; wants a machine that does nothing else
    speed.py --micro               the sizes of micro.yaml
    speed.py --tiny                seconds, to see that it works
    speed.py --only steps,memory   some of: memory, steps, loader, proportion, speaking
    speed.py --only speaking       a step of the AR while it speaks, beside the plain decoder and the shortest time
                                   there can be, on one thread

Writes a table to the screen and benchmarks/speed.json (--out). A plain modern decoder (plain.py) of the same width and
depth gets the same utterances: that is the yardstick.
"""
import argparse, json, os, platform, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, str(Path(__file__).parent))
from plain import Plain, rope
from harmonica.ar import AR, ARConfig
from harmonica.batch import Batch
from harmonica.data import BucketSampler, CodesDataset, write_shard, CodesLoader
from harmonica.nar import NAR, NARConfig
from harmonica.train import PRECISIONS, TrainConfig, Trainer

SIZES = dict(full=dict(ar=dict(d_model=512, n_heads=8, n_layers=12, d_ff=1856),
    nar=dict(d_model=512, n_heads=8, n_layers=8, d_ff=1344, max_prompt=225), n_q=8, n_bins=1024, frame_rate=75, group=2,
    prompt=6.5), micro=dict(ar=dict(d_model=256, n_heads=4, n_layers=8, d_ff=768),
    nar=dict(d_model=256, n_heads=4, n_layers=5, d_ff=768, max_prompt=150), n_q=8, n_bins=1024, frame_rate=50, group=2,
    prompt=3.), tiny=dict(ar=dict(d_model=64, n_heads=2, n_layers=2, d_ff=128),
    nar=dict(d_model=64, n_heads=2, n_layers=2, d_ff=128), n_q=4, n_bins=64, frame_rate=50, group=1, prompt=3.))

def build(kind, z, checkpoint=False, group=None):
    torch.manual_seed(0)
    c = dict(z["ar" if kind.endswith("ar") and kind != "nar" and kind != "plain-nar" else "nar"])
    if kind == "ar":
        return AR(ARConfig(**c, n_q=z["n_q"], n_bins=z["n_bins"], frame_rate=z["frame_rate"], group=group or z["group"],
            dropout=0., grad_checkpoint=checkpoint))
    if kind == "nar":
        return NAR(NARConfig(**c, vocab_size=128, n_q=z["n_q"], n_bins=z["n_bins"], dropout=0.,
            grad_checkpoint=checkpoint))
    return Plain(bins=z["n_bins"], d=c["d_model"], heads=c["n_heads"], layers=c["n_layers"], d_ff=c["d_ff"],
        causal=kind == "plain-ar")

def batch(z, B, T, L=None, P=None, seed=0):
    # as long as the recipe's prompts are on average
    g = torch.Generator().manual_seed(seed)
    L, P = L or max(4, T//4), P if P is not None else round(z["prompt"]*z["frame_rate"])
    codes = lambda k: torch.randint(z["n_bins"], (B, z["n_q"], k), generator=g)
    when = torch.diff(torch.linspace(0, T, L+1).round().long()).expand(B, -1)
    return Batch.of(torch.randint(1, 50, (B, L), generator=g), codes=codes(T), prompts=codes(P), durations=when)

class Step:
    "One AdamW update, as `Trainer` makes it"
    def __init__(self, model, precision, device):
        self.folder = tempfile.mkdtemp()
        self.t = Trainer(model, [], TrainConfig(grad_accum_steps=1, warmup_steps=1, precision=precision, ema=0),
            self.folder, device)
    def __call__(self, b):
        self.t.one_step([b])
        return float(self.t.metrics["loss"]) # reading it makes a GPU finish

def best_of(f, n):
    f()
    took = []
    for _ in range(n):
        t = time.perf_counter()
        f()
        took.append(time.perf_counter()-t)
    return statistics.median(took)

def matmul(precision, device, size):
    a = torch.randn(size, size, device=device).to(PRECISIONS[precision])
    return 2*size**3/best_of(lambda: float((a@a)[0,0]), 3)

def model_flops(model, b, kind):
    "Multiply-adds of the matrices and of attention, forward and backward (3 x forward), counted by torch"
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as f:
        loss,_ = model.train().loss(b)
        loss.backward()
    model.zero_grad(set_to_none=True)
    return f.get_total_flops()

def steps(z, a, out):
    "AR and NAR against the yardstick, same utterances, turn by turn"
    B, T = a.batch, int(a.seconds*z["frame_rate"])
    b = batch(z, B, T).to(a.device)
    # as the recipe has it: two frames a step for the AR, a NAR that attends to the last 3 s of the prompt; and
    # the AR with as many positions as the yardstick
    kinds = [("ar", z["group"]), ("plain-ar", 1), ("nar", 1),
        ("plain-nar", 1)] + ([("ar", 1)] if z["group"] > 1 else [])
    for precision in a.precision:
        peak = matmul(precision, a.device, a.matmul)
        made = {}
        for kind,g in kinds:
            m = build(kind, z, group=g)
            made[kind,g] = m, Step(m, precision, a.device), []
        for i in range(a.repeat+1):                       # in turns: what else the machine does hits all alike
            for m,s,took in made.values():
                t = time.perf_counter()
                s(b)
                if i: took.append(time.perf_counter()-t)
        for (kind,g),(m,s,took) in made.items():
            flops = model_flops(m, b, kind)
            sec = statistics.median(took)
            out["steps"][f"{kind}{' ungrouped' if kind == 'ar' and g < z['group'] else ''} {precision}"] = dict(
                params=round(sum(p.numel() for p in m.parameters())/1e6, 2), step_seconds=round(sec, 4),
                frames_per_second=round(B*T/sec, 1), tflops=round(flops/sec/1e12, 4),
                share_of_matmul=round(flops/sec/peak, 3), spread=round(max(took)/min(took), 2))
        out["matmul_tflops"][precision] = round(peak/1e12, 4)
        r = out["steps"]
        for k in ("ar", "nar", *["ar ungrouped"]*(z["group"] > 1)):
            out["ratio"][f"{k} {precision}"] = round(
                r[f"{k} {precision}"]["frames_per_second"]/r[f"plain-{k.split()[0]} {precision}"]["frames_per_second"],
                2)

def cache(z, folder, n=400):
    "A made-up cache of codes"
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        T = int(rng.uniform(2, 12)*z["frame_rate"])
        rows.append(dict(id=f"u{i}", text="x"*(T//5), speaker=f"s{i%20}", source="t", split="train",
            seconds=T/z["frame_rate"], n_frames=T, codes=rng.integers(0, z["n_bins"], z["n_q"]*T).astype(np.int16)))
    write_shard(rows, folder/"000-of-001-00000.arrow")
    (folder/"card.json").write_text(json.dumps(dict(version=1, codec="t", codec_hash="t", frame_rate=z["frame_rate"],
        sample_rate=24000, n_q=z["n_q"], codebook_size=z["n_bins"])))
    class Letters:
        def encode(self, text, **kw): return [5]*len(text)
    return CodesDataset(folder, "train", None, Letters())

def loader(z, a, out):
    "Seconds to make a batch, with nobody helping, as a share of the step that uses it"
    with tempfile.TemporaryDirectory() as tmp:
        ds = cache(z, Path(tmp))
        frames = a.batch*int(a.seconds*z["frame_rate"])
        it = iter(CodesLoader(ds, BucketSampler(ds.lengths, max(frames, ds.lengths.max()), 0), 0))
        s = Step(build("ar", z), a.precision[0], a.device)
        made, used, pad = [], [], []
        for i in range(a.repeat+2):
            t = time.perf_counter()
            b = next(it)
            t1 = time.perf_counter()
            s(b.to(a.device))
            t2 = time.perf_counter()
            if i > 1:
                made.append(t1-t)
                used.append(t2-t1)
                pad.append(1-float(b.frame_mask.float().mean()))
    out["loader"] = dict(batch_seconds=round(statistics.median(made), 5),
        step_seconds=round(statistics.median(used), 4),
        share=round(statistics.median(made)/(statistics.median(made)+statistics.median(used)), 4),
        padding=round(statistics.mean(pad), 3))

def proportion(z, a, out):
    ("An update of ten times the frames should cost ten times the time: as ten micro-batches, as the recipes have it, "
        "and in one go, where nothing fits into a processor's cache any more")
    few, many = a.frames
    for kind in ("ar", "nar"):
        T = int(a.seconds*z["frame_rate"])
        n, k = max(1, round(few/T)), max(1, round(many/few))
        # checkpointed, or so many frames at once would not fit
        s = Step(build(kind, z, checkpoint=True), a.precision[-1], a.device)
        b, big = batch(z, n, T).to(a.device), batch(z, n*k, T).to(a.device)
        seconds = lambda batches, times: best_of(lambda: (s.t.one_step(batches), float(s.t.metrics["loss"])), times)
        one, ten, whole = seconds([b], a.repeat//2+1), seconds([b]*k, 1), seconds([big], 1)
        out["proportion"][kind] = dict(frames=[n*T, n*T*k], seconds=[round(one, 3), round(ten, 3)],
            cost_per_frame_ratio=round(ten/k/one, 3),
            in_one_micro_batch=dict(seconds=round(whole, 3), cost_per_frame_ratio=round(whole/k/one, 3)))

def memory_child(z, a):
    "In a process of its own: the largest memory of one update on clips of 20 s"
    m = build("ar", z, checkpoint=a.checkpoint)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    b = batch(z, a.batch, int(a.clip*z["frame_rate"]), L=int(a.clip*15)).to(a.device)
    if a.device == "cuda": torch.cuda.reset_peak_memory_stats()
    t = time.perf_counter()
    s = Step(m, a.precision[0], a.device)
    s(b)
    peak = torch.cuda.max_memory_allocated()/1e9 if a.device == "cuda" else resource.getrusage(
        resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform == "darwin" else 1024)/1e9
    print(json.dumps(dict(peak_gb=round(peak, 2), before_gb=round(base*1024/1e9, 2),
        seconds=round(time.perf_counter()-t, 2))))

def memory(z, a, out):
    for check in (False, True):
        cmd = [sys.executable, __file__, "--child", "--size", a.size, "--batch", str(a.memory_batch), "--clip",
            str(a.clip), "--device", a.device, "--threads", str(a.threads), "--precision",
            a.precision[0]] + ["--checkpoint"]*check
        r = subprocess.run(cmd, capture_output=True, text=True)
        out["memory"][f"{a.memory_batch} clips of {a.clip:g} s, {'recomputed' if check else 'kept'}"] = json.loads(
            r.stdout) if r.returncode == 0 else dict(failed=(r.stderr.strip().splitlines() or ["killed"])[-1][-200:])

class PlainSteps:
    "The yardstick while it speaks: as anyone would write it, with a cache set aside once"
    def __init__(self, m, B, S):
        self.m, self.n, dim = m, 0, m.d//m.heads
        self.k, self.v = (torch.zeros(len(m.blocks), B, m.heads, S, dim) for _ in range(2))
        a = torch.arange(S)[:,None]*10000.**(-torch.arange(0, dim, 2)/dim)
        self.cos, self.sin = a.cos(), a.sin()
    def __call__(self, x):
        n, (B, D) = self.n, x.shape
        for i,b in enumerate(self.m.blocks):
            q,k,v = b.qkv(b.n1(x)).view(B, 3, b.heads, -1).unbind(1)
            cos, sin = self.cos[n], self.sin[n]
            self.k[i,:,:,n], self.v[i,:,:,n] = rope(k, cos, sin), v
            a = torch.nn.functional.scaled_dot_product_attention(rope(q, cos, sin)[:,:,None], self.k[i,:,:,:n+1],
                self.v[i,:,:,:n+1])
            x = x+b.out(a.reshape(B, D))
            h = b.n2(x)
            x = x+b.down(torch.nn.functional.silu(b.gate(h))*b.up(h))
        return self.m.head(self.m.norm(x))

def bandwidth(nbytes):
    "Bytes a second in which one thread reads so many, the best of some tries"
    x = torch.ones(nbytes//4)
    return x.nbytes/min(timed(x.sum) for _ in range(9))

def timed(f):
    t = time.thread_time()
    f()
    return time.thread_time()-t

@torch.no_grad()
def speaking(z, a, out):
    ("Steps of the AR, turn by turn with the yardstick's, after a context of 200 steps; CPU seconds of one thread, the "
        "least of many")
    was = torch.get_num_threads()
    torch.set_num_threads(1)
    found = out["speaking"] = {}
    plain, n = build("plain-ar", z).eval(), 200
    for B in (1, 8):
        turns = {}
        for g in {1, z["group"]}:
            ar = build("ar", z, group=g).eval()
            x = torch.randn(B, z["ar"]["d_model"])
            for int8 in (False, True):
                stack, cache, ropes = ar.step_stack(int8), ar.body.cache(B, n+1), ar.step_ropes(1, x)
                def step(stack=stack, cache=cache, ropes=ropes, x=x):
                    cache.len = n
                    stack.head(stack.step(x, ropes[0], cache))
                name = f"ar{' group '+str(g) if g > 1 else ''} {'int8' if int8 else 'fp32'}, {B} abreast"
                turns[name] = step, stack.nbytes, g
        p = PlainSteps(plain, B, n+1)
        x = torch.randn(B, z["ar"]["d_model"])
        def step(p=p, x=x):
            p.n = n
            p(x)
        turns[f"plain fp32, {B} abreast"] = step, sum(w.nbytes
            for w in plain.blocks.parameters())+plain.head.weight.nbytes, 1
        least = {k: 1e9 for k in turns}
        for _ in range(4*a.repeat+10):
            for k,(f,_,_) in turns.items(): least[k] = min(least[k], timed(f))
        for k,(_,nbytes,g) in turns.items():
            floor = nbytes/bandwidth(nbytes)
            found[k] = dict(step_ms=round(1000*least[k], 3), floor_ms=round(1000*floor, 3),
                megabytes=round(nbytes/1e6, 1), real_time_factor=round(least[k]*z["frame_rate"]/g/B, 4),
                times_plain=round(least[f"plain fp32, {B} abreast"]*g/least[k], 2))
    torch.set_num_threads(was)
    for k,v in found.items():
        print(f"{k:32} step {v['step_ms']:8.3f} ms, floor {v['floor_ms']:7.3f} ms ({v['megabytes']} MB), "
            f"{v['real_time_factor']:.4f} s a second of sound, {v['times_plain']} x the plain decoder")

# memory first: a process of its own still counts what its parent held when it began
PARTS = dict(memory=memory, steps=steps, loader=loader, proportion=proportion, speaking=speaking)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", default="full", choices=list(SIZES))
    p.add_argument("--micro", action="store_true")
    p.add_argument("--tiny", action="store_true")
    p.add_argument("--only", default=",".join(PARTS))
    p.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--batch", type=int, default=2, help="utterances of a step")
    p.add_argument("--seconds", type=float, default=5, help="length of each")
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--matmul", type=int, default=4096)
    p.add_argument("--frames", type=int, nargs=2, default=[2000, 20000])
    p.add_argument("--clip", type=float, default=20.)
    p.add_argument("--memory-batch", type=int, default=8)
    p.add_argument("--out", default=str(Path(__file__).with_name("speed.json")))
    p.add_argument("--child", action="store_true")
    p.add_argument("--checkpoint", action="store_true")
    a = p.parse_args()
    if a.micro: a.size = "micro"
    if a.tiny:
        a.size, a.repeat, a.matmul, a.frames, a.memory_batch, a.seconds, a.clip = "tiny", 3, 256, [200, 2000], 2, 2, 4
    torch.set_num_threads(a.threads)
    z = SIZES[a.size]
    if a.child: return memory_child(z, a)
    out = dict(machine=platform.processor() or platform.machine(), threads=a.threads, torch=str(torch.__version__),
        size=a.size, load=[round(x, 2) for x in os.getloadavg()], batch=[a.batch, a.seconds], matmul_tflops={},
        steps={}, ratio={}, loader={}, proportion={}, memory={}, speaking={})
    for k in a.only.split(","):
        if k not in PARTS: sys.exit(f"--only {k}: give some of {', '.join(PARTS)}")
        PARTS[k](z, a, out)
        print(f"{k}:", json.dumps({n: out[n] for n in (("matmul_tflops", "steps", "ratio") if k == "steps" else (k,))},
            indent=1), flush=True)
    if out["load"][0] > a.threads*.3:
        print(f"the machine was busy when this began (load {out['load'][0]}): the figures are not to be trusted")
    Path(a.out).write_text(json.dumps(out, indent=1)+"\n")

if __name__ == "__main__": main()
