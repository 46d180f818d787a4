#!/usr/bin/env python3
"""What the packaged voice needs, and what it can't do, measured.

    voice.py prompts   ITEMS [--asr FOLDER]     likeness and word errors by the length of the prompt: 1, 2, 3, 5 and 10
                       s
    voice.py ablations ITEMS [--asr FOLDER]     without prompt, speaker vector or durations; a NAR's means in place of
                                                the flow
    voice.py books     ITEMS [--asr FOLDER]     how many books the NAR should fill
    voice.py draws     ITEMS [--asr FOLDER]     temperatures, and repetition-aware sampling
    voice.py guidance  ITEMS [--asr FOLDER]     how far the flow should go towards the prompt's voice
    voice.py steps     ITEMS [--asr FOLDER]     how many steps the flow should take
    voice.py noise     ITEMS [--asr FOLDER]     how much noise it should begin with (these three mean nothing for a flow
                       that was distilled, as the packaged one: it knows one way)
    voice.py tuning    ITEMS [--asr FOLDER]     what each correction that a voice learns from its prompt is worth
    voice.py means     ITEMS                    recordings (rows with wav, text, speaker) repainted by the NAR from
                       their true book 0: likeliest codes, mean vectors book by book, all in one stroke
    voice.py ladder    ITEMS [--asr FOLDER]     recordings (rows as for means) with ever more of them replaced by what
                       the models make: where are words, voice and quality lost?
    voice.py copy      ITEMS [--asr FOLDER] [--codec mel]   recordings (rows as for means) through codecs and back: the
                       micro codec; the mel codec's latents, before and after training, and its 8 books
    voice.py nearest   ITEMS                    a clip a speaker, recorded and made, against all prompts (67_likeness)
    voice.py first     ITEMS                    time to the first sound when streaming in chunks, to whole sentences,
                       and to know a new voice (wants a machine that does nothing else)
    voice.py voices    CANDIDATES [--asr FOLDER] recordings (rows with audio or wav, and speaker) as voices to package:
                       how well does each clone?
    voice.py hard      [--reference me.wav] --asr FOLDER     the forty sentences of hard.txt: which are lost?

ITEMS is a .jsonl with text and prompt in each row, and speaker (who speaks the prompt) where it is known. Tables on the
screen, the last with one line a variant, and the figures (value, and bounds of 95%) as KIND.json in the folder --out.
"""
import argparse, json, statistics, time
from dataclasses import replace
from pathlib import Path
import torch
from harmonica import Clip, Voice
from harmonica.checkpoint import load_model, packaged_weights
from harmonica.codec import load_codec, packaged_voice, reference as best_part
from harmonica.eval import evaluate, read_rows
from harmonica.judges import Judges
from harmonica.infer import Sampling
from harmonica.likeness import DVector, GE2E, flat
from harmonica.melcodec import MelCodec
from harmonica.microcodec import mel_loss
from harmonica.text import normalize

def figures(rep):
    return {k: [round(v[x], 4) for x in ("value", "low", "high")]
        for k,v in rep.results["overall"].items() if v["value"] is not None}

