"Gauges measure what they say, change nothing, and alarms ring when and only when they should"
import json, math
import numpy as np, pytest, torch
from harmonica.ar import AR, ARConfig
from harmonica.codec import Clip
from harmonica.data import Batch
from harmonica.monitor import (Alarms, Attention, CodebookUse, Gradients, Page, Printer, Speak, column, curves, diagnose, effective, looks, page, part_of, read_log)
from harmonica.train import TrainConfig, Trainer

BINS = 16
def batch(seed, B=6, L=4):
    r = np.random.default_rng(seed); text = r.integers(1, 9, (B, L)); n = torch.from_numpy(r.integers(8, 17, B))
    c = lambda T: torch.from_numpy(r.integers(0, BINS, (B, 2, T)))
    return Batch(torch.from_numpy(text), torch.full((B,), L), c(16), n, c(10), torch.full((B,), 10), torch.zeros(B, dtype=torch.bool), [str(i) for i in range(B)])
class Loader:
    i = 0
    def __iter__(self):
        while True: self.i += 1; yield batch(self.i)
    def state_dict(self): return dict(i=self.i)
    def load_state_dict(self, s): self.i = s["i"]

def ar(group=1):
    torch.manual_seed(0)
    return AR(ARConfig(vocab_size=9, n_bins=BINS, n_q=2, d_model=16, n_heads=2, n_layers=2, d_ff=32, code_dim=4, speaker_dim=8, duration_hidden_dim=8, frame_rate=25, group=group, dropout=.1))
def run(folder, callbacks, steps=6, group=1, accum=2):
    cfg = TrainConfig(max_steps=steps, warmup_steps=1, grad_accum_steps=accum, ema=.9, log_every=1, valid_every=3, scheduled_sampling=False, lr=1e-3)
    return Trainer(ar(group), Loader(), cfg, folder, device="cpu", callbacks=callbacks, valid=[batch(0)]).fit(progress=False)

def test_effective():
    assert effective(torch.ones(64))==pytest.approx(64, rel=1e-4) and effective(torch.tensor([7., 0, 0]))==pytest.approx(1) and effective(torch.tensor([1., 1, 0]))==pytest.approx(2)

@pytest.mark.parametrize("group", (1, 2))
def test_watching_changes_nothing(tmp_path, group):
    said = []
    plain = run(tmp_path/"plain", [], group=group)
    cb = [CodebookUse(frames=100, every=2), Gradients(every=2), Attention(), Alarms(every=2), Page(), Printer(every=2, write=said.append), Speak(lambda m: Clip(torch.randn(2400)*.1))]
    watched = run(tmp_path/"watched", cb, group=group)
    assert all(torch.equal(a, b) for a,b in zip(plain.model.state_dict().values(), watched.model.state_dict().values()))
    rows = read_log(tmp_path/"watched")
    for k in ("use_ratio", "grad/block 0", "alignment", "attention_entropy", "valid_loss"): assert any(k in r for r in rows), k
    assert any("top10" in l for l in said) and any(l.startswith("valid step 3") for l in said)
    assert (tmp_path/"watched/page.html").stat().st_size > 5000 and len(list((tmp_path/"watched/spoken").glob("*.ogg")))==2
    assert not watched.model.head._forward_hooks

def test_codebook_use_counts_the_truth(tmp_path):
    use = CodebookUse(frames=10**9, every=1)
    run(tmp_path/"r", [use], steps=2, accum=1)
    want = torch.zeros(BINS)
    for i in (1, 2):
        b = batch(i); want += torch.bincount(b.codes[:,0][b.frame_mask], minlength=BINS)
    assert torch.equal(use.true, want) and use.said.sum()==want.sum()

def test_a_model_that_says_one_code_is_seen():
    use = CodebookUse(); m, b = ar(), batch(3)
    out = torch.zeros(6, 17, BINS+1); out[...,5] = 50
    use.out = out; use.count(m, b)
    assert effective(use.said) < 1.001 and effective(use.true) > 8

def test_gradients_add_up(tmp_path):
    g = Gradients(every=1)
    t = run(tmp_path/"r", [g], steps=3)
    assert sum(v**2 for v in g.norms.values())**.5==pytest.approx(float(t.metrics["grad_norm"]), rel=1e-3)
    assert part_of("tf.blocks.3.attn.qkv.weight")=="block 3" and part_of("text.emb.weight")=="text"

