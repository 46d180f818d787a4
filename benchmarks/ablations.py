#!/usr/bin/env python3
"""Three questions, each answered by training a model a few times at micro size on cached codes.

    ablations.py length   --codes DIR [DIR ...] [--steps 400]     AR: the three length controls: predicted and spoken
                          length against the true one
    ablations.py forcing  --codes DIR [DIR ...] [--steps 400]     AR: what scheduled sampling does to accuracy when the
                          model hears itself
    ablations.py speakers --codes DIR [DIR ...] --items ITEMS     NAR: likeness by the speakers that it learned from

DIR are caches made by harmonica-preprocess, with a split `valid`. Runs go to --out (default runs/ablations) and are
resumed if they are there, with KIND.png; a table on the screen; KIND.json beside this file, from where the notebooks
draw. ITEMS is a .jsonl with text and prompt in each row.
"""
import argparse, json, os, shutil
from dataclasses import replace
from pathlib import Path
import numpy as np, pyarrow as pa, torch
from harmonica import Voice
from harmonica.data import CodesDataset
from harmonica.eval import evaluate
from harmonica.length import MODES
from harmonica.config import load_config
from harmonica.recipes import train_ar, train_nar
from voice import figures, sentences

FORCING = dict(truth=["training.scheduled_sampling=false"],
    **{k: ["training.scheduled_sampling=true", f"training.teacher_forcing_schedule={k}"]
    for k in ("linear", "cosine", "exponential")})

def runs(a, variants):
    "Train each variant (or find it trained): name -> (model, supply)"
    for name,over in variants.items():
        cfg = load_config(a.config, [f"data.cache_dir=[{','.join(a.codes)}]", f"training.max_steps={a.steps}",
            f"training.warmup_steps={max(1, min(150, a.steps//8))}", f"training.valid_every={max(1, a.steps//2)}",
            *over, *a.set])
        folder = Path(a.out)/f"{a.what}-{name}"
        t = train_ar(cfg, folder, a.device, resume=(folder/"last.pt").exists(), progress=not a.quiet)
        yield name, (t.ema if t.ema is not None else t.model).eval(), t.valid or []

def without_targets(batch):
    return replace(batch, codes=None, n_frames=None, durations=None, book0=None, prompt_text_len=0*batch.prompt_len)

@torch.no_grad()
def lengths(model, valid, n, seed=0):
    "Predicted, spoken and true frames of valid utterances whose prompt is another one, and the bounds"
    rows = []
    for b in valid:
        for i in range(len(b)):
            if b.continues[i] or len(rows) >= n: continue
            context = model.encode(ask := without_targets(b[i:i+1]))
            (codes,), _ = model.generate(ask, generator=torch.Generator().manual_seed(seed+len(rows)))
            low, high = (int(x) for x in model.frame_bounds(context))
            rows.append(dict(true=int(b.n_frames[i]), predicted=float(context.n_frames), spoken=len(codes), lo=low,
                hi=high))
    return rows

def length(a):
    import matplotlib.pyplot as plt
    out, fig, axs = {}, *plt.subplots(1, len(MODES), figsize=(9, 3), sharex=True, sharey=True)
    for ax,(name,model,valid) in zip(axs, runs(a, {m: [f"model.ar.length_control_mode={m}"] for m in MODES})):
        rows = lengths(model, valid, a.utterances)
        g = model.cfg.group
        x = {k: np.array([r[k] for r in rows], float) for k in rows[0]}
        off = lambda k: round(float(np.median(np.abs(np.log(x[k].clip(1)/x["true"])))), 3)
        out[name] = dict(utterances=len(rows), predicted_off=off("predicted"), spoken_off=off("spoken"),
            correlation=round(float(np.corrcoef(x["predicted"], x["true"])[0,1]), 3),
            spoken_correlation=round(float(np.corrcoef(x["spoken"], x["true"])[0,1]), 3),
            forced_to_stop=round(float((x["spoken"] >= x["hi"]-g).mean()), 3),
            within_bounds=bool(((x["spoken"] >= x["lo"]-g) & (x["spoken"] <= x["hi"])).all()),
            truth_within_bounds=round(float(((x["true"] >= x["lo"]) & (x["true"] <= x["hi"])).mean()), 3),
            points=[[r["true"], round(r["predicted"]), r["spoken"]] for r in rows])
        ax.plot(x["true"], x["predicted"], ".", ms=3, label="predicted")
        ax.plot(x["true"], x["spoken"], "x", ms=3, label="spoken")
        m = x["true"].max()
        ax.plot([0, m], [0, m], "k:", lw=.7)
        ax.set(title=name, xlabel="true frames", ylim=(0, 2.5*m))
    axs[0].legend()
    fig.tight_layout()
    return out, fig

