"""A run that is killed and resumed is the run that was never stopped: weights, averages, log, data order, to the bit

The child process of these tests is this file itself: python test_resume.py KIND FOLDER. HARMONICA_KILL_SEED chooses
other moments to kill it."""
import json, os, random, shutil, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest, torch
from torch import nn
from harmonica.ar import AR, ARConfig
from harmonica.checkpoint import load_checkpoint
from harmonica.data import BucketSampler, CodesDataset, write_shard, CodesLoader
from harmonica.crops import AudioCrops
from harmonica.microcodec import MicroCodec, MicroCodecConfig
from harmonica.monitor import CodebookUse, Gradients
from harmonica.nar import NAR, NARConfig
from harmonica.recipes import ar_loss
from harmonica.train import TrainConfig, Trainer

SEED = int(os.environ.get("HARMONICA_KILL_SEED", 0))
KINDS, STEPS, N_Q, BINS = ("codec", "ar", "nar"), 24, 3, 16

class Letters:
    def encode(self, text, edges=False): return [1+ord(c)%20 for c in text]

def make_data(folder):
    "A cache of 29 utterances by 4 speakers, and a little sound laid flat"
    rng = np.random.default_rng(0)
    rows = []
    for i in range(29):
        n = int(rng.integers(12, 40))
        rows.append(dict(id=f"u{i}", text=" ".join(rng.choice("the sea is calm tonight".split(), 4)), speaker=f"s{i%4}",
            source="t", split="train", seconds=n/50, n_frames=n, codes=rng.integers(0, BINS, N_Q*n).astype(np.int16)))
    (folder/"codes").mkdir(parents=True)
    write_shard(rows, folder/"codes/000-of-001-00000.arrow")
    (folder/"codes/card.json").write_text(json.dumps(dict(version=1, codec="t", codec_hash="t", frame_rate=50,
        sample_rate=24000, n_q=N_Q, codebook_size=BINS)))
    (folder/"sound").mkdir()
    x = (np.sin(np.arange(100*480)*.05)*8000+rng.normal(0, 500, 100*480)).astype("<i2")
    x.tofile(folder/"sound/audio.i16")
    np.full(100, -1, "<i2").tofile(folder/"sound/phones.i16")
    (folder/"sound/index.jsonl").write_text("\n".join(json.dumps(dict(at=a, frames=50)) for a in (0, 50)))

class Watched:
    "A loss that writes down who was heard, and remembers something: its running mean"
    def __init__(self, fn, order): self.fn, self.order, self.mean, self.n = fn, order, 0., 0
    def __call__(self, t, batch):
        if t.step != self.n: self.n, self.k = t.step, 0
        self.k = getattr(self, "k", 0)+1
        what = " ".join(batch.ids) if hasattr(batch, "ids") else f"{batch.wav.double().sum():.9f}"
        with open(self.order, "a") as f: f.write(f"{t.step} {self.k} {t.rank}|{what}\n")
        loss, m, *theirs = self.fn(t, batch)
        self.mean = .9*self.mean+.1*float(loss.detach())
        return loss, dict(m, mean=self.mean), *theirs
    def state_dict(self): return dict(mean=self.mean)
    def load_state_dict(self, s): self.mean = s["mean"]

class Slow:
    "Gives the one who kills us time to choose"
    def __init__(self, seconds): self.seconds = seconds
    def after_step(self, t): time.sleep(self.seconds)