def test_looks_sees_a_diagonal():
    class Model(torch.nn.Module):
        "Attends to the text at its own time, or evenly"
        def __init__(self, how):
            super().__init__(); from harmonica.blocks import Transformer
            self.tf, self.how, self.cfg = Transformer(8, 2, 2, 8), how, ARConfig(group=1)
        def loss(self, b):
            L, S = b.text.shape[1], b.codes.shape[2]+1
            a = torch.full((len(b.text), 2, 1+L+S, 1+L+S), 1/(1+L+S))
            if self.how=="follows":
                a *= 0
                for s in range(S): a[:,:,1+L+s,1+min(L-1, s*L//S)] = 1
            for i in self.tf.watched: self.tf.maps[i] = a
    b = batch(0); b.n_frames[:] = 16
    align, ent, m = looks(Model("follows"), b)
    assert align.max() > .9 and ent.max() < .01 and m.shape==(16, 4)
    align, ent, m = looks(Model("anywhere"), b)
    assert align.abs().max() < .1 and ent.min() > .99

def steps(n, **kw): return [dict(step=10*(i+1), **{k: (v(i) if callable(v) else v) for k,v in kw.items()}) for i in range(n)]
HEALTHY = dict(loss=lambda i: 7*math.exp(-i/40)+2, grad_norm=1., top10=lambda i: min(.7, i/80))

def test_no_alarm_without_cause():
    assert diagnose(steps(30, loss=6.9, grad_norm=1.)) == []   # a slow start
    assert diagnose([]) == [] and diagnose(steps(3, **HEALTHY)) == [] and diagnose(steps(100, **HEALTHY)) == []
    assert diagnose(steps(100, **HEALTHY)+[dict(step=1000, use_ratio=.9, use_said=500, use_true=550), dict(step=1000, alignment=.2)]) == []   # too early to judge alignment

@pytest.mark.parametrize("words,rows", [
    ("not a number", steps(20, **dict(HEALTHY, loss=lambda i: float("nan") if i==15 else 3.))),
    ("loss rose", steps(40, loss=lambda i: 3. if i<20 else 6., grad_norm=1.)),
    ("has not moved", steps(110, loss=6.9, grad_norm=1.)),
    ("gradient norm jumped", steps(40, **dict(HEALTHY, grad_norm=lambda i: 100. if i==39 else 1.))),
    ("variety", steps(40, **HEALTHY)+[dict(step=400, use_ratio=.2)]),
    ("no head follows", steps(40, **HEALTHY)+[dict(step=6000, alignment=.1)]),
    ("frozen", [dict(step=200, alignment=.1, attention_entropy=.001)]),
    ("first ten", [dict(step=30000, loss=4., top10=.2)]),
    ("valid loss rises", [dict(step=100*i, valid_loss=v) for i,v in enumerate((5, 4, 3, 3.3, 3.5, 3.8))]),
    ("no gradient reaches", [{"step": 500, "grad/block 0": 1., "grad/block 1": 0., "grad/text": 1.}]),
])
def test_each_alarm(words, rows):
    found = diagnose(rows)
    assert any(words in a["what"] for a in found), found
    assert all(a["why"] and a["do"] and "\n" not in a["what"] for a in found)

def test_an_alarm_rings_once(tmp_path):
    said = []
    a = Alarms(every=1, write=said.append)
    class T: folder, step = tmp_path, 1
    (tmp_path/"log.jsonl").write_text("\n".join(json.dumps(r) for r in steps(110, loss=6.9, grad_norm=1.)))
    a.after_step(T); a.after_step(T)
    assert len(said)==1 and "has not moved" in said[0]

def test_log_of_a_resumed_or_broken_run(tmp_path):
    (tmp_path/"log.jsonl").write_text('{"step": 10, "loss": 3}\n{"step": 20, "loss": 2}\n{"step": 30, "loss": 1}\n{"step": 20, "loss": 2.5}\n{"step": 20, "valid_loss": 2}\n{"step": 3')
    rows = read_log(tmp_path)
    assert [r.get("loss") for r in rows]==[3, 2, 2.5, None] or [r.get("loss") for r in rows]==[3, 2.5, None]
    assert column(rows, "none")[0].size==0
    with pytest.raises(ValueError, match="no log.jsonl"): read_log(tmp_path/"x")

def test_page_escapes_and_survives_odd_logs(tmp_path):
    (tmp_path/"log.jsonl").write_text('{"step": 1, "loss": NaN, "<b>": 1}\n')
    (tmp_path/"config.yaml").write_text("a: <script>")
    text = page(tmp_path).read_text()
    assert "<script>" not in text and "&lt;b&gt;" in text and "not a number" in text
