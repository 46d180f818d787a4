#!/usr/bin/env python3
"""Do the words stand in book 0? A linear probe tells the phone of a frame from the entry that book 0 chose for it.

    codec.py probe  --sound DIR --valid DIR [CODEC ...]      the packaged codec, or others: share of frames whose phone
                    is guessed wrong
    codec.py distil --sound DIR --valid DIR [--steps 300]    two codecs, the same but for phones that one is taught
    codec.py use    --valid DIR [CODEC ...]                  how evenly the entries of each book are used
    codec.py curves --run NAME=RUN ...                       curves of training runs, and what twice the steps give

DIR are made by harmonica-flatten --stage codec, of splits train and valid, from speech whose phones are known. A
table on the screen, and all in --out (codec.json beside this file),
from where the notebook on the codec draws its pictures.
For everything else about a codec: harmonica-evaluate --wavs ROWS.jsonl --codec micro --asr WHISPER.
"""
import argparse, itertools, json
from pathlib import Path
import numpy as np, torch, torch.nn.functional as F
from harmonica import load_codec
from harmonica.crops import AudioCrops
from harmonica.microcodec import MicroCodec, MicroCodecConfig
from harmonica.phones import phone_classes
from harmonica.train import TrainConfig, Trainer

@torch.no_grad()
def frames(codec, folder, n, seed=0):
    "Vectors of book 0 and phones of at least `n` frames"
    crops, x, y, got = AudioCrops(folder, 8, 2.56, seed, spoil=0., phoned=1.), [], [], 0
    if not len(crops.taught):
        raise SystemExit(f"{folder}: no phones are known there; prepare manifests with phonemes and durations, or "
            f"leave --aligner at its default")
    for b in crops:
        z, known = codec.rvq.books[0][codec.to_codes(b.wav)[:,0]], b.phones >= 0
        x.append(z[known])
        y.append(b.phones[known])
        got += len(x[-1])
        if got >= n: return torch.cat(x), torch.cat(y)

