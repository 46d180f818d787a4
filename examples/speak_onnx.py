"""Speak with onnxruntime and numpy alone: no torch, no Harmonica once the text is numbers.

    harmonica-export my-voice                                        # once, where Harmonica is installed
    python speak_onnx.py my-voice --text "Good morning." hello.wav   # Harmonica's text front end: it needs no torch
    python speak_onnx.py my-voice --tokens said.json hello.wav       # nothing of Harmonica at all

A token file is a list of {"text": ..., "ids": [...]}, a sentence each; --save-tokens writes one of --text.
Another voice for the same models: --voice me.voice, as Voice.save writes it.
"""
import argparse, json, os, sys, wave
from pathlib import Path
import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1") # onnxruntime would report to its makers
import onnxruntime

GRAPHS = "ar_read", "ar_step", "flow_read", "flow_step", "vocoder"

# -- what a code is drawn from: the rules of harmonica.sample

def softmax(x):
    e = np.exp(x-x.max())
    return e/e.sum()

def probabilities(scores, temperature=.8, top_k=50, top_p=.95):
    "Temperature divides, top_k keeps the best, top_p the fewest that hold that share; 0 is greedy"
    p = np.zeros_like(scores)
    if temperature < 1e-4:
        p[scores.argmax()] = 1
        return p
    best = np.argsort(-scores, kind="stable")[:top_k or None]
    q = softmax(scores[best]/temperature)
    if top_p < 1:
        before = np.cumsum(q)-q
        before[0] = -1
        q[before >= top_p] = 0
    p[best] = q/q.sum()
    return p

def draw(p, rng):
    "One entry; a hair below 1, so that rounding carries no point past the last entry with any probability"
    c = np.cumsum(p)
    return int((c <= rng.random()*(1-1e-6)*c[-1]).sum())

def sample(scores, history, rng, temperature=.8, top_k=50, top_p=.95, ras_window=0, ras_threshold=.1):
    "One entry; drawn again from everything if it fills too much of the last `ras_window`"
    p = probabilities(scores, temperature, top_k, top_p)
    if temperature < 1e-4: return int(p.argmax())
    picked = draw(p, rng)
    if not ras_window: return picked
    again = draw(softmax(scores/temperature), rng)
    repeats = sum(c == picked for c in history[-ras_window:])/ras_window
    return again if history and repeats > ras_threshold else picked

# -- the voice

def read_voice(path):
    "The arrays and the words of a .voice file: a length, JSON, and numbers behind it (the safetensors format)"
    data = Path(path).read_bytes()
    n = 8+int.from_bytes(data[:8], "little")
    if n > len(data) or data[8:9] != b"{": raise ValueError(f"{path} is no voice: give a file written by Voice.save")
    head, arrays = json.loads(data[8:n]), {}
    meta = head.pop("__metadata__", {})
    for k,v in head.items():
        a, b = v["data_offsets"]
        kind = dict(I16=np.int16, F16=np.float16, F32=np.float32)[v["dtype"]]
        arrays[k] = np.frombuffer(data[n+a:n+b], kind).reshape(v["shape"])
    return arrays, meta

def windows(x, n):
    "Each row of (T,D) with its neighbours, (T+1-n,D,n)"
    return np.lib.stride_tricks.sliding_window_view(x, n, 0)