def trainer(kind, data, folder, accum=2, steps=STEPS, slow=0., n_workers=2, save=0., **kw):
    data, folder = Path(data), Path(folder)
    folder.mkdir(exist_ok=True)
    torch.manual_seed(1)
    cfg = TrainConfig(lr=2e-3, max_steps=steps, warmup_steps=3, grad_accum_steps=accum, ema=.9, log_every=1, keep=2,
        save_every_minutes=save, seed=5, teacher_forcing_end=.3, scheduled_sampling=True, **kw)
    callbacks, others = [Gradients(every=3), Slow(slow)], None
    if kind == "codec":
        model, loader = MicroCodec(MicroCodecConfig(n_q=2, n_bins=16, code_dim=8, enc_dim=16, enc_layers=1, dec_dim=16,
            dec_layers=1)), AudioCrops(data/"sound", 2, .4, 5)
        others = dict(critic=nn.Linear(64, 1))
        def judged(t, b):
            loss, parts = t.model.loss(b)
            theirs = others["critic"](nn.functional.dropout(b.wav[:,:64], .2)).pow(2).mean()
            return loss, dict(parts, judged=theirs.detach()), dict(critic=theirs)
        loss = Watched(judged, folder/"order.txt")
    else:
        ds = CodesDataset(data/"codes", "train", None, Letters())
        loader = CodesLoader(ds, BucketSampler(ds.lengths, 90, 5), 5, n_workers, prompt_seconds=(.1, .3),
            group=2 if kind == "ar" else 1)
        common = dict(vocab_size=24, n_q=N_Q, n_bins=BINS, d_model=16, n_heads=2, n_layers=2, d_ff=32, dropout=.1,
            code_dim=4, speaker_dim=8)
        if kind == "ar":
            model, loss = AR(ARConfig(**common, group=2, duration_hidden_dim=8, frame_rate=50)), ar_loss
            callbacks.append(CodebookUse(frames=150, every=2))
        else: model, loss = NAR(NARConfig(**common, cond_dim=8, book_decay=1.)), lambda t, b: t.model.loss(b)
        loss = Watched(loss, folder/"order.txt")
    return Trainer(model, loader, cfg, folder, "cpu", callbacks, loss=loss, others=others)

def log(folder):
    return [{k:v for k,v in json.loads(l).items() if k != "elapsed"} for l in open(Path(folder)/"log.jsonl")]
def order(folder): # what was heard in each update, each time it was made
    out = {}
    for l in open(Path(folder)/"order.txt"):
        key, what = l.rstrip("\n").split("|")
        step, k, rank = map(int, key.split())
        out.setdefault((step, k, rank), []).append(what)
    return out
def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

def launch(kind, data, folder, *more, **kw):
    env = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    return subprocess.Popen([sys.executable, __file__, kind, str(data), str(folder), *more], env=env,
        stderr=open(Path(folder).with_suffix(".err"), "w"), **kw)

@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_data(folder)
    return folder

@pytest.fixture(scope="module")
def killed(data, tmp_path_factory):
    "One killed run of each kind, and where it was killed"
    top, dice, running = tmp_path_factory.mktemp("killed"), random.Random(SEED), {}
    for kind in KINDS: running[kind] = launch(kind, data, top/kind), dice.randint(3, STEPS//2), dice.uniform(0, .06)
    for kind,(p,step,more) in running.items():
        def made():
            return sum(1 for l in (top/kind/"order.txt").read_text().splitlines()
                if " 1 0|" in l) if (top/kind/"order.txt").exists() else 0
        end = time.time()+240
        while made() < step and p.poll() is None and time.time() < end: time.sleep(.003)
        time.sleep(more)
        p.send_signal(signal.SIGKILL)
        p.wait()
        print(f"\n{kind}: killed after {made()} updates, seed {SEED}")
        assert p.returncode == -signal.SIGKILL, (top/kind).with_suffix(".err").read_text()
        assert step <= made() < STEPS
    return top

@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed_equals_never_stopped(kind, data, killed, tmp_path):
    torch.set_num_threads(1)
    straight = trainer(kind, data, tmp_path/"straight").fit(progress=False)
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9) # resuming owes nothing to what ran before
    before = log(killed/kind) if (killed/kind/"log.jsonl").read_text().endswith("\n") else None
    t = trainer(kind, data, killed/kind)
    began = load_checkpoint(killed/kind/"last.pt")["step"]
    t.fit(resume=True, progress=False)
    assert 0 < began < STEPS and t.step == STEPS
    assert same(t.model.state_dict(), straight.model.state_dict())
    assert same(t.ema.state_dict(), straight.ema.state_dict())
    assert log(killed/kind) == log(tmp_path/"straight") and len(log(killed/kind)) >= STEPS
    assert before is None or before[:began] == log(tmp_path/"straight")[:began]
    a, b = order(killed/kind), order(tmp_path/"straight")
    # an update made twice heard the same twice
    assert a.keys() == b.keys() and all(set(a[k]) == set(b[k]) for k in b)
    assert all(len(v) == 1 for v in b.values())
    for x,y in zip(t.opt.state_dict()["state"].values(), straight.opt.state_dict()["state"].values()): assert same(x, y)
    if kind == "codec":
        assert same(t.others["critic"].state_dict(), straight.others["critic"].state_dict())
        assert any("critic_loss" in r for r in log(killed/kind))
    else:
        plan = t.loader.sampler
        assert plan.epoch >= 1 and len(plan.plan(0)) > 3                        # it went through more than one epoch
    if kind == "ar": assert any("use_ratio" in r for r in log(killed/kind))

