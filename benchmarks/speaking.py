#!/usr/bin/env python3
"""How a voice speaks much: side by side, and for long.

    speaking.py batch [--voice ruth]       eight sentences one by one and side by side, best_of=4 against one attempt;
                                           turn by turn, CPU seconds of one thread, with what the processor's own speed
                                           allows
    speaking.py first                      CPU time until the first sound of a stream (chunk=.2)
    speaking.py long [--characters 100000] a long text as a stream: memory at the beginning and the end, loudness and
                                           likeness of the first minute and the last; a line every twenty sentences;
                                           --within MINUTES or Ctrl-C ends it with what was reached, --from-sentence N
                                           goes on from there

Writes a table to the screen, and speaking.json into the folder --out, where it keeps what others have measured there.
`long` wants the extra `eval`.
"""
import argparse, json, resource, sys, time
from itertools import zip_longest
from pathlib import Path
import numpy as np
from harmonica import Clip, Voice
from harmonica.infer import Sampling

SENTENCES = (
    "It was late, and nobody came to the old house by the river.",
    "The train leaves at ten from the other platform.",
    "Nine small boats came back before the storm reached the bay.",
    "She put down her book, and listened to the wind outside.",
    "He had slept badly, and it was raining in the morning.",
    "Who was that man at the door, and what did he want?",
    "They walked along the beach until the sun went down.",
    "Nobody in the village could remember such a winter.")

def cpu(f):
    "What it gives, and CPU seconds of this process, whose only thread this is"
    t = time.process_time()
    x = f()
    return x, time.process_time()-t

class Parts:
    "Seconds and multiplications of AR, flow and vocoder of a voice, while it speaks"
    def __init__(self, v):
        import harmonica.infer as infer
        self.took, self.flops, self.counting = {}, {}, False
        for m in (v.ar, v.nar, v.vocoder): m.requires_grad_(False)    # or torch's counter looks for gradients
        v.ar.generate = self.timed("ar", v.ar.generate)
        infer.paint = self.timed("flow", infer.paint)
        v.vocoder.decode_vectors = self.timed("vocoder", v.vocoder.decode_vectors)

    def timed(self, part, f):
        def run(*args, **kw):
            from torch.utils.flop_counter import FlopCounterMode
            if not self.counting:
                x, t = cpu(lambda: f(*args, **kw))
                self.took[part] = self.took.get(part, 0.)+t
                return x
            with FlopCounterMode(display=False) as c: x = f(*args, **kw)
            self.flops[part] = self.flops.get(part, 0)+c.get_total_flops()
            return x
        return run

def speed(kind):
    "Operations a second of a bare product, with the shape of a flow's widest matrix"
    import torch, torch.nn.functional as F
    from speed import timed
    x, w = torch.randn(1200, 256).to(kind), torch.randn(1536, 256).to(kind)
    F.linear(x, w)
    return 2*1200*256*1536/min(timed(lambda: F.linear(x, w)) for _ in range(9))

def floors(v, parts, seconds):
    "Seconds a second of sound that this thread needs for products alone, and for what each step of the AR fetches"
    import torch
    from harmonica.blocks import quick_halves
    from speed import bandwidth
    whole = speed(torch.float32)
    half = speed(torch.bfloat16) if v.half and quick_halves(v.device) else whole
    parts.counting = True
    v.say_batch(SENTENCES, retries=0, watermark=False)
    parts.counting = False
    steps, c = max(seconds)*v.codec.frame_rate/v.ar.group, v.ar.cfg
    context = v.prompt.codes.shape[1]/v.ar.group + 60 + steps/2      # prompt, letters, and half of what will be said
    fetched = v.ar.step_stack(v.int8).nbytes + len(seconds)*context*2*4*c.d_model*c.n_layers
    fetching = steps*fetched/bandwidth(int(fetched))
    needed = dict(ar=half, flow=half, vocoder=whole)
    found = {k: parts.flops[k]/v + fetching*(k == "ar") for k,v in needed.items()}
    return {k: t/sum(seconds) for k,t in found.items()}, dict(float32=whole/1e9, flow=half/1e9)

