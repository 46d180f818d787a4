#!/usr/bin/env python3
"""What stands behind SECURITY.md, measured. Each kind prints a table and keeps it in trust.json beside this file (or
where --out says).

    trust.py                                   what is kept there, beside what must hold; exit code 1 where something
                                               does not
    trust.py all [SPEECH] [--real REAL]        every kind again, one after the other
    trust.py watermark  SPEECH [--real REAL]   made speech, marked here: found after compression, noise and cutting?
                        Real clips taken for made ones,
                                               and what the mark costs in quality and likeness (SPEECH rows with prompt;
                                               wants harmonica-tts[eval])
    trust.py soak       [--n 2000]             sentences through one Voice: memory and pace from the first to the last
    trust.py threads    [--n 8]                threads that share one fresh Voice, a fork after use, and spawn: the same
                        sound as alone
    trust.py kills      [--n 200] [--only server]
                                               SIGKILL at random moments of download, preprocessing, training, synthesis
                                               and serving: nothing that was
                                               reported saved is lost, nothing half-written has a final name, the next
                                               run goes on to the same result
    trust.py fuzz       [--n 100000]           broken inputs of every kind, as of fuzz.py, which keeps its counts in
                        fuzz.json
    trust.py licences                          the licence of every package that the installed extras bring; exit code 1
                                               where one is GPL

SPEECH and REAL are .jsonl files with wav (or audio) in each row, or folders of sound files.
"""
import argparse, hashlib, json, os, random, re, resource, shutil, signal, socket, sys, tempfile, threading, time
from importlib.metadata import distributions
from pathlib import Path
import numpy as np

# short ones: it is their number that counts
SENTENCES = ("Yes.", "Who was that?", "It was late.", "Nine boats.", "She listened.", "Come in, please.")