def test_the_number_of_workers_changes_nothing(data, tmp_path):
    torch.set_num_threads(1)
    a = trainer("ar", data, tmp_path/"a", steps=4, n_workers=0, save=9).fit(progress=False)
    b = trainer("ar", data, tmp_path/"b", steps=4, n_workers=1, save=9).fit(progress=False)
    assert same(a.model.state_dict(), b.model.state_dict()) and order(tmp_path/"a") == order(tmp_path/"b")

def test_a_kill_during_saving_never_loses_the_last_good(data, tmp_path, monkeypatch):
    "Cut off at each call that touches the disk, a save leaves a run that can be resumed"
    class Killed(BaseException): pass
    t = trainer("nar", data, tmp_path/"r", steps=3, n_workers=0, save=9).fit(progress=False)
    t.save()
    cuts = 0
    for name in ("replace", "link", "fsync"):
        for when in range(8):
            t.step = 10
            folder = tmp_path/f"{name}{when}"
            shutil.copytree(tmp_path/"r", folder)
            t.folder = folder
            real, calls = getattr(os, name), []
            def cut(*a, **k):
                calls.append(a)
                if len(calls) > when: raise Killed
                return real(*a, **k)
            monkeypatch.setattr(os, name, cut)
            try:
                t.save()
                done = True
            except Killed: done = False
            monkeypatch.undo()
            if done: break
            cuts += 1
            assert (folder/"last.pt").exists(), f"killed at {name} {when}"
            assert load_checkpoint(folder/"last.pt")["step"] in (3, 10)
            u = trainer("nar", data, folder, steps=3, n_workers=0, save=9)
            u.load()
            assert u.step in (3, 10)
        assert done
    assert cuts >= 6
    t.folder, t.step = tmp_path/"r", 11
    t.save()
    assert load_checkpoint(tmp_path/"r/last.pt")["step"] == 11 and load_checkpoint(tmp_path/"r/last-1.pt")["step"] == 3

def test_a_broken_last_falls_back(data, tmp_path):
    t = trainer("nar", data, tmp_path/"r", steps=2, n_workers=0, save=9).fit(progress=False)
    t.step = 3
    t.save()
    (tmp_path/"r/last.pt").write_bytes((tmp_path/"r/last.pt").read_bytes()[:1000])
    u = trainer("nar", data, tmp_path/"r", steps=2, n_workers=0, save=9)
    with pytest.warns(UserWarning, match="going on with the one before"): u.load()
    assert u.step == 2

if __name__ == "__main__":
    torch.set_num_threads(1)
    kind, data, folder = sys.argv[1:4]
    trainer(kind, data, folder, slow=.05).fit(resume="--resume" in sys.argv, progress=False)
