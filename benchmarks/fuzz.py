"""Broken files: does any reader answer with something else than a result or one plain ValueError?

    python benchmarks/fuzz.py                       500 byte flips and 500 structure flips of each kind of file
    python benchmarks/fuzz.py --count 5000          5,000 of each
    python benchmarks/fuzz.py --only cache model    some kinds
    python benchmarks/fuzz.py --seed 3 --seconds 600 --json benchmarks/fuzz.json
                                                    10 minutes' worth, added to what was done with other seeds

Kinds: manifest, config, checkpoint, model, voice, cache, archive, audio, testset, lexicon, report, codes, text. Prints,
for each, how many were read, refused, and escaped, and the slowest one (CPU seconds); over 5 s escapes, too.
An input that never ends shows where it stands after a minute."""
import argparse, collections, copy, faulthandler, functools, io, json, random
import resource, sys, tarfile, tempfile, time, warnings, zipfile
from pathlib import Path
import numpy as np
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save
from harmonica.ar import AR, ARConfig
from harmonica.checkpoint import load_checkpoint, load_model, save_checkpoint, save_model
from harmonica.codec import Clip, load_codec, packaged_voice, reference
from harmonica.config import load_config
from harmonica.corpora import manifest
from harmonica.data import CodesDataset, write_shard
from harmonica.download import unpack
from harmonica.eval import Report, read_rows
from harmonica.microcodec import MicroCodec, MicroCodecConfig
from harmonica.recipes import load_trained
from harmonica.text import Tokenizer, load_lexicon, normalize, sentences
sys.path.insert(0, str(Path(__file__).parent))
from text import texts

ALL = ("manifest", "config", "checkpoint", "model", "voice", "cache", "archive", "audio", "testset", "lexicon",
    "report", "codes", "text")
ODD = [None, True, -1, 0, 10**30, 1.5, float("nan"), "", "x", "\ud800", [], [1, "a"], {}, {"a": 1}]


def flip_bytes(data, rng):
    "Some bytes changed, a piece cut out, doubled or put in"
    b, n = bytearray(data), max(1, len(data))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(n)
        how = rng.randrange(5)
        if how < 2 and b: b[at % len(b)] = rng.randrange(256)
        elif how == 2: del b[at:at+rng.randint(1, 64)]
        elif how == 3: b[at:at] = b[at:at+rng.randint(1, 64)]
        else: b[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
        if rng.random() < .1: del b[rng.randrange(len(b)+1):]
    return bytes(b)


def flip_tree(tree, rng):
    "A copy with one node replaced, dropped or doubled"
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 2)):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys: break
            k = rng.choice(keys)
            if isinstance(node[k], (dict, list)) and rng.random() < .8:
                node = node[k]
                continue
            how = rng.randrange(4)
            if how == 0: del node[k]
            elif how == 1 and isinstance(node[k], torch.Tensor):
                node[k] = rng.choice([node[k].reshape(-1)[:1], node[k].bool(), node[k][None], torch.tensor(0)])
            elif how == 2 and isinstance(node, dict): node[str(k)+"x"] = node.pop(k)
            else: node[k] = copy.deepcopy(rng.choice(ODD))
            break
    return tree


class Kind:
    "Files of one kind: where, how to break them, how to read them"
    def __init__(self, path, read, tree=None, dump=None, make=None):
        self.path, self.read, self.tree, self.dump, self.make = path, read, tree, dump, make

    def broken(self, good, i, rng):
        "The i-th input: bytes flipped or, every other time, the structure"
        if self.make: return self.make(rng)
        if self.tree is None or i%2: return flip_bytes(good, rng)
        return self.dump(flip_tree(self.tree, rng))


def text_dump(make): return lambda t: make(t).encode(errors="surrogatepass")