def clips(path, limit):
    "Sounds of a .jsonl or a folder, evenly thinned"
    from harmonica.eval import read_rows
    p = Path(path)
    rows = [dict(wav=str(f)) for f in sorted(p.rglob("*")) if f.suffix in (".wav", ".flac", ".ogg", ".opus",
        ".mp3")] if p.is_dir() else read_rows(str(p))
    return rows[::max(1, len(rows)//limit)][:limit]

def at_rate(clip, kind, kbps):
    ("A clip through a lossy format at about so many kbit/s, by bisection of libsndfile's one dial; the clip, and the "
        "rate it came to")
    import io, soundfile as sf
    from harmonica import Clip
    x, low, high = clip.samples.clip(-1, 1), 0., 1.
    for _ in range(7):
        level, out = (low+high)/2, io.BytesIO()
        how = dict(bitrate_mode="CONSTANT") if kind == "MP3" else dict(subtype="OPUS")
        with sf.SoundFile(out, "w", clip.rate, 1, format="MP3" if kind == "MP3" else "OGG", compression_level=level,
            **how) as f: f.write(x)
        got = len(out.getvalue())*8/clip.seconds/1000
        low, high = (level, high) if got > kbps else (low, level)            # more compression, fewer bits
    return Clip.load(out.getvalue()), got

def watermark(a):
    "Share of marked speech found after each treatment, of real speech taken for made; quality before and after"
    from harmonica import Clip
    from harmonica.judges import SCORES
    from harmonica.watermark import Watermark
    import importlib.util
    mark, rng = Watermark(), np.random.default_rng(0)
    found, rates, took, length = {}, {}, 0., 0.
    def note(name, clip): found.setdefault(name, []).append(float(mark.heard(clip).max()))
    rows = clips(a.speech, a.limit)
    judges = {k: SCORES[k][1]() for k in ("distillmos", "ge2e", "dvec") if importlib.util.find_spec(SCORES[k][0])}
    change = {}
    for i,r in enumerate(rows, 1):
        clip = Clip.load(r["wav"]).to(24000)
        begun = time.process_time()
        m = mark.mark(clip)
        took += time.process_time()-begun
        length += clip.seconds
        noise = rng.normal(size=len(m)).astype(np.float32)*m.samples.std()/10
        note("not marked", clip)
        note("marked", m)
        note("16 kHz", m.to(16000))
        note("20 dB noise", Clip(m.samples+noise, m.rate))
        for kind,kbps in (("MP3", 64), ("Opus", 24)):
            worn, got = at_rate(m, kind, kbps)
            note(f"{kind} {kbps} kbit/s", worn)
            rates.setdefault(kind, []).append(got)
        note("cut to 2 s", m.cut(max(0., m.seconds/2-1), min(2., m.seconds)))
        pieces = [m for at in np.arange(0, clip.seconds-.05, .4) for m in [clip.cut(at, min(.4, clip.seconds-at))]]
        note("marked in pieces of .4 s", Clip.join(mark.stream(pieces)))
        for k,j in judges.items():
            if k == "distillmos": change.setdefault(k, []).append(j(m)-j(clip))
            elif r.get("prompt"):
                p = j(Clip.load(r["prompt"]))
                change.setdefault(k, []).append(float(np.dot(j(m), p)-np.dot(j(clip), p)))
        if not i % 10:                                    # what was reached is kept
            keep(a, "watermark", marks(found, change, rates, took/length))
            print(f"{i} of {len(rows)}", file=sys.stderr)
    if a.real:
        found["real speech"] = [float(mark.heard(Clip.load(r["wav"])).max()) for r in clips(a.real, a.real_limit)]
    return marks(found, change, rates, took/length)

def marks(found, change, rates, cost):
    "The table of what was found, and what it cost"
    table = {k: dict(found=round(np.mean([x >= .5 for x in v]), 4), lowest=round(min(v), 3), highest=round(max(v), 3),
        clips=len(v)) for k,v in found.items()}
    error = lambda v: round(float(np.std(v)/len(v)**.5), 4)
    for k,v in change.items():
        table[f"change of {k}"] = dict(mean=round(float(np.mean(v)), 4), error=error(v), worst=round(float(min(v)), 4),
            clips=len(v))
    table["kbit/s reached"] = {k: round(float(np.mean(v)), 1) for k,v in rates.items()}
    table["CPU seconds a second of speech"] = dict(marking=round(cost, 4))
    return table

def memory():
    return int(Path("/proc/self/statm").read_text().split()[1])*resource.getpagesize()/1e6 if Path(
        "/proc/self/statm").exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3

def soak(a):
    "Memory (MB) and CPU time a sentence, by hundreds; what was reached is kept at every hundred"
    from harmonica import Voice
    voice, table = Voice.load(), {}
    begun = time.process_time()
    for i in range(1, a.n+1):
        voice.say(SENTENCES[i % len(SENTENCES)], seed=i)
        if i % 100: continue
        now = time.process_time()
        table[f"{i} sentences"] = dict(memory_MB=round(memory(), 1), cpu_s_a_sentence=round((now-begun)/100, 3))
        keep(a, "soak", table)
        begun = time.process_time()
        print(i, table[f"{i} sentences"], flush=True)
    return table

def spoken(seed=0, voice=None):
    from harmonica import Voice
    c = (voice or Voice.load()).say(SENTENCES[0], seed=seed)
    return hashlib.sha256(c.samples.tobytes()).hexdigest()[:16]

def _forked(f, seconds=120):
    "What `f` says in a forked process, or None if it hangs"
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(w, f().encode())
        os._exit(0)
    os.close(w)
    until = time.time()+seconds
    while time.time() < until:
        if os.waitpid(pid, os.WNOHANG)[0]: return os.read(r, 100).decode()
        time.sleep(.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def threads(a):
    "Does everybody hear the same?"
    import multiprocessing
    from harmonica import Voice
    first = Voice.load()
    alone = [spoken(i, first) for i in range(a.n)]
    voice, got = Voice.load(), [None]*a.n                                   # nobody has spoken with this one yet
    def speak(i): got[i] = spoken(i, voice)
    ts = [threading.Thread(target=speak, args=(i,)) for i in range(a.n)]
    for t in ts: t.start()
    for t in ts: t.join()
    table = {f"{a.n} threads, one fresh voice": dict(same=got == alone)}
    forked = _forked(lambda: spoken(0, voice))
    table["fork after use"] = dict(same=forked == alone[0], hung=forked is None)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        table["spawn"] = dict(same=pool.map(spoken, [0, 1]) == alone[:2])
    return table

def group_lives(pid):
    try: os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError): return False
    return True

class Killed:
    ("One thing that is killed while it works: `work` in a forked process, again and again over one folder, until it "
        "comes to its end")
    def __init__(self, d):
        self.top, self.world = d, d/"world"
        self.make()
        for _ in range(2):                                # the first one warms up what is read once
            self.fresh()
            began = time.time()
            code = self.fork(None)
            if code: raise SystemExit(f"{self.name}: undisturbed it ended with {code}: {self.said()}")
        self.takes, self.want = time.time()-began, self.result()
        self.fresh()

    def make(self): pass

    def fresh(self):
        self.folder = Path(tempfile.mkdtemp(dir=self.top))
        self.begin()

    def begin(self): pass

    def said(self): return Path(f"{self.folder}.log").read_text(errors="replace").strip()

    def fork(self, seconds):
        "Exit code of the work in a process of its own, None if it was killed after so many seconds"
        pid = os.fork()
        if not pid:
            try:
                os.setsid()
                log = os.open(f"{self.folder}.log", os.O_WRONLY|os.O_CREAT|os.O_TRUNC)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os._exit(self.work() or 0)
            except BaseException as e:
                os.write(2, repr(e).encode())
                os._exit(99)
        until = time.time()+(seconds or 600)
        while time.time() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done: return os.waitstatus_to_exitcode(status)
            time.sleep(.002)
        try: os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError: os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while group_lives(pid): time.sleep(.002)          # its own children end a moment later

    def kill(self, n, dice):
        "Row of the table after n kills"
        kills = ends = other = left = 0
        while kills < n:
            code = self.fork(dice.uniform(0, self.takes))
            kills += code is None
            self.look()
            if code is None: continue
            if code: raise SystemExit(f"{self.name}: the next run did not go on, but ended with {code}: {self.said()}")
            ends, other, left = ends+1, other+(self.result() != self.want), left+len(self.litter())
            shutil.rmtree(self.folder)
            self.fresh()
        if code is None and self.fork(None): raise SystemExit(f"{self.name}: the last run did not go on: {self.said()}")
        other, left = other+(self.result() != self.want), left+len(self.litter())
        return dict(kills=kills, came_to_an_end=ends+1, other_results=other, temporary_files_left=left)

    def look(self): "Raise where half a file has a final name, or what was saved is gone"

    def litter(self): return [p for p in self.folder.rglob("*") if p.name.endswith((".tmp", ".part", ".unpacking"))]

def digest(data): return hashlib.sha256(data).hexdigest()[:16]

class Download(Killed):
    "An archive from a server that is slow, unpacked"
    name = "download"
    def make(self):
        import io, tarfile
        out, rng = io.BytesIO(), np.random.default_rng(0)
        with tarfile.open(fileobj=out, mode="w:bz2") as t:
            for i in range(20):
                data = rng.bytes(20000)
                info = tarfile.TarInfo(f"LJSpeech-1.1/wavs/{i}.wav")
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
        self.body, self.port = out.getvalue(), serve_slowly(out.getvalue())

    def work(self):
        from harmonica import cli, download
        url = f"http://127.0.0.1:{self.port}/LJSpeech-1.1.tar.bz2"
        download.archives["ljspeech"] = {"": (url, len(self.body), hashlib.sha256(self.body).hexdigest())}
        return cli.download(["ljspeech", "--root", str(self.folder)])

    def look(self):
        whole = self.folder/"LJSpeech-1.1.tar.bz2"
        if whole.exists() and whole.read_bytes() != self.body:
            raise SystemExit("download: half an archive has its final name")
        if (self.folder/".LJSpeech-1.1.tar.bz2.done").exists() and self.result() != self.want:
            raise SystemExit("download: said to be done, and is not")

    def result(self):
        return {p.name: digest(p.read_bytes()) for p in (self.folder/"LJSpeech-1.1").rglob("*") if p.is_file()}

def serve_slowly(body):
    "Port of a forked server of one file, in pieces with pauses; it ends with this process"
    import atexit, http.server
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *a): pass
        def do_GET(self):
            at = int(self.headers.get("Range", "bytes=0-")[6:-1])
            self.send_response(206 if at else 200)
            if at: self.send_header("Content-Range", f"bytes {at}-{len(body)-1}/{len(body)}")
            self.send_header("Content-Length", str(len(body)-at))
            self.end_headers()
            for i in range(at, len(body), 20000):
                try: self.wfile.write(body[i:i+20000])
                except OSError: return
                time.sleep(.01)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pid = os.fork()
    if not pid:
        server.serve_forever()
        os._exit(0)
    atexit.register(os.kill, pid, signal.SIGKILL)
    port = server.server_address[1]
    server.socket.close()
    return port

def small_world(d):
    "A manifest of made speech, and a codec, an AR and a NAR that have learned nothing"
    import torch
    from harmonica import Clip, load_codec
    from harmonica.ar import AR, ARConfig
    from harmonica.checkpoint import save_model
    from harmonica.microcodec import MicroCodec, MicroCodecConfig
    from harmonica.nar import NAR, NARConfig
    from harmonica.text import Tokenizer
    if d.exists(): return
    (d/"clips").mkdir(parents=True)
    torch.manual_seed(0)
    rows = []
    for i in range(24):
        x = .2*np.sin(np.arange(24000+1000*i)*(.02+.01*(i%2))).astype(np.float32)
        Clip(x, 24000).save(d/f"clips/{i}.wav")
        rows.append(dict(audio=f"clips/{i}.wav", text="the sea is calm", speaker=f"s{i%2}",
            split="valid" if i > 20 else "train"))
    (d/"m.jsonl").write_text("".join(json.dumps(r)+"\n" for r in rows))
    save_model(d/"codec.safetensors", MicroCodec(MicroCodecConfig(n_q=2, n_bins=16, code_dim=8, enc_dim=16,
        enc_layers=1, dec_dim=16, dec_layers=1)))
    tok = Tokenizer("letters")
    info = dict(codec="micro", codec_hash=load_codec(str(d/"codec.safetensors")).hash, tokenizer=tok.to_dict())
    small = dict(vocab_size=tok.vocab_size, n_q=2, n_bins=16, d_model=32, n_heads=2, n_layers=1, d_ff=64, code_dim=8,
        speaker_dim=16)
    save_model(d/"ar.safetensors", AR(ARConfig(**small, frame_rate=50, duration_hidden_dim=16)), **info)
    save_model(d/"nar.safetensors", NAR(NARConfig(**small, cond_dim=16)), **info)

def preprocess(world, out):
    from harmonica import cli
    return cli.preprocess(["--dataset", f"{world}/m.jsonl", "--codec", f"{world}/codec.safetensors", "--aligner",
        "none", "--out", str(out), "--device", "cpu"])

class Preprocess(Killed):
    "A small corpus, encoded"
    name = "preprocessing"
    def make(self): small_world(self.world)
    def work(self): return preprocess(self.world, self.folder/"codes")
    def rows(self):
        from harmonica.data import CodesDataset
        return [(u["id"] if isinstance(u, dict) else u.id,
            digest(np.asarray(u["codes"] if isinstance(u, dict) else u.codes).tobytes()))
            for u in CodesDataset(self.folder/"codes", None)]
    def look(self):
        if not list(self.folder.glob("codes/*.arrow")): return
        ids = [i for i,_ in self.rows()]
        if len(set(ids)) < len(ids): raise SystemExit("preprocessing: an utterance stands twice")
    def result(self): return sorted(self.rows())

class Train(Killed):
    "A few updates of a small AR, with a checkpoint after each"
    name = "training"
    def make(self):
        small_world(self.world)
        if not (self.world/"codes").exists() and preprocess(self.world, self.world/"codes"):
            raise SystemExit("no codes to train on")
    def begin(self): self.step = 0
    def work(self):
        from harmonica import cli
        run = self.folder/"run"
        go = ["--resume"] if list(run.glob("last*.pt")) else ["--config", "smoke", "--stage", "ar",
            f"data.codec={self.world}/codec.safetensors", f"data.cache_dir={self.world}/codes", "training.max_steps=10",
            "training.valid_every=0", "training.save_every_minutes=0"]
        return cli.train([*go, "--out", str(run), "--device", "cpu", "--quiet"])
    def look(self):
        import torch
        steps = [torch.load(p, weights_only=True)["step"] for p in self.folder.glob("run/last*.pt")]
        if max(steps, default=0) < self.step:
            raise SystemExit(f"training: update {self.step} was saved, {max(steps, default=0)} is there")
        self.step = max(steps, default=0)
    def result(self):
        from harmonica.checkpoint import load_model
        return digest(b"".join(v.numpy().tobytes()
            for v in load_model(self.folder/"run/ar.safetensors").state_dict().values()))

class Synthesis(Killed):
    "A sentence"
    name = "synthesis"
    def make(self): small_world(self.world)
    def work(self):
        from harmonica import cli
        w = self.world
        return cli.synthesize(["--text", "Hi there. "*3, "--ar-checkpoint", f"{w}/ar.safetensors", "--nar-checkpoint",
            f"{w}/nar.safetensors", "--codec", f"{w}/codec.safetensors", "--device", "cpu", "--max-seconds", "3",
            "--output", str(self.folder/"o.wav")])
    def look(self):
        from harmonica import Clip
        if (self.folder/"o.wav").exists(): Clip.load(self.folder/"o.wav")
        elif self.said().startswith("wrote"): raise SystemExit("synthesis: a sound was reported and is not there")
    def result(self):
        from harmonica import Clip
        return digest(Clip.load(self.folder/"o.wav").samples.tobytes())

class Serve(Killed):
    "A server to which voices are added over HTTP: those that it confirmed are there when it starts again"
    name = "server"
    def make(self):
        from harmonica import Voice
        small_world(self.world)
        w = self.world
        self.voice = Voice.load(codec=f"{w}/codec.safetensors", ar=f"{w}/ar.safetensors", nar=f"{w}/nar.safetensors")
        self.sound = Path(w/"clips/20.wav").read_bytes()

    def begin(self): self.confirmed = set()

    def serve(self, port):
        "The command itself, with the small models in place of the packaged ones"
        from harmonica import Voice
        from harmonica.serve import serve
        Voice.load = lambda **options: self.voice
        return serve(["--port", str(port), "--voices", str(self.folder)])

    def work(self):
        "A client and its server, killed together"
        port = free_port()
        server = os.fork()
        if not server: os._exit(self.serve(port) or 0)
        there = {v["name"] for v in when_open(f"http://127.0.0.1:{port}/v1/voices", server).json()["voices"]}
        if self.confirmed-there: return self.lost(self.confirmed-there)
        for name in sorted({f"v{i}" for i in range(4)}-there): self.add(port, name)
        os.kill(server, signal.SIGTERM)
        code = os.waitstatus_to_exitcode(os.waitpid(server, 0)[1])
        return 0 if code in (0, 143) else code

    def lost(self, names):
        os.write(2, f"voices were confirmed and are gone: {', '.join(sorted(names))}\n".encode())
        return 3

    def add(self, port, name):
        import httpx
        form = dict(name=name, consent="A made tone, for this test.")
        r = httpx.post(f"http://127.0.0.1:{port}/v1/voices", data=form, files=dict(file=self.sound), timeout=600)
        r.raise_for_status()
        os.write(1, f"confirmed {name}\n".encode())

    def look(self):
        self.confirmed |= set(re.findall(r"^confirmed (\w+)$", self.said(), re.M))
        for p in self.folder.glob("[!.]*"): json.loads(p.read_text()) if p.suffix == ".json" else self.voice.like(p)
        for name in self.confirmed:
            whole = [self.folder/f"{name}{end}" for end in (".json", ".voice")]
            if not all(p.exists() for p in whole): raise SystemExit(f"server: voice {name} was confirmed and is gone")

    def result(self): return sorted(p.name for p in self.folder.iterdir() if not p.name.startswith("."))

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def when_open(url, server):
    "The first answer of a server that is starting"
    import httpx
    while True:
        try: return httpx.get(url, timeout=600)
        except httpx.TransportError:
            if os.waitpid(server, os.WNOHANG)[0]: raise SystemExit("the server ended") from None
            time.sleep(.01)

def kills(a):
    "Everything that writes, killed"
    import torch
    # here, once: what is killed is the work, not its imports
    import harmonica.align, harmonica.preprocess, harmonica.recipes, harmonica.serve, httpx, uvicorn
    torch.set_num_threads(1)                              # a fork inherits no threads
    kinds = [k for k in (Download, Preprocess, Train, Synthesis, Serve) if a.only in (None, k.name)]
    table = kept(a, "kills") if a.only else {}
    for kind in kinds:
        with tempfile.TemporaryDirectory() as d:
            table[kind.name] = kind(Path(d)).kill(-(-a.n//len(kinds)), random.Random(kind.name))
        print(kind.name, table[kind.name], flush=True)
    return table

def fuzzed(a):
    "Counts of fuzz.json, after another round if --n asks for one"
    import fuzz
    if a.n: fuzz.keep(HERE/"fuzz.json", int(time.time()), fuzz.run(a.n//len(fuzz.ALL)))
    table = {}
    for kind,seeds in json.loads((HERE/"fuzz.json").read_text()).items():
        rows = list(seeds.values())
        table[kind] = {k: sum(r[k] for r in rows) for k in ("inputs", "read", "refused", "escaped")}
        for k in ("slowest_s", "memory_MB"):
            if known := [r[k] for r in rows if r[k] is not None]: table[kind][k] = max(known)
    return table

def binding(said):
    "Is it the GPL, which binds who links against it?"
    said = said.replace("LGPL", "").replace("Lesser General Public", "").replace("GPL-3.0-with-GCC-exception", "")
    return "GPL" in said or "General Public License" in said

def licences(a):
    "Package, version, licence"
    table = {}
    for d in sorted(distributions(), key=lambda d: d.metadata["Name"].lower()):
        m = d.metadata
        kinds = [c.split(" :: ")[-1] for c in m.get_all("Classifier") or () if c.startswith("License ::")]
        said = m["License-Expression"] or ", ".join(kinds) or (m["License"] or "").split("\n")[0][:60] or "not stated"
        table[m["Name"]] = dict(version=d.version, licence=said)
    bad = [k for k,v in table.items() if binding(v["licence"])]
    if bad:
        print("GPL:", ", ".join(bad), file=sys.stderr)
        a.code = 1
    return table

HERE = Path(__file__).resolve().parent
KINDS = dict(watermark=watermark, soak=soak, threads=threads, kills=kills, fuzz=fuzzed, licences=licences)

def keep(a, kind, table):
    "Put a kind's table beside the others"
    from harmonica import __version__
    path = Path(a.out)
    have = json.loads(path.read_text()) if path.exists() else {}
    have[kind] = dict(version=__version__, date=time.strftime("%Y-%m-%d", time.gmtime()), table=table)
    path.write_text(json.dumps(have, indent=1)+"\n")

def kept(a, kind):
    "The table of a kind as it was measured before"
    path = Path(a.out)
    return json.loads(path.read_text()).get(kind, {}).get("table", {}) if path.exists() else {}

def column(table, name): return [row[name] for row in table.values() if name in row]

def verdicts(have):
    "(what must hold, what was measured, whether it holds or None)"
    t = {k: v["table"] for k,v in have.items()}
    if w := t.get("watermark"):
        for k in ("MP3 64 kbit/s", "Opus 24 kbit/s", "16 kHz", "20 dB noise", "cut to 2 s"):
            yield f"the mark is found after {k}", f"{w[k]['found']:.1%} of {w[k]['clips']}", w[k]["found"] >= .9
        if r := w.get("real speech"):
            yield "real clips taken for made ones: none of 1,000", f"{r['found']*r['clips']:.0f} of {r['clips']}", (
                not r["found"] and r["clips"] >= 1000)
        for k in ("distillmos", "ge2e", "dvec"):
            if c := w.get(f"change of {k}"):
                yield f"the mark changes {k} by less than .02", f"{c['mean']:+.4f} over {c['clips']}", c["mean"] > -.02
    if f := t.get("fuzz"):
        n = sum(column(f, "inputs"))
        yield "100,000 broken inputs, each a result or one line", f"{n} inputs, {sum(column(f, 'escaped'))} escaped", (
            n >= 100000 and not sum(column(f, "escaped")))
        yield "none takes 5 s or 1 GB", f"{max(column(f, 'slowest_s'))} s, {max(column(f, 'memory_MB'))} MB", max(
            column(f, "slowest_s")) < 5 and max(column(f, "memory_MB")) < 1000
    if k := t.get("kills"):
        n, other = sum(column(k, "kills")), sum(column(k, "other_results"))
        yield "200 kills: nothing saved is lost, nothing is half-written, the next run goes on", (f"{n} kills, {other} "
            f"other results"), n >= 200 and not other
    if s := t.get("soak"):
        first, last = list(s.values())[0], list(s.values())[-1]
        n, grown, slower = int(list(s)[-1].split()[0]), last["memory_MB"]/first["memory_MB"]-1, last[
            "cpu_s_a_sentence"]/first["cpu_s_a_sentence"]-1
        yield "2,000 sentences: memory grows less than 5% after the first 100", f"{grown:+.1%} after {n}", (
            n >= 2000 and grown < .05)
        yield "no slowdown (CPU time a sentence, last hundred against first)", f"{slower:+.1%}", slower < .1
    if h := t.get("threads"):
        for k,v in h.items(): yield f"{k}: the same sound as alone", "same" if v["same"] else "another", v["same"]
    if l := t.get("licences"):
        yield "no dependency under the GPL", f"{len(l)} packages", not [k for k,v in l.items() if binding(v["licence"])]

def show(a):
    "The whole table; 1 if something that was measured does not hold"
    have = json.loads(Path(a.out).read_text()) if Path(a.out).exists() else {}
    rows = list(verdicts(have))
    for what,value,holds in rows: print(f"{what:82} {value:34} {'holds' if holds else 'DOES NOT HOLD'}")
    for k in KINDS:
        print(f"{k:12} "+(f"measured {have[k]['date']}, version {have[k]['version']}"
            if k in have else f"not measured: run `trust.py {k}`"))
    return int(not all(r[2] for r in rows))

def measure(a, kind):
    table = KINDS[kind](a)
    for k,v in table.items(): print(f"{k:28}", *(f"{n} {x}" for n,x in v.items()), sep="  ")
    keep(a, kind, table)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kind", choices=("show", "all", *KINDS), nargs="?", default="show")
    p.add_argument("speech", nargs="?")
    p.add_argument("--real")
    p.add_argument("--real-limit", type=int, default=1000)
    p.add_argument("--limit", type=int, default=100)
    p.add_argument("--n", type=int)
    p.add_argument("--only", choices=("download", "preprocessing", "training", "synthesis", "server"))
    p.add_argument("--out", default=str(HERE/"trust.json"))
    a = p.parse_args()
    if a.kind == "watermark" and not a.speech: p.error("give SPEECH, a .jsonl file or a folder")
    if a.kind == "show": sys.exit(show(a))
    given, a.code = a.n, 0
    for kind in KINDS if a.kind == "all" else [a.kind]:
        if kind == "watermark" and not a.speech: continue
        a.n = given or dict(soak=2000, threads=8, kills=200, fuzz=0 if a.kind == "fuzz" else 100000).get(kind)
        measure(a, kind)
    sys.exit(show(a) if a.kind == "all" else a.code)

if __name__ == "__main__": main()
