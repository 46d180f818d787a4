#!/usr/bin/env python3
"""Do the words stand in book 0? A linear probe tells the phone of a frame from the entry that book 0 chose for it.

    codec.py probe  --sound DIR --valid DIR [CODEC ...]      the packaged codec, or others: share of frames whose phone is guessed wrong
    codec.py distil --sound DIR --valid DIR [--steps 300]    two codecs from nothing, the same but for the phones that one is taught: what do they give?

DIR are made by harmonica-preprocess --codec none, of splits train and valid, from speech whose phones are known. A table on the screen, and KIND.json beside --out.
For everything else about a codec: harmonica-evaluate --wavs ROWS.jsonl --codec micro --asr WHISPER.
"""
import argparse, itertools, json
from pathlib import Path
import numpy as np, torch, torch.nn.functional as F
from harmonica import load_codec
from harmonica.microcodec import AudioCrops, MicroCodec, MicroCodecConfig, phone_classes
from harmonica.train import TrainConfig, Trainer

@torch.no_grad()
def frames(codec, folder, n, seed=0):
    "Vectors of book 0 and phones of at least `n` frames"
    crops, x, y, got = AudioCrops(folder, 8, 2.56, seed, spoil=0., phoned=1.), [], [], 0
    if not len(crops.taught): raise SystemExit(f"{folder}: no phones are known there; prepare manifests with phonemes and durations, or leave --aligner at its default")
    for b in crops:
        z, known = codec.rvq.books[0][codec.to_codes(b.wav)[:,0]], b.phones >= 0
        x.append(z[known]); y.append(b.phones[known]); got += len(x[-1])
        if got >= n: return torch.cat(x), torch.cat(y)

def probe(codec, sound, valid, n=60000, steps=600):
    "Share of frames of unheard speakers whose phone a linear layer takes for another"
    codec = codec.eval(); torch.manual_seed(0)
    (x, y), (xv, yv) = frames(codec, sound, n), frames(codec, valid, n//4, 1)
    mid, far = x.mean(0), x.std(0)+1e-6
    layer = torch.nn.Linear(x.shape[1], len(phone_classes)); opt = torch.optim.AdamW(layer.parameters(), 3e-2, weight_decay=1e-4)
    for s in range(steps):
        for g in opt.param_groups: g["lr"] = 3e-2*(1-s/steps)
        i = torch.randint(len(x), (4096,))
        F.cross_entropy(layer((x[i]-mid)/far), y[i]).backward(); opt.step(); opt.zero_grad()
    with torch.no_grad(): wrong = layer((xv-mid)/far).argmax(-1) != yv
    guess = torch.bincount(y).argmax()
    return dict(error=round(float(wrong.float().mean()), 4), error_of_speech=round(float(wrong[yv > 0].float().mean()), 4), always_the_commonest=round(float((yv != guess).float().mean()), 4), frames=len(yv))

def distil(a):
    "The same codec with and without phones to tell, from the same first weights"
    out = {}
    for name,n_phones in (("taught phones", len(phone_classes)), ("not taught", 0)):
        torch.manual_seed(0); model = MicroCodec(MicroCodecConfig(n_phones=n_phones))
        valid = list(itertools.islice(iter(AudioCrops(a.valid, 16, 1.28, 1, spoil=0.)), 4))
        cfg = TrainConfig(lr=7e-4, max_steps=a.steps, warmup_steps=min(50, a.steps//4), grad_accum_steps=1, ema=.99, precision=a.precision, valid_every=a.steps)
        t = Trainer(model, AudioCrops(a.sound, 16, 1.28), cfg, Path(a.out)/f"distil-{n_phones}", "cpu", valid=valid)
        t.fit((t.folder/"last.pt").exists())
        out[name] = dict(probe(t.ema, a.sound, a.valid), mel_distance=round(t.validate()["valid_mel"], 4), steps=t.step)
    return out

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kind", choices=("probe", "distil")); p.add_argument("codecs", nargs="*", default=["micro"]); p.add_argument("--sound", required=True); p.add_argument("--valid", required=True)
    p.add_argument("--steps", type=int, default=300); p.add_argument("--precision", default="auto"); p.add_argument("--out", default="runs/codec")
    a = p.parse_args()
    found = distil(a) if a.kind == "distil" else {c: probe(load_codec(c), a.sound, a.valid) for c in a.codecs}
    for name,r in found.items(): print(f"{name:24}", *(f"{k} {v}" for k,v in r.items()), sep="  ")
    out = Path(a.out); out.mkdir(parents=True, exist_ok=True); (out/f"{a.kind}.json").write_text(json.dumps(found, indent=1)); print(out/f"{a.kind}.json")

if __name__ == "__main__": main()