def kinds(d):
    "One sound file of each kind below `d`"
    out, rows = {}, [dict(audio=f"{i}.wav", text=f'say "{i}", then', speaker="s", split="train", seconds=1.5)
        for i in range(4)]
    (d/"m.jsonl").write_text("".join(json.dumps(r)+"\n" for r in rows))
    (d/"m.csv").write_text("audio,text\n"+"".join(f'{i}.wav,"say ""{i}"", then"\n' for i in range(4)))
    (d/"m.tsv").write_text("audio\ttext\n"+"".join(f"{i}.wav\tsay {i}\n" for i in range(4)))
    out["manifest"] = [Kind(d/"m.jsonl", lambda p: list(manifest(p)), rows,
        text_dump(lambda t: "".join(json.dumps(r)+"\n" for r in t))),
        *(Kind(d/f"m.{k}", lambda p: list(manifest(p))) for k in ("csv", "tsv"))]
    conf = dict(base="micro", training=dict(lr=1e-4, max_steps=10), model=dict(ar=dict(d_model=64, n_heads=2)),
        data=dict(prompt_seconds=[1, 3]), stages=dict(ar=dict(lr=.1)))
    (d/"c.yaml").write_text(yaml.safe_dump(conf))
    out["config"] = [Kind(d/"c.yaml", load_config, conf, text_dump(lambda t: yaml.safe_dump(t, allow_unicode=True)))]
    small = dict(vocab_size=40, n_q=2, n_bins=16, d_model=16, n_heads=2, n_layers=1, d_ff=16, code_dim=4, speaker_dim=8,
        duration_hidden_dim=8)
    model = AR(ARConfig(**small))
    save_model(d/"ar.safetensors", model, codec="x", codec_hash="y")
    opt = torch.optim.AdamW(model.parameters())
    for p in model.parameters(): p.grad = torch.zeros_like(p)
    opt.step()
    save_checkpoint(d/"r.pt", model, opt=opt, step=3)
    ck = torch.load(d/"r.pt", weights_only=True)
    def pt(t):
        f = io.BytesIO()
        torch.save(t, f)
        return f.getvalue()
    def resume(p):
        m = AR(ARConfig(**small))
        load_checkpoint(p, m, opt=torch.optim.AdamW(m.parameters()))
        return load_trained(p, "ar")
    plain = json.loads(json.dumps({k: v for k,v in ck.items() if k in ("step", "kind", "config", "version")}))
    out["checkpoint"] = [Kind(d/"r.pt", resume, {**ck, **plain}, pt)]
    with safe_open(d/"ar.safetensors", "pt") as f:
        meta, tensors = f.metadata(), {k: f.get_tensor(k).clone() for k in f.keys()}
    tree = dict(kind=meta["kind"], config=json.loads(meta["config"]), info=json.loads(meta["info"]), tensors=tensors)
    def st(t):
        m = {k: v if isinstance(v, str) else json.dumps(v, default=str) for k,v in t.items() if k != "tensors"}
        ts = t.get("tensors") if isinstance(t.get("tensors"), dict) else {}
        return save({str(k): v.contiguous() for k,v in ts.items() if isinstance(v, torch.Tensor)},
            {k: v.encode(errors="replace").decode() for k,v in m.items()})
    out["model"] = [Kind(d/"ar.safetensors", load_model, tree, st)]
    (d/"cache").mkdir()
    card = dict(version=1, codec="toy", codec_hash="0"*12, frame_rate=50, sample_rate=24000, n_q=2, codebook_size=16)
    (d/"cache/card.json").write_text(json.dumps(card))
    write_shard([dict(id=f"u{i}", text=f"text {i}", speaker="s", source="x", split="train", seconds=1., n_frames=50+i,
        codes=np.zeros(100+2*i, np.int16)) for i in range(6)], d/"cache/000-of-001-00000.arrow")
    def cache(p):
        ds = CodesDataset(d/"cache", None)
        return [ds[i] for i in range(len(ds))]
    out["cache"] = [Kind(d/"cache/card.json", cache, card, text_dump(json.dumps)),
        Kind(d/"cache/000-of-001-00000.arrow", cache)]
    with zipfile.ZipFile(d/"a.zip", "w") as z: z.writestr("x/a.txt", "hello"*50)
    with tarfile.open(d/"a.tar.gz", "w:gz") as t: t.add(d/"m.csv", "x/m.csv")
    out["archive"] = [Kind(d/n, lambda p: unpack(p, d/"unpacked")) for n in ("a.zip", "a.tar.gz")]
    out["voice"] = [Kind(made_voice(d), read_voice)]
    out["audio"] = sounds(d)
    items = [dict(text=f"say {i}", wav=f"{i}.wav", prompt="p.wav", speaker="s", split="valid") for i in range(3)]
    lines = text_dump(lambda t: "".join(json.dumps(r)+"\n" for r in t))
    (d/"items.jsonl").write_bytes(lines(items))
    out["testset"] = [Kind(d/"items.jsonl", lambda p: read_rows(str(p)), items, lines)]
    (d/"lexicon.txt").write_text("# words\nNguyen\tnwin\nSQL = sequel\nschwa\t[[ʃwˈɑ]]\n", encoding="utf-8")
    out["lexicon"] = [Kind(d/"lexicon.txt", load_lexicon)]
    results = dict(schema="harmonica-results", version=1, kind="speech", name="a", settings=dict(seed=0),
        not_measured={}, n=1, failure_rates=dict(any=.1), overall=dict(wer=dict(value=.1, low=None, high=None)),
        items=[dict(id="a", text="x", seconds=1.)])
    (d/"results.json").write_text(json.dumps(results))
    out["report"] = [Kind(d/"results.json", lambda p: Report.load(p).overall, results, text_dump(json.dumps))]
    codes = dict(codes=[[1, 2, 3, 4], [5, 6, 7, 8]], dtype="int64")
    (d/"codes.json").write_text(json.dumps(codes))
    out["codes"] = [Kind(d/"codes.json", read_codes, codes, text_dump(json.dumps))]
    (d/"text.txt").write_text("Good morning.")
    out["text"] = [Kind(d/"text.txt", read_as_text, make=some_text)]
    return out


def sounds(d):
    "A second of tone in each format that is read"
    x = .3*np.sin(np.arange(16000)/9).astype(np.float32)
    files = [Clip(x, 16000).save(d/f"sound.{k}") for k in ("wav", "flac", "ogg", "opus", "mp3")]
    return [Kind(f, Clip.load) for f in files]+[Kind(files[0], reference), Kind(files[3], reference)]


