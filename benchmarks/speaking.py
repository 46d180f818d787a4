#!/usr/bin/env python3
"""How a voice speaks much: side by side, and for long.

    speaking.py batch [--voice ruth]                 eight sentences one by one and side by side, and best_of=4 against one attempt; turn by turn, CPU seconds of one thread
    speaking.py long [--characters 100000]           a long text as a stream: memory at the beginning and the end, loudness and likeness of the first minute and the last

Writes a table to the screen, and speaking.json into the folder --out, where it keeps what others have measured there. `long` wants the extra `eval`.
"""
import argparse, json, resource, sys, time
from pathlib import Path
import numpy as np
from harmonica import Clip, Voice

SENTENCES = ("It was late, and nobody came to the old house by the river.", "The train leaves at ten from the other platform.",
    "Nine small boats came back before the storm reached the bay.", "She put down her book, and listened to the wind outside.",
    "He had slept badly, and it was raining in the morning.", "Who was that man at the door, and what did he want?",
    "They walked along the beach until the sun went down.", "Nobody in the village could remember such a winter.")

def cpu(f):
    "What it gives, and CPU seconds of this thread"
    t = time.thread_time(); x = f()
    return x, time.thread_time()-t

def batch(a):
    v = Voice.load(a.voice); how = dict(retries=0, watermark=False)
    v.say("Good morning.", **how)                                     # matrices are laid out once
    ways = dict(one_by_one=lambda i: [v.say(s, seed=i, **how) for s in SENTENCES], side_by_side=lambda i: v.say_batch(SENTENCES, seed=i, **how),
        one_attempt=lambda i: [v.say(SENTENCES[0], seed=i, **how)], best_of_4=lambda i: [v.say(SENTENCES[0], seed=i, best_of=4, **how)],
        looked_at=lambda i: [v.say(SENTENCES[0], seed=i, watermark=False)])
    took, sound = {k: [] for k in ways}, {}
    for i in range(a.repeat):
        for k,f in ways.items(): clips, t = cpu(lambda: f(i)); took[k].append(t); sound[k] = sum(c.seconds for c in clips)
    least = {k: min(v) for k,v in took.items()}
    return dict(real_time_factor={k: round(t/sound[k], 4) for k,t in least.items()}, throughput_of_eight=round(least["one_by_one"]/least["side_by_side"], 2),
        cost_of_best_of_4=round(least["best_of_4"]/least["one_attempt"], 2), cost_of_looking=round(least["looked_at"]/least["one_attempt"], 2))

def megabytes():
    "What this process holds now"
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else ():
        if line.startswith("VmRSS"): return int(line.split()[1])/1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(2**20 if sys.platform == "darwin" else 1024)

def long(a):
    from harmonica.likeness import DVector, flat
    v, d = Voice.load(a.voice), DVector()
    text = ""
    while len(text) < a.characters: text += " ".join(SENTENCES[i % 8] for i in range(len(text) % 7, len(text) % 7 + 9))+"\n\n"
    first, last, seconds, held, n, began = [], [], 0., [], 0, time.monotonic()
    for clip in v.stream(text[:a.characters]):
        n += 1; seconds += clip.seconds
        if sum(c.seconds for c in first) < 60: first.append(clip)
        last.append(clip)
        while sum(c.seconds for c in last[1:]) > 60: last.pop(0)
        held.append(megabytes())
        if n % 50 == 0: print(f"\\r{seconds/60:.1f} min, {held[-1]:.0f} MB", end="", file=sys.stderr, flush=True)
    first, last, prompt = Clip.join(first), Clip.join(last), v.codec.decode(v.prompt.codes)
    direction = lambda c: (e := np.asarray(d(flat(c))).ravel())/np.linalg.norm(e)
    like = [round(float(direction(c) @ direction(prompt)), 4) for c in (first, last)]
    loud = [round(float(c.levels()[c.active()].mean()), 2) for c in (first, last)]
    return dict(characters=a.characters, minutes=round(seconds/60, 1), megabytes_after_a_tenth=round(held[len(held)//10]), megabytes_at_the_end=round(held[-1]), flat_likeness=like,
        likeness_apart=round(abs(like[0]-like[1]), 4), loudness_db=loud, took_minutes=round((time.monotonic()-began)/60, 1))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["batch", "long"]); p.add_argument("--voice", default="ruth"); p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--characters", type=int, default=100_000); p.add_argument("--out", default=str(Path(__file__).parent))
    a = p.parse_args()
    import torch; torch.set_num_threads(1)
    found, to = dict(batch=batch, long=long)[a.what](a), Path(a.out)/"speaking.json"
    print(json.dumps(found, indent=1))
    to.write_text(json.dumps({**(json.loads(to.read_text()) if to.exists() else {}), a.what: found}, indent=1)+"\n")

if __name__ == "__main__": main()