def sentences(path, n=None):
    "Rows to speak, thinned to about n; the prompts' own texts are not given away"
    rows = read_rows(path)
    rows = rows[::max(1, len(rows)//n)] if n else rows
    for r in rows: r.pop("prompt_text", None)
    return rows

def save(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k,v in found.items()) + "\n}\n")

COLUMNS = dict(wer="words wrong %", sim_prompt_ge2e_flat="flat GE2E", sim_prompt_dvec_flat="flat d-vec.",
    nearest_ge2e="nearest GE2E %", nearest_dvec="nearest d-vec. %", sim_prompt_ge2e="GE2E", sim_prompt_dvec="d-vector",
    lost="lost %")

def table(found):
    "One line a variant: what an equaliser can't move comes first"
    keys, wide = [k for k in COLUMNS if any(k in f for f in found.values())], max(map(len, found))
    cell = lambda f, k: "-" if k not in f else f"{100*f[k][0]:.1f}" if COLUMNS[k].endswith("%") else f"{f[k][0]:.3f}"
    line = lambda name, cells: f"{name:{wide}}  " + "  ".join(f"{c:>{len(COLUMNS[k])}}" for k,c in zip(keys, cells))
    head = line("", [COLUMNS[k] for k in keys])
    return "\n".join([head, *(line(name, [cell(f, k) for k in keys]) for name,f in found.items())])

class Speaker:
    "A Voice with some of its habits changed, as `evaluate` wants it"
    def __init__(self, voice, before=lambda v, reference: v, **how):
        self.voice, self.before, self.how = voice, before, how
    def say(self, text, reference=None, reference_text=None, seed=0, **kw):
        v = self.voice.like(reference)
        return self.before(v, reference).say(text, seed=seed, **{**self.how, **kw})

def regression(): return Voice.load(nar=packaged_weights("nar"))   # the packaged NAR's means in place of the flow

def mute_speaker(v, reference):
    "The speaker vector of nobody"
    for m in (v.ar, v.nar): m.speaker.forward = lambda prompt, *_, s=m.speaker: s.null_speaker.expand(len(prompt), -1)
    return v

def no_prompt(v, reference):
    v.prompt.codes = v.prompt.codes[:,:0]
    if v.flows: v.prompt.latents = v.prompt.latents[:0]
    return v.calibrate()

def nothing_to_paint_from(v, reference):
    "The AR hears the prompt, the flow does not"
    v.prompt.latents = v.prompt.latents[:0]
    return v

def no_durations(v, reference):
    "Every symbol takes equally long"
    inner = v.ar.length.predict
    v.ar.length.predict.forward = lambda x, n, s, f=type(inner).forward: (
        lambda d: (d>0)*d.sum(1, keepdim=True)/(d>0).sum(1, keepdim=True))(f(inner, x, n, s))
    return v

def calibrated(**how): return lambda v, reference: v.calibrate(**how)
UNTUNED = dict(mean=False, spread=0., tone=False)

def seconds(n):
    def cut(v, reference):
        heard = best_part(reference, v.prompt_seconds, v.codec.sample_rate)[0]
        if v.flows: v.prompt.latents = v.prompt.latents[:v.codec.frames(n)]
        v.prompt.codes, v.prompt.timbre = v.prompt.codes[:,:v.codec.frames(n)], v.codec.timbre(
            torch.from_numpy(heard.cut(0, n).samples))
        return v.calibrate()
    return cut

def books(n):
    def few(v, reference):
        v.n_books = n
        return v
    return few

def painted(**how): # steps, guidance, temperature
    def change(v, reference):
        v.painting = {**v.painting, **how}
        return v
    return change

def pairs(rows):
    "Each recording and the next of the same speaker"
    by = {}
    for r in rows: by.setdefault(r.get("speaker"), []).append(r)
    return [p for mine in by.values() for p in zip(mine, mine[1:])]

def means(rows):
    "Distances from all true books: of log-mel spectrograms, and of vectors (squared)"
    v, aligner, mel, far = regression(), load_model(packaged_weights("aligner")), mel_loss, {}
    at_once, v.nar.stroke = v.nar.stroke, None
    hear = lambda z: torch.from_numpy(v.codec.decode_vectors(z).samples)[None]
    for r,other in pairs(rows):
        clip = Clip.load(r["wav"]).tidy()
        codes = v.codec.encode(clip)
        when = aligner.durations(clip, r["text"], v.codec.frame_rate, codes.shape[1])
        if not when: continue
        true, request = v.codec.vectors(codes), v.like(other["wav"]).request(normalize(r["text"]))
        def paint(k): return v.nar.generate(request, [codes[0]], [torch.tensor(when)], k, entries=v.codec.entries)[0]
        def note(k, name, z):
            far.setdefault((k, name), []).append((float(mel(hear(z), hear(true))), float((z-true).pow(2).mean())))
        for k in (1, 2, 3, 4, 8):
            likeliest, mean = paint(k)
            for name,z in zip(("true", "likeliest", "mean"),
                (v.codec.vectors(codes[:k]), v.codec.vectors(likeliest), mean)): note(k, name, z)
        if at_once is not None:
            v.nar.stroke = at_once
            note(8, "one stroke", paint(1)[1])
            v.nar.stroke = None
    print("books  true  likeliest  mean  one stroke   (distance of log-mel spectrograms / of vectors, "
        f"{len(far[1, 'true'])} recordings)")
    for k in (1, 2, 3, 4, 8):
        print(f"{k:5}", *("{:8.3f} / {:.4f}".format(*(sum(x)/len(x) for x in zip(*far[k,n])))
            for n in ("true", "likeliest", "mean", "one stroke") if (k,n) in far))

def ladder(rows):
    ("Rung by rung from a recording to a sentence that is wholly made: rows for `evaluate`, in the voice of the "
        "speaker's recording before")
    v, aligner, rungs = Voice.load(), load_model(packaged_weights("aligner")), {}
    for other,r in pairs(rows):
        clip, me = Clip.load(r["wav"]).tidy(v.codec.sample_rate), v.like(other["wav"])
        codes, request = v.codec.encode(clip), me.request(normalize(r["text"]))
        when = torch.tensor(aligner.durations(clip, r["text"], v.codec.frame_rate, codes.shape[1]))
        if len(when) != request.text_len: continue                      # what is said is not what is written
        timed = replace(request, durations=when[None].float())          # the AR takes these durations for its own
        first, _ = me.predict_coarse(timed, Sampling(), torch.Generator().manual_seed(0), soft=True)
        paint = lambda book0: me.decode(me.predict_fine(request, book0, when)[1])
        with torch.no_grad(): before = v.codec.latents(torch.from_numpy(clip.samples)[None])[0]
        made = {"the recording": clip, "the codec's vectors, before the books": v.codec.decode_vectors(before),
            "all true codes": v.codec.decode(codes), "true codes of 4 books": v.codec.decode(codes[:4]),
            "book 0 and durations true, the rest painted": paint(codes[0]), "only durations true": paint(first),
            "nothing true but the words": me.say(r["text"])}
        if v.flows:
            true, painted = v.vocoder.analyse(clip), me.predict_fine(request, codes[0], when)[1]
            made["true latents of the vocoder"] = v.vocoder.decode_vectors(true)
            for a,b in ((0, 12), (12, 32), (32, 48), (48, 52)):   # which of the numbers are the speaker's?
                some, n = painted.clone(), min(len(true), len(painted))
                some[:n,a:b] = true[:n,a:b]
                made[f"book 0, durations and numbers {a} to {b-1} true"] = v.vocoder.decode_vectors(some)
        for k,c in made.items():
            row = dict(wav=c, text=r["text"], prompt=other["wav"], speaker=r.get("speaker"))
            rungs.setdefault(k, []).append(dict(row, id=str(len(rungs.get(k, [])))))
    return rungs

def copies(rows, mel):
    "Recordings through codecs and back: rows for `evaluate`, likeness to another recording of the speaker"
    micro, mel, made = load_codec("micro"), load_codec(mel), {}
    plain = MelCodec(mel.cfg).eval()
    plain.load_state_dict({k: v for k,v in mel.state_dict().items() if k in ("mean", "basis", "spread")}, strict=False)
    def vocoded(codec, z):
        with torch.no_grad(): return Clip(codec.vocode(z[None])[0].clamp(-1, 1).numpy())
    for other,r in pairs(rows):
        clip = Clip.load(r["wav"]).tidy()
        z = mel.analyse(clip)
        for name,copy in {"the recording": clip, "micro, 8 books": micro.decode(micro.encode(clip)),
            "mel, untrained": vocoded(plain, z), "mel": vocoded(mel, z),
            "mel, 8 books": mel.decode(mel.encode(clip))}.items():
            mine = made.setdefault(name, [])
            mine.append(dict(wav=copy, original=clip, text=r["text"], prompt=other["wav"], speaker=r.get("speaker"),
                id=str(len(mine))))
    return made

def nearest(rows):
    "Flat likeness to each speaker's prompt, of another recording of each and of the packaged voice as each"
    by, found = {}, {}
    for r in rows: by.setdefault(r["speaker"], {}).setdefault(r["prompt"], r)
    pairs, voice = [list(prompts.values())[:2] for prompts in by.values() if len(prompts) > 1], Voice.load()
    made = {"recordings": [Clip.load(other["prompt"]) for _,other in pairs],
        "the packaged voice": [voice.say(r["text"], reference=r["prompt"], seed=0) for r,_ in pairs]}
    for k,encoder in dict(ge2e=GE2E(), dvec=DVector()).items():
        asked = [encoder(flat(Clip.load(r["prompt"]))) for r,_ in pairs]
        for name,clips in made.items():
            like = [[round(float(v@p), 3) for p in asked] for v in (encoder(flat(c)) for c in clips)]
            found.setdefault(name, {})[k] = like
            own = sum(row[i] >= max(row) for i,row in enumerate(like))
            print(f"{name}, {k}: own prompt nearest {own} of {len(like)}")
    return found

def first(rows, chunks=(.1, .2, .3, None)):
    ("Milliseconds until there is sound, of sentences of a voice that is known already; and whether the rest comes in "
        "time")
    voice, voices, hearing, table = Voice.load(), [], [], {}
    voice.like(rows[0]["prompt"])                                           # everything is loaded now
    for r in rows:
        t = time.perf_counter()
        voices.append(voice.like(r["prompt"]))
        hearing.append(time.perf_counter()-t)
    next(voices[0].stream(rows[0]["text"], chunk=.2))
    for chunk in chunks:
        waits, gaps, rtf = [], 0, []
        for v,r in zip(voices, rows):
            t, heard = time.perf_counter(), 0.
            for i,c in enumerate(v.stream(r["text"], chunk=chunk)):
                now = time.perf_counter()-t
                if i == 0: waits.append(now)
                # a listener has heard all there was before this came
                elif now-waits[-1] > heard: gaps += 1
                heard += c.seconds
            rtf.append(now/heard)
        table["whole sentences" if chunk is None else f"chunk {chunk:g} s"] = dict(
            first_ms=round(1000*statistics.median(waits)), worst_ms=round(1000*max(waits)), gaps=gaps,
            real_time_factor=round(statistics.median(rtf), 3), sentences=len(rows), threads=torch.get_num_threads())
    table["a new voice"] = dict(median_ms=round(1000*statistics.median(hearing)), worst_ms=round(1000*max(hearing)))
    for k,v in table.items(): print(f"{k:16}", *(f"{n} {x}" for n,x in v.items()), sep="  ")
    return table

SAMPLE = ("Tomorrow morning the market opens a little earlier than usual.",
    "I asked her where the old bridge had stood.", "Nine small boats came back before the storm reached the bay.",
    "It takes about twenty minutes, if you walk quickly.")

def candidates(rows, out, asr, scores):
    "Each recording says the same sentences in its voice: likeness and words a recording, the best first"
    items = [dict(id=f"{r.get('speaker') or r['id']}-{i}", set=r.get("speaker") or r["id"], text=t, prompt=r["wav"])
        for r in rows for i,t in enumerate(SAMPLE)]
    rep = evaluate(items, Voice.load(), out/"voices", Judges(scores, asr))
    mean = lambda its, k: statistics.mean(v) if (v := [it[k] for it in its if it.get(k) is not None]) else None
    by = {}
    for it in rep.items: by.setdefault(it["set"], []).append(it)
    keys = [k for k in ("sim_prompt_ge2e", "sim_prompt_dvec", "distillmos", "dnsmos_ovrl",
        "wer") if any(it.get(k) is not None for it in rep.items)]
    table = {who: dict({k: mean(its, k) for k in keys},
        failed=sum(any((it.get("failures") or {}).values()) for it in its)) for who,its in by.items()}
    table = dict(sorted(table.items(), key=lambda kv: -(kv[1].get("sim_prompt_ge2e")
        or 0)-(kv[1].get("sim_prompt_dvec") or 0)))
    for who,row in table.items():
        print(f"{who:20}", *(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k,v in row.items()), sep="  ")
    return table

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kind", choices=("prompts", "ablations", "books", "draws", "guidance", "steps", "noise", "tuning",
        "means", "ladder", "copy", "nearest", "first", "voices", "hard"))
    p.add_argument("items", nargs="?")
    p.add_argument("--asr", help="folder of a Whisper model, or its name")
    p.add_argument("--limit", type=int, default=40)
    p.add_argument("--reference", default=str(packaged_voice()))
    p.add_argument("--codec", default="mel", help="for copy: mel, or the path of such a codec")
    p.add_argument("--out", default=".")
    p.add_argument("--scores", default="ge2e,dvec")
    a = p.parse_args()
    if a.kind == "hard":
        items = [dict(id=f"hard-{i:02d}", text=t.strip(), prompt=a.reference)
            for i,t in enumerate(open(Path(__file__).parent/"hard.txt"))]
    elif not a.items: p.error("give ITEMS, a .jsonl file")
    else: items = sentences(a.items, None if a.kind in ("means", "ladder", "copy", "voices") else a.limit)
    found = {}
    if a.kind == "voices":
        return save(Path(a.out, "voices.json"), candidates(read_rows(a.items), Path(a.out), a.asr, a.scores))
    if a.kind in ("ladder", "copy"):
        for name,made in (ladder(items) if a.kind == "ladder" else copies(items, a.codec)).items():
            found[name] = dict(clips=len(made), **figures(rep := evaluate(made, None, judges=Judges(a.scores, a.asr),
                progress=False)))
            print(f"\n== {name}\n{rep}", flush=True)
        print(f"\n{table(found)}")
        return save(Path(a.out, f"{a.kind}.json"), found)
    if a.kind == "nearest": return save(Path(a.out, "nearest.json"), nearest(read_rows(a.items)))
    if a.kind == "means": return means(items)
    if a.kind == "first":
        Path(a.out, "first.json").write_text(json.dumps(first(items), indent=1))
        return
    variants = dict(hard=lambda: {"hard": Speaker(Voice.load())},
        prompts=lambda: {f"{n:g} s": Speaker(Voice.load(), seconds(n)) for n in (1,2,3,5,10)},
        ablations=lambda: {"whole": Speaker(Voice.load()), "no prompt": Speaker(Voice.load(), no_prompt),
        "no prompt for the flow": Speaker(Voice.load(), nothing_to_paint_from),
        "no speaker vector": Speaker(Voice.load(), mute_speaker),
        "equal durations": Speaker(Voice.load(), no_durations), "a NAR's means, no flow": Speaker(regression()),
        "these, not tuned": Speaker(regression(), calibrated(**UNTUNED))},
        books=lambda: {f"{n} books": Speaker(regression(), books(n)) for n in (1,2,3,4,6,8)},
        guidance=lambda: {f"guidance {g:g}": Speaker(Voice.load(), painted(guidance=g)) for g in (1., 1.5, 2., 3., 4.)},
        steps=lambda: {f"{n} steps": Speaker(Voice.load(), painted(steps=n)) for n in (2, 4, 6, 8, 16)},
        noise=lambda: {f"noise of {t:g}": Speaker(Voice.load(), painted(temperature=t)) for t in (.01, .4, .7, 1.)},
        tuning=lambda: {k: Speaker(regression(), calibrated(**how))
        for k,how in {"not tuned": UNTUNED, "gains": dict(mean=False, spread=0.), "mean, gains": dict(spread=0.),
        "mean, half the spread, gains": {}, "mean, spread, gains": dict(spread=1.)}.items()},
        draws=lambda: {f"temperature {t:g}": Speaker(Voice.load(), temperature=t)
        for t in (0., .3, .5, .8)} | {"repetition-aware": Speaker(Voice.load(), temperature=.8,
        ras_window=10)})[a.kind]()
    for name,voice in variants.items():
        rep = evaluate(items, voice, judges=Judges(a.scores, a.asr), progress=False)
        found[name] = figures(rep)
        print(f"\n== {name}\n{rep}", flush=True)
        if a.kind == "hard":
            found[name]["items"] = [{k: i.get(k) for k in ("id", "text", "heard", "wer", "failures")}
                for i in rep.items]
    out = Path(a.out)/f"{a.kind}.json"
    save(out, found)
    print(f"\n{table(found)}\n{out}")

if __name__ == "__main__": main()