@functools.cache
def small_codec():
    return load_codec(MicroCodec(MicroCodecConfig(n_q=2, n_bins=16, code_dim=8, enc_dim=16, enc_layers=1, dec_dim=16,
        dec_layers=1)))


def read_codes(p):
    "Decode what a file says; what is no tensor at all never reaches a codec"
    try:
        said = json.loads(p.read_bytes())
        codes = torch.tensor(said["codes"], dtype=getattr(torch, said.get("dtype", "int64")))
    except Exception as e: raise ValueError(f"no tensor ({type(e).__name__})") from None
    return small_codec().decode(codes)


def some_text(rng): return next(texts(1, rng.randrange(2**32))).encode(errors="surrogatepass")


@functools.cache
def tokenizer(): return Tokenizer()


def read_as_text(p):
    text = p.read_bytes().decode(errors="surrogatepass")
    said = normalize(text)
    sentences(said)
    if len(text)%20 == 0: tokenizer().encode(said, normalized=True) # the dictionary is slower, and is asked about some


def made_voice(d):
    "A saved voice of the packaged models"
    from harmonica import Voice
    global speaker
    speaker = Voice.load()
    speaker.like(str(packaged_voice())).save(d/"me.voice")
    return d/"me.voice"


def read_voice(p):
    from harmonica import Voice
    return Voice.load(p, codec=speaker.codec, ar=speaker.ar, nar=speaker.nar)


def memory_MB(): return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3)   # the most it ever was


def run(count, only=(), seed=0, say=print, seconds=None):
    ("kind -> Counter of read, refused and escaped; the slowest input (CPU seconds) and the memory of the process (MB) "
        "stand in it, too")
    total, before = {}, memory_MB()   # other tests of the same process may have needed more
    with tempfile.TemporaryDirectory() as tmp, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = kinds(Path(tmp)) if not only or "voice" in only else without_voice(Path(tmp))
        found = {k: v for k,v in found.items() if not only or k in only}
        for name,files in found.items():
            n, rng, until = collections.Counter(), random.Random(f"{seed} {name}"), time.time()+(seconds
                or 1e9)/len(found)
            slowest, good = 0., {f: f.path.read_bytes() for f in files}
            for i in range(count*max(1+bool(f.tree) for f in files)):
                if time.time() > until: break
                f, began = files[i%len(files)], time.process_time()
                f.path.unlink() # what was read may still be mapped
                f.path.write_bytes(f.broken(good[f], i//len(files), rng))
                faulthandler.dump_traceback_later(60, exit=True)
                try:
                    f.read(f.path)
                    n["read"] += 1
                except ValueError as e:
                    n["refused" if "\n" not in str(e) else "escaped: a ValueError of several lines"] += 1
                except Exception as e: n[f"escaped: {type(e).__name__}: {str(e)[:60]}"] += 1
                faulthandler.cancel_dump_traceback_later()
                took = time.process_time()-began
                slowest = max(slowest, took)
                if took > 5: n["escaped: slower than 5 s"] += 1
                f.path.write_bytes(good[f])
            n["slowest_s"], n["memory_MB"] = round(slowest, 3), memory_MB()
            if n["memory_MB"] > max(1000, before+200): n["escaped: more than 1 GB of memory"] += 1
            total[name] = n
            say(f"{name:12} {n['read']} read, {n['refused']} refused, {escaped(n)} escaped; the slowest "
                f"{n['slowest_s']} s; {n['memory_MB']} MB", flush=True)
            for k,v in n.most_common():
                if k.startswith("escaped"): say(f"    {v} {k}")
    return total


def escaped(n): return sum(v for k,v in n.items() if k.startswith("escaped"))


def keep(path, seed, total):
    "Add what was counted to a file: a seed's kinds stand for themselves, and are replaced where they are run again"
    path = Path(path)
    have = json.loads(path.read_text()) if path.exists() else {}
    for k,n in total.items():
        row = dict(inputs=n["read"]+n["refused"]+escaped(n), read=n["read"], refused=n["refused"], escaped=escaped(n))
        have.setdefault(k, {})[str(seed)] = dict(row, slowest_s=n["slowest_s"], memory_MB=n["memory_MB"])
    path.write_text(json.dumps(have, indent=1)+"\n")


def without_voice(d):
    global made_voice
    keep, made_voice = made_voice, lambda d: d/"none"
    try: return kinds(d)
    finally: made_voice = keep


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=500,
        help="byte flips of each kind, and as many structure flips where there is a structure")
    p.add_argument("--only", nargs="*", default=(), help="kinds of file")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, help="stop after so long, shared among the kinds")
    p.add_argument("--json", help="add the counts to this file, such as benchmarks/fuzz.json")
    a = p.parse_args()
    all = run(a.count, a.only, a.seed, seconds=a.seconds)
    if a.json: keep(a.json, a.seed, all)
    sys.exit(any(map(escaped, all.values())))