def probe(codec, sound, valid, n=60000, steps=600):
    "Share of frames of unheard speakers whose phone a linear layer takes for another"
    codec = codec.eval()
    torch.manual_seed(0)
    (x, y), (xv, yv) = frames(codec, sound, n), frames(codec, valid, n//4, 1)
    mid, far = x.mean(0), x.std(0)+1e-6
    layer = torch.nn.Linear(x.shape[1], len(phone_classes))
    opt = torch.optim.AdamW(layer.parameters(), 3e-2, weight_decay=1e-4)
    for s in range(steps):
        for g in opt.param_groups: g["lr"] = 3e-2*(1-s/steps)
        i = torch.randint(len(x), (4096,))
        F.cross_entropy(layer((x[i]-mid)/far), y[i]).backward()
        opt.step()
        opt.zero_grad()
    with torch.no_grad(): wrong = layer((xv-mid)/far).argmax(-1) != yv
    guess = torch.bincount(y).argmax()
    return dict(error=round(float(wrong.float().mean()), 4),
        error_of_speech=round(float(wrong[yv > 0].float().mean()), 4),
        always_the_commonest=round(float((yv != guess).float().mean()), 4), frames=len(yv))

def distil(a):
    "The same codec with and without phones to tell, from the same first weights"
    out = {}
    for name,n_phones in (("taught phones", len(phone_classes)), ("not taught", 0)):
        torch.manual_seed(0)
        model = MicroCodec(MicroCodecConfig(n_phones=n_phones))
        valid = list(itertools.islice(iter(AudioCrops(a.valid, 16, 1.28, 1, spoil=0.)), 4))
        cfg = TrainConfig(lr=7e-4, max_steps=a.steps, warmup_steps=min(50, a.steps//4), grad_accum_steps=1, ema=.99,
            precision=a.precision, valid_every=a.steps)
        t = Trainer(model, AudioCrops(a.sound, 16, 1.28), cfg, Path(a.runs)/f"distil-{n_phones}", "cpu", valid=valid)
        t.fit((t.folder/"last.pt").exists())
        out[name] = dict(probe(t.ema, a.sound, a.valid), mel_distance=round(t.validate()["valid_mel"], 4), steps=t.step)
    return out

@torch.no_grad()
def use(codec, valid, ranks=33):
    "Entries used in each book, perplexity, and how often the commonest, ..., the rarest entry comes"
    codec, audio, index = codec.eval(), np.memmap(Path(valid)/"audio.i16", "<i2", "r"), [json.loads(l)
        for l in open(Path(valid)/"index.jsonl")]
    n, hop = torch.zeros(codec.n_q, codec.codebook_size), round(codec.sample_rate/codec.frame_rate)
    for r in index:
        x = torch.from_numpy(audio[r["at"]*hop:(r["at"]+r["frames"])*hop].astype(np.float32)/32768)
        for j,c in enumerate(codec.to_codes(x[None])[0]): n[j] += torch.bincount(c, minlength=codec.codebook_size)
    p = n/n.sum(1, keepdim=True)
    at = np.linspace(0, codec.codebook_size-1, ranks).astype(int)
    return dict(frames=int(n[0].sum()), used=[round(float(v), 4) for v in (n > 0).float().mean(1)],
        perplexity=[round(float(v), 1) for v in (-(p*(p+1e-12).log()).sum(1)).exp()], rank=at.tolist(),
        share=[[float(f"{v:.3g}") for v in row.sort(descending=True).values[at]] for row in p])

def curves(run, points=50):
    ("What a run's log says, thinned; and a + b/steps^c through the measured losses, to say what twice the steps would "
        "give")
    from scipy.optimize import curve_fit
    log = [json.loads(l) for l in open(Path(run)/"log.jsonl")]
    heard = [r for r in log if r.get("seconds")][-1]
    out = dict(seconds_an_update=round(heard["seconds"]/heard["step"], 1))
    for k in dict.fromkeys(k for r in log for k in r if k in ("loss_code", "mel", "feature_matching", "critic_loss",
        "valid_mel", "valid_loss_code", "valid_loss", "loss_1", "loss_2", "loss_3", "top10", "valid_top10")):
        x, y = np.array([(r["step"], r[k]) for r in log if k in r and np.isfinite(r[k])]).T
        cuts = np.array_split(np.arange(len(x)), min(points, len(x)))
        out[k] = dict(step=[int(x[c].mean()) for c in cuts], value=[round(float(y[c].mean()), 4) for c in cuts])
        if k.startswith("valid") and "top" not in k and len(x) > 3:
            (a, b, c), _ = curve_fit(lambda n, a, b, c: a+b*(n/x[0])**-c, x, y, (y.min()*.9, y[0]-y.min(), .5),
                bounds=([0, 0, .05], [np.inf, np.inf, 3]), maxfev=20000)
            now, then = (a+b*(n/x[0])**-c for n in (x[-1], 2*x[-1]))
            out[k]["fit"] = {n: round(float(v), 4)
                for n,v in dict(floor=a, exponent=c, now=now, twice_the_steps=then).items()}
    return out

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kind", choices=("probe", "distil", "use", "curves"))
    p.add_argument("codecs", nargs="*", default=["micro"])
    p.add_argument("--sound")
    p.add_argument("--valid")
    p.add_argument("--run", nargs="*", default=[])
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--precision", default="auto")
    p.add_argument("--runs", default="runs/codec", help="folder for what distil trains")
    p.add_argument("--out", default=str(Path(__file__).parent/"codec.json"))
    a = p.parse_args()
    for need,kinds in (("sound", ("probe", "distil")), ("valid", ("probe", "distil", "use")), ("run", ("curves",))):
        if a.kind in kinds and not getattr(a, need): p.error(f"{a.kind} wants --{need}")
    if a.kind == "distil": found = distil(a)
    elif a.kind == "curves": found = {n: curves(r) for n,_,r in (x.partition("=") for x in a.run)}
    else:
        found = {c: probe(load_codec(c), a.sound, a.valid) if a.kind == "probe" else use(load_codec(c), a.valid)
            for c in a.codecs}
    for name,r in found.items():
        short = lambda v: v.get("fit", "...") if isinstance(v, dict) else str(v)[:150]
        print(name, *(f"  {k}: {short(v)}" for k,v in r.items()), sep="\n")
    out = Path(a.out)
    kept = json.loads(out.read_text()) if out.exists() else {}
    out.write_text(json.dumps({**kept, a.kind: {**kept.get(a.kind, {}), **found} if a.kind == "curves" else found})
        +"\n")
    print(out)

if __name__ == "__main__": main()