def running_mean(x, n):
    "Of n rows, as many before as after"
    return windows(np.pad(x, ((n//2, n//2), (0, 0)), "edge"), n).mean(-1)

def refine(z, prompt, size, nearest=0., sharpen=0., widen=0., **_):
    "Painted latents, nearer to the four frames of the prompt that are most alike, quicker and wider: see 41_flow"
    n, y = len(size)-4, z.copy()
    weight = np.array([*size[:n], .3, .3, 1.5, 1.5], np.float32)
    around = lambda x: windows(np.pad(x*weight, ((2, 2), (0, 0))), 5).reshape(len(x), -1)
    there = around(prompt)
    closest = [((there-here)**2).sum(1).argsort(kind="stable")[:4] for here in around(z)]
    voiced = z[:,n+2:].mean(1, keepdims=True) > 0
    y[:,:n] += nearest*running_mean(voiced*(prompt[closest].mean(1)-z)[:,:n], 7)
    fine, middle = y[:,12:n], prompt[:,12:n].mean(0)
    quick = sharpen*(fine-running_mean(fine, 3))
    y[:,12:n] += quick + widen*np.linspace(0, 1, n-12, dtype=np.float32)*(fine+quick-middle)
    return y

class Speaker:
    "The five graphs of a folder, and somebody's voice"
    def __init__(self, folder, voice=None, threads=1):
        folder = Path(folder)
        missing = [f for f in ("voice.json", "weights.bin", *(f"{g}.onnx" for g in GRAPHS)) if not (folder/f).is_file()]
        if missing: raise ValueError(f"{folder} lacks {', '.join(missing)}: give a folder written by harmonica-export")
        self.about = json.loads((folder/"voice.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        load = lambda name: onnxruntime.InferenceSession(folder/f"{name}.onnx", options, ["CPUExecutionProvider"])
        self.graphs = {g: load(g) for g in GRAPHS}
        arrays, meta = read_voice(voice or folder/"prompt.voice")
        if any(meta.get(k) != self.about[k] for k in ("codec_hash", "vocoder_hash")):
            raise ValueError(f"{voice} was made for other models: make it again with the voice that was exported")
        self.prompt, self.latents = arrays["prompt"].astype(np.int64)[None], arrays["latents"].astype(np.float32)[None]

    def run(self, name, *inputs):
        graph = self.graphs[name]
        names = (i.name for i in graph.get_inputs())
        return graph.run(None, dict(zip(names, map(np.asarray, inputs), strict=True)))

    def choose(self, scores, history, may_stop, rng, how):
        "The codes of one step and how likely each was, or None to stop: the last entry of the first frame's scores"
        group, bins = self.about["ar"]["group"], self.about["ar"]["n_bins"]
        codes, stop = scores[0,:-1].reshape(group, bins), scores[0,-1] if may_stop else -np.inf
        chosen = []
        for j in range(group):
            c = sample(np.append(codes[j], stop if j == 0 else -np.inf), history+chosen, rng, **how)
            if c == bins and j == 0: return None
            chosen.append(c)
        likely = np.exp(codes-codes.max(1, keepdims=True))
        return chosen, likely/likely.sum(1, keepdims=True)

    def coarse(self, ids, rng, speed=1., **how):
        "Book 0 of a sentence, how likely each of its codes was, and the frames that each symbol takes"
        ar, codes, soft = self.about["ar"], [], []
        ids, speed = np.array([ids], np.int64), np.float32(speed)
        scores, encoded, durations, (fewest, most), *past = self.run("ar_read", ids, self.prompt, speed)
        for t in range(0, int(most), ar["group"]):
            step = self.choose(scores, codes, t >= fewest, rng, how)
            if step is None: break
            codes, soft = codes+step[0], [*soft, step[1]]
            if t+ar["group"] >= most: break
            step = np.array(step[:1], np.int64)
            scores, *past = self.run("ar_step", step, np.int64(t//ar["group"]), encoded, durations, *past)
        codes = np.array(codes[:ar["most_frames"]], np.int64)
        return codes, np.concatenate([np.zeros((0, ar["n_bins"]), np.float32), *soft])[:len(codes)], durations[0]

    def fine(self, ids, book0, durations, noise):
        "Latents of each frame, from noise; some silence is painted around them, and left out"
        flow = self.about["flow"]
        lead, tail = flow["lead"], flow["tail"]*(len(book0) >= int(durations.sum())-1)
        durations = durations.copy()
        durations[0] += lead
        durations[-1] += tail
        book0 = np.pad(book0, ((lead, tail), (0, 0)), "edge")[None].astype(np.float32)
        frames, voice, *past = self.run("flow_read", np.array([ids], np.int64), durations[None], book0, self.latents)
        x = noise[None,:book0.shape[1]]*np.float32(flow["noise"])
        for a,b in zip(flow["times"], flow["times"][1:]):
            t, far = np.array([a], np.float32), np.array([b-a], np.float32)
            guidance = [np.float32(flow["guidance"])]*(flow["guidance"] != 1)   # where there is none, no input
            x, = self.run("flow_step", x, t, far, *guidance, frames, voice, *past)
        z = refine(x[0]/np.array(flow["size"], np.float32), self.latents[0], **flow)
        return z[lead:book0.shape[1]-tail]

    def sentence(self, ids, rng, noise=None, **how):
        "Samples, (N,): how holds speed, temperature, top_k, top_p, ras_window"
        how = {"temperature": self.about["ar"]["temperature"], **how}
        codes, book0, durations = self.coarse(ids, rng, **how)
        if not len(codes): return np.zeros(0, np.float32)
        if noise is None: noise = rng.standard_normal((len(codes)+50, len(self.about["flow"]["size"])), np.float32)
        latents = self.fine(ids, book0, durations, noise)
        return self.run("vocoder", latents[None])[0][0].clip(-1, 1)

    def say(self, sentences, seed=0, **how):
        "Samples of several sentences: soft edges, and a pause after each but the last"
        rng, rate, out = np.random.default_rng(seed), self.about["sample_rate"], []
        for i,s in enumerate(sentences):
            x = self.sentence(s["ids"], rng, **how)
            n = min(round(.01*rate), len(x)//2)
            ramp = np.linspace(0, 1, n, endpoint=False, dtype=np.float32)
            x[:n] *= ramp
            x[len(x)-n:] *= ramp[::-1]
            pause = self.about["text"]["pauses"].get(s["text"][-1:], .05) if i < len(sentences)-1 else 0
            out += [x, np.zeros(round(pause*rate), np.float32)]
        return np.concatenate(out)

# -- text in, sound out

def tokens(text, about):
    "Sentences as ids, by Harmonica's front end: it needs neither torch nor a network"
    from harmonica.text import Tokenizer, phrases
    tokenizer = Tokenizer.from_dict(dict(kind=about["kind"], tokens=about["tokens"]))
    return [dict(text=s, ids=tokenizer.encode(s, normalized=True, edges=True))
        for s in phrases(text, about["most_chars"])]

def save_wav(path, samples, rate):
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes((samples*32767).round().astype("<i2").tobytes())

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", help="Written by harmonica-export")
    p.add_argument("output", help="WAV file to write")
    p.add_argument("--text", help="What to say")
    p.add_argument("--tokens", help="... or a JSON file of ids")
    p.add_argument("--save-tokens", help="Also write the ids of --text into this JSON file")
    p.add_argument("--voice", help="A .voice file (default: the folder's prompt.voice)")
    p.add_argument("--seed", type=int, default=0, help="Another seed speaks it another way (default: 0)")
    p.add_argument("--temperature", type=float, help="0 takes the likeliest code (default: the model's own choice)")
    p.add_argument("--speed", type=float, default=1., help="1.2 speaks a fifth faster (default: 1)")
    p.add_argument("--threads", type=int, default=1, help="Of the processor (default: 1)")
    a = p.parse_args(argv)
    if (a.text is None) == (a.tokens is None): raise ValueError("give --text or --tokens, one of them")
    speaker = Speaker(a.folder, a.voice, a.threads)
    said = tokens(a.text, speaker.about["text"]) if a.tokens is None else json.loads(Path(a.tokens).read_text("utf-8"))
    if a.save_tokens: Path(a.save_tokens).write_text(json.dumps(said, ensure_ascii=False)+"\n", encoding="utf-8")
    how = {} if a.temperature is None else dict(temperature=a.temperature)
    samples = speaker.say(said, a.seed, speed=a.speed, **how)
    save_wav(a.output, samples, speaker.about["sample_rate"])
    print(f"{a.output}: {len(samples)/speaker.about['sample_rate']:.2f} s")

if __name__ == "__main__":
    try: main()
    except (ImportError, OSError, ValueError) as e: sys.exit(f"speak_onnx.py: {e}")