def batch(a):
    v, how = Voice.load(a.voice), dict(retries=0, watermark=False)
    one = lambda i, **kw: [v.say(SENTENCES[0], seed=i, **{**how, **kw})]
    ways = dict(one_by_one=lambda i: [v.say(s, seed=i, **how) for s in SENTENCES],
                side_by_side=lambda i: v.say_batch(SENTENCES, seed=i, **how),
                one_attempt=one, best_of_4=lambda i: one(i, best_of=4), looked_at=lambda i: one(i, retries=2))
    one(0)                                                            # matrices are laid out once
    parts, least, seconds, where = Parts(v), {}, {}, {k: {} for k in ways}
    for i in range(a.repeat):
        for k,f in ways.items():
            parts.took = {}
            clips, t = cpu(lambda: f(i))
            seconds[k] = [c.seconds for c in clips]
            least[k] = min(least.get(k, 9e9), t/sum(seconds[k]))
            for p,s in parts.took.items(): where[k][p] = min(where[k].get(p, 9e9), s/sum(seconds[k]))
    floor, speeds = floors(v, parts, seconds["side_by_side"])
    tell = lambda d: {k: round(x, 4) for k,x in d.items()}
    return dict(real_time_factor=tell(least), throughput_of_eight=round(least["one_by_one"]/least["side_by_side"], 2),
        cost_of_best_of_4=round(least["best_of_4"]/least["one_attempt"], 2),
        cost_of_looking=round(least["looked_at"]/least["one_attempt"], 2),
        parts={k: tell(where[k]) for k in ("one_by_one", "side_by_side", "best_of_4")},
        floor_side_by_side=tell(floor), gigaflops=tell(speeds),
        most_throughput_on_this_core=round(least["one_by_one"]/sum(floor.values()), 2))

def first(a):
    "CPU time until the first sound of a sentence handed out in pieces of .2 s, by a voice that has spoken before"
    v, took = Voice.load(a.voice), []
    list(v.stream(SENTENCES[0], chunk=.2, watermark=False))
    for i in range(a.repeat):
        took += [cpu(lambda: next(v.stream(s, chunk=.2, seed=i, watermark=False)))[1] for s in SENTENCES]
    half = float(np.percentile(took, 50))
    return dict(milliseconds_p50=round(1000*half, 1), milliseconds_least=round(1000*min(took), 1))

def megabytes():
    "What this process holds now"
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else ():
        if line.startswith("VmRSS"): return int(line.split()[1])/1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(2**20 if sys.platform == "darwin" else 1024)

def story(n):
    "So many characters in paragraphs of nine sentences, hardly two of one length: what is kept of each length shows"
    said = (f"{SENTENCES[i % 8][:-1]}{', or so they said in' if i % 3 else ', it was told in'} {1500+i*37 % 500}."
            for i in range(n//40))
    parts = [" ".join(x for x in nine if x) for nine in zip_longest(*[said]*9)]
    return "\n\n".join(parts)[:n]

def long(a):
    "A long text as a stream"
    from harmonica.likeness import DVector, flat
    v, d = Voice.load(a.voice), DVector()
    pieces, began = v.pieces(story(a.characters)), time.monotonic()
    said, todo = [len(s) for s in pieces], pieces[a.from_sentence:]
    first, last, seconds, held, n = [], [], 0., [], 0
    def told():
        done = a.from_sentence+n
        return dict(sentences=done, characters=sum(said[:done]), of=sum(said), minutes=round(seconds/60, 1),
            megabytes=round(held[-1]), took_minutes=round((time.monotonic()-began)/60, 1))
    try:
        for clip in v.spoken(todo, Sampling(seed=a.from_sentence)):
            n, seconds = n+1, seconds+clip.seconds
            if sum(c.seconds for c in first) < 60: first.append(clip)
            last.append(clip)
            while sum(c.seconds for c in last[1:]) > 60: last.pop(0)
            held.append(megabytes())
            if n % 20 == 0: print(json.dumps(told()), file=sys.stderr, flush=True)
            if a.within and time.monotonic()-began > 60*a.within: break
    except KeyboardInterrupt: print("stopped", file=sys.stderr)
    if not n: sys.exit("nothing was said yet")
    first, last, prompt = Clip.join(first), Clip.join(last), v.codec.decode(v.prompt.codes)
    direction = lambda c: (e := np.asarray(d(flat(c))).ravel())/np.linalg.norm(e)
    like = [round(float(direction(c) @ direction(prompt)), 4) for c in (first, last)]
    loud = [round(float(c.levels()[c.active()].mean()), 2) for c in (first, last)]
    return dict(told(), megabytes_after_a_tenth=round(held[len(held)//10]), megabytes_most=round(max(held)),
        flat_likeness=like, likeness_apart=round(abs(like[0]-like[1]), 4), loudness_db=loud)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["batch", "first", "long"])
    p.add_argument("--voice", default="ruth")
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--characters", type=int, default=100_000)
    p.add_argument("--within", type=float, help="minutes after which `long` stops, and tells how far it came")
    p.add_argument("--from-sentence", type=int, default=0,
        help="`long` begins here; memory and likeness are then of this run")
    p.add_argument("--out", default=str(Path(__file__).parent))
    a = p.parse_args()
    import torch
    torch.set_num_threads(1)
    found, to = dict(batch=batch, first=first, long=long)[a.what](a), Path(a.out)/"speaking.json"
    print(json.dumps(found, indent=1))
    to.write_text(json.dumps({**(json.loads(to.read_text()) if to.exists() else {}), a.what: found}, indent=1)+"\n")

if __name__ == "__main__": main()