@torch.no_grad()
def hearing_itself(model, valid, n, seed=0):
    "Accuracy when fed the truth, half its own guesses, nothing but its own guesses; and how it does left alone"
    res = {}
    for share in (1., .5, 0.):
        m = [model.loss(b, teacher_forcing=share, generator=torch.Generator().manual_seed(seed))[1] for b in valid]
        for k in ("loss_code", "top1", "top10"):
            res[f"{k}_fed_{share:g}"] = round(float(np.mean([float(x[k]) for x in m])), 4)
    runs_, near, kl, said = [], [], np.zeros((2, model.cfg.n_bins)), 0
    for b in valid:
        for i in range(len(b)):
            if b.continues[i] or said >= n: continue
            said += 1
            T, t = int(b.n_frames[i]), b.codes[i,0,:b.n_frames[i]].numpy()
            dice = torch.Generator().manual_seed(seed+said)
            c = model.generate(without_targets(b[i:i+1]), generator=dice, min_frames=T, max_frames=T)[0][0].numpy()
            edges = np.flatnonzero(np.diff(c, prepend=-1, append=-1))
            runs_.append(int(np.diff(edges).max()))
            k = min(len(c), T)
            near.append(float(np.mean([c[j] in t[max(0, j-5):j+6] for j in range(k)])))
            np.add.at(kl[0], c, 1)
            np.add.at(kl[1], t, 1)
    p, q = (kl+.5)/(kl+.5).sum(1, keepdims=True)
    return dict(res, alone_near_truth=round(float(np.mean(near)), 4), alone_longest_run=round(float(np.mean(runs_)), 2),
        alone_code_kl=round(float((p*np.log(p/q)).sum()), 3))

def forcing(a):
    import matplotlib.pyplot as plt
    out = {name: hearing_itself(model, valid, a.utterances) for name,model,valid in runs(a, FORCING)}
    fig,ax = plt.subplots(figsize=(5, 3))
    for name,r in out.items(): ax.plot([0, 50, 100], [r[f"top10_fed_{s}"] for s in ("1", "0.5", "0")], "-o", label=name)
    ax.set(xlabel="% of the input that it made up", ylabel="true code among its first ten")
    ax.legend()
    fig.tight_layout()
    return out, fig

def some_of(codes, n, seconds, out):
    "A cache of n speakers of split train, so many seconds of each: those with text first, no copies at another pace"
    ds = CodesDataset(codes, "train", wordless=True)
    rng = np.random.default_rng(0)
    names = rng.permutation(sorted(s for s in ds.by_speaker if "@" not in s))
    names = sorted(names, key=lambda s: ds.ds[int(ds.rows[ds.by_speaker[s][0]])]["text"] == "")[:n]     # stable
    rows = [mine[:1+np.searchsorted(np.cumsum(ds.lengths[mine])/ds.frame_rate, seconds)]
        for mine in (rng.permutation(ds.by_speaker[s]) for s in names)]
    table = ds.ds.data.table.take(ds.rows[np.sort(np.concatenate(rows))])
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(ds.paths[0]/"card.json", out)
    with pa.ipc.new_stream(out/"000-of-001-00000.arrow", table.schema) as w: w.write_table(table)
    return len(names), float(pa.compute.sum(table["seconds"]).as_py())/3600

def speakers(a, seconds=20.):
    import matplotlib.pyplot as plt
    items, out = sentences(a.items, a.utterances), {}
    for n in a.speakers:
        folder = Path(a.out)/f"speakers-{n}"
        known, hours = some_of(a.codes, n, seconds, folder/"codes")
        cfg = load_config(a.config, [f"data.cache_dir={folder}/codes", f"training.max_steps={a.steps}",
            f"training.warmup_steps={max(1, min(150, a.steps//8))}", "training.valid_every=0", *a.set])
        train_nar(cfg, folder, a.device, resume=(folder/"last.pt").exists(), progress=not a.quiet)
        found = figures(evaluate(items, Voice.load(nar=folder/"nar.safetensors"), judges="ge2e,dvec", progress=False))
        out[str(known)] = dict(hours=round(hours, 2), **{k: v for k,v in found.items() if k.startswith("sim_")})
        print(known, out[str(known)], flush=True)
    fig,ax = plt.subplots(figsize=(5, 3))
    x = [int(n) for n in out]
    for k in ("sim_prompt_ge2e", "sim_prompt_dvec"):
        v = np.array([r[k] for r in out.values()])
        ax.errorbar(x, v[:,0], abs(v[:,1:]-v[:,:1]).T, fmt="-o", label=k)
    ax.set(xscale="log", xlabel="speakers", ylabel="likeness to the prompt")
    ax.legend()
    fig.tight_layout()
    return out, fig

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("length", "forcing", "speakers"))
    p.add_argument("--codes", nargs="+", required=True)
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--config", default="micro")
    p.add_argument("--utterances", type=int, default=60, help="spoken for the plot")
    p.add_argument("--items", help="sentences and prompts, .jsonl")
    p.add_argument("--speakers", nargs="*", type=int, default=[10, 30, 100, 500, 1700])
    p.add_argument("--out", default="runs/ablations")
    p.add_argument("--device", default=None)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--set", nargs="*", default=[], help="more settings, as section.key=value")
    p.add_argument("--quiet", action="store_true")
    a = p.parse_args()
    if a.what == "speakers" and not a.items: p.error("give --items, a .jsonl file")
    torch.set_num_threads(a.threads)
    out, fig = dict(length=length, forcing=forcing, speakers=speakers)[a.what](a)
    Path(a.out).mkdir(parents=True, exist_ok=True)
    fig.savefig(Path(a.out)/f"{a.what}.png", dpi=100)
    (Path(__file__).parent/f"{a.what}.json").write_text(json.dumps(dict(steps=a.steps, settings=a.set, runs=out))+"\n")
    keys = list(next(iter(out.values())))
    print(f"{'':24}", *[f"{n:>24}" for n in out])
    for k in keys:
        if k != "points": print(f"{k:24}", *[f"{str(r[k]):>24}" for r in out.values()])
    print(f"{a.out}/{a.what}.png")

if __name__ == "__main__": main()
