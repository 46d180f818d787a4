"Gauges measure what they say, change nothing, and alarms ring when and only when they should"
import json, math
import numpy as np, pytest, torch
from harmonica.ar import AR, ARConfig
from harmonica.codec import Clip
from harmonica.batch import Batch
from harmonica.nar import NAR, NARConfig
from harmonica.monitor import (Alarms, Attention, Books, CodebookUse, Gradients, Page, Printer, Speak, TensorBoard,
    column, diagnose, perplexity, looks, page, part_name, read_log)
from harmonica.train import TrainConfig, Trainer

BINS = 16
def batch(seed, B=6, L=4):
    r = np.random.default_rng(seed)
    text = r.integers(1, 9, (B, L))
    n = torch.from_numpy(r.integers(8, 17, B))
    c = lambda T: torch.from_numpy(r.integers(0, BINS, (B, 2, T)))
    codes, prompts = c(16), c(10)
    return Batch.of(text, prompts, [x[:,:k] for x,k in zip(codes, n)])
class Loader:
    i = 0
    def __iter__(self):
        while True:
            self.i += 1
            yield batch(self.i)
    def state_dict(self): return dict(i=self.i)
    def load_state_dict(self, s): self.i = s["i"]

def ar(group=1):
    torch.manual_seed(0)
    return AR(ARConfig(vocab_size=9, n_bins=BINS, n_q=2, d_model=16, n_heads=2, n_layers=2, d_ff=32, code_dim=4,
        speaker_dim=8, duration_hidden_dim=8, frame_rate=25, group=group, dropout=.1))
def run(folder, callbacks, steps=6, group=1, accum=2):
    cfg = TrainConfig(max_steps=steps, warmup_steps=1, grad_accum_steps=accum, ema=.9, log_every=1, valid_every=3,
        scheduled_sampling=False, lr=1e-3)
    return Trainer(ar(group), Loader(), cfg, folder, device="cpu", callbacks=callbacks,
        valid=[batch(0)]).fit(progress=False)

def test_effective():
    assert perplexity(torch.ones(64))==pytest.approx(64, rel=1e-4)
    assert perplexity(torch.tensor([7., 0, 0]))==pytest.approx(1)
    assert perplexity(torch.tensor([1., 1, 0]))==pytest.approx(2)

@pytest.mark.parametrize("group", (1, 2))
def test_watching_changes_nothing(tmp_path, group):
    said = []
    plain = run(tmp_path/"plain", [], group=group)
    cb = [CodebookUse(frames=100, every=2), Gradients(every=2), Attention(), Alarms(every=2), Page(),
        Printer(every=2, write=said.append), Speak(lambda m: Clip(torch.randn(2400)*.1))]
    watched = run(tmp_path/"watched", cb, group=group)
    assert all(torch.equal(a, b) for a,b in zip(plain.model.state_dict().values(), watched.model.state_dict().values()))
    rows = read_log(tmp_path/"watched")
    for k in ("use_ratio", "grad/block 0", "alignment", "attention_entropy", "valid_loss"):
        assert any(k in r for r in rows), k
    assert any("top10" in l for l in said) and any(l.startswith("valid step 3") for l in said)
    assert (tmp_path/"watched/page.html").stat().st_size > 5000
    assert len(list((tmp_path/"watched/spoken").glob("*.ogg")))==2
    assert not watched.model.head._forward_hooks

def test_codebook_use_counts_the_truth(tmp_path):
    use = CodebookUse(frames=10**9, every=1)
    run(tmp_path/"r", [use], steps=2, accum=1)
    want = torch.zeros(BINS)
    for i in (1, 2):
        b = batch(i)
        want += torch.bincount(b.codes[:,0][b.frame_mask], minlength=BINS)
    assert torch.equal(use.true, want) and use.drawn.sum()==want.sum()

def test_a_model_that_says_one_code_is_seen():
    use = CodebookUse()
    m, b = ar(), batch(3)
    out = torch.zeros(6, 17, BINS+1)
    out[...,5] = 50
    use.out = out
    use.count(m, b)
    assert perplexity(use.drawn) < 1.001 and perplexity(use.true) > 8

def test_gradients_add_up(tmp_path):
    g = Gradients(every=1)
    t = run(tmp_path/"r", [g], steps=3)
    assert sum(v**2 for v in g.norms.values())**.5==pytest.approx(float(t.metrics["grad_norm"]), rel=1e-3)
    assert part_name("body.blocks.3.attn.qkv.weight")=="block 3" and part_name("text.emb.weight")=="text"

def test_update_ratio_is_what_the_weights_moved(tmp_path):
    g, seen = Gradients(every=1), {}
    class Before:
        def before_update(self, t): seen["old"] = {n: p.detach().clone() for n,p in t.model.named_parameters()}
        def after_step(self, t): seen["new"] = {n: p.detach().clone() for n,p in t.model.named_parameters()}
    run(tmp_path/"r", [Before(), g], steps=2)
    for part in ("block 0", "text"):
        names = [n for n in seen["old"] if part_name(n)==part]
        moved = sum((seen["new"][n]-seen["old"][n]).pow(2).sum() for n in names)/sum(seen["old"][n].pow(2).sum()
            for n in names)
        assert g.ratios[part]==pytest.approx(float(moved)**.5, rel=1e-4) and g.ratios[part] > 0
    rows = read_log(tmp_path/"r")
    assert [r["step"] for r in rows if "update_ratio" in r]==[1, 2]
    assert all(0 < r["update_ratio"] < 1 for r in rows if "update_ratio" in r)

def test_gradients_are_those_before_clipping(tmp_path):
    g = Gradients(every=1)
    cfg = TrainConfig(max_steps=1, grad_accum_steps=1, ema=0, log_every=1, clip=1e-3, scheduled_sampling=False)
    t = Trainer(ar(), Loader(), cfg, tmp_path, device="cpu", callbacks=[g]).fit(progress=False)
    assert sum(v**2 for v in g.norms.values())**.5==pytest.approx(float(t.metrics["grad_norm"]), rel=1e-3)
    assert t.metrics["grad_norm"] > .01

def test_every_head_is_logged(tmp_path):
    look = Attention()
    run(tmp_path/"r", [look], steps=3)
    row = next(r for r in read_log(tmp_path/"r") if "alignment" in r)
    assert {k for k in row if k.startswith("align/")}=={f"align/{i}.{j}" for i in range(2) for j in range(2)}
    assert row["align/1.0"]==pytest.approx(float(look.align[1,0]), abs=1e-5)
    assert row["alignment"]==pytest.approx(max(v for k,v in row.items() if k.startswith("align/")), abs=1e-5)

def test_books_one_by_one(tmp_path):
    torch.manual_seed(0)
    nar = NAR(NARConfig(vocab_size=9, n_bins=BINS, n_q=4, d_model=16, n_heads=2, n_layers=1, d_ff=32, code_dim=4,
        speaker_dim=8, cond_dim=8))
    def wide(b):
        b.codes, b.prompt = b.codes.repeat(1, 2, 1), b.prompt.repeat(1, 2, 1)
        return b
    class Wide(Loader):
        def __iter__(self):
            for b in Loader.__iter__(self): yield wide(b)
    books = Books()
    cfg = TrainConfig(max_steps=2, grad_accum_steps=1, ema=.9, log_every=1, valid_every=2)
    t = Trainer(nar, Wide(), cfg, tmp_path, device="cpu", callbacks=[books], valid=[wide(batch(0))]).fit(progress=False)
    assert set(books.books)=={1, 2, 3}
    with torch.no_grad(): loss, m = t.ema.eval().loss(t.valid[0], book=2)
    row = next(r for r in read_log(tmp_path) if "book2_loss" in r)
    assert row["book2_loss"]==pytest.approx(float(loss), abs=1e-5)
    assert row["book2_top10"]==pytest.approx(float(m["top10"]), abs=1e-5)

def test_spoken_with_its_flags(tmp_path):
    cb = Speak(lambda m: Clip(torch.randn(2400)*.1), lambda clip: dict(silence=clip.seconds > 1, noise=True))
    run(tmp_path/"r", [cb], steps=3)
    assert [(r["flag/silence"], r["flag/noise"]) for r in read_log(tmp_path/"r") if "flag/noise" in r]==[(0, 1)]

def test_tensorboard_gets_every_line(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    run(tmp_path/"r", [TensorBoard()], steps=4)
    e = EventAccumulator(str(tmp_path/"r/tensorboard"))
    e.Reload()
    rows = [r for r in read_log(tmp_path/"r") if "loss" in r]
    assert [(x.step, round(x.value, 4)) for x in e.Scalars("loss")]==[(r["step"], round(r["loss"], 4)) for r in rows]
    assert len(rows)==4

def test_tensorboard_absent_is_said(tmp_path, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"): run(tmp_path/"r", [TensorBoard()], steps=1)

def test_looks_sees_a_diagonal():
    class Model(torch.nn.Module):
        "Attends to the text at its own time, or evenly"
        def __init__(self, how):
            super().__init__()
            from harmonica.blocks import Transformer
            self.body, self.how, self.cfg = Transformer(8, 2, 2, 8), how, ARConfig(group=1)
        def loss(self, b):
            L, S = b.text.shape[1], b.codes.shape[2]+1
            a = torch.full((len(b.text), 2, 1+L+S, 1+L+S), 1/(1+L+S))
            if self.how=="follows":
                a *= 0
                for s in range(S): a[:,:,1+L+s,1+min(L-1, s*L//S)] = 1
            for i in self.body.watched: self.body.maps[i] = a
    b = batch(0)
    b.n_frames[:] = 16
    align, ent, m = looks(Model("follows"), b)
    assert align.max() > .9 and ent.max() < .01 and m.shape==(16, 4)
    align, ent, m = looks(Model("anywhere"), b)
    assert align.abs().max() < .1 and ent.min() > .99

def steps(n, **kw):
    return [dict(step=10*(i+1), **{k: (v(i) if callable(v) else v) for k,v in kw.items()}) for i in range(n)]
HEALTHY = dict(loss=lambda i: 7*math.exp(-i/40)+2, grad_norm=1., top10=lambda i: min(.7, i/80))

def test_no_alarm_without_cause():
    assert diagnose(steps(30, loss=6.9, grad_norm=1.)) == []   # a slow start
    assert diagnose([{"step": s, "flag/noise": float(s<3000)}
        for s in (1000, 2000, 3000)]+[dict(step=s, update_ratio=1e-3) for s in (1, 1000, 2000)]) == []
    assert diagnose([]) == [] and diagnose(steps(3, **HEALTHY)) == [] and diagnose(steps(100, **HEALTHY)) == []
    # too early to judge alignment
    assert diagnose(steps(100, **HEALTHY)+[dict(step=1000, use_ratio=.9, use_said=500, use_true=550),
        dict(step=1000, alignment=.2)]) == []

def test_a_game_against_critics_is_not_stuck():
    assert diagnose(steps(110, loss=17.5, grad_norm=4., critic_loss=1.7)) == []

@pytest.mark.parametrize("words,rows", [("not a number",
    steps(20, **dict(HEALTHY, loss=lambda i: float("nan") if i==15 else 3.))),
    ("not a number", steps(20, **HEALTHY, critic_grad_norm=lambda i: float("nan") if i==15 else 1.)),
    ("loss rose", steps(40, loss=lambda i: 3. if i<20 else 6., grad_norm=1.)),
    ("has not moved", steps(110, loss=6.9, grad_norm=1.)),
    ("gradient norm jumped", steps(40, **dict(HEALTHY, grad_norm=lambda i: 100. if i==39 else 1.))),
    ("variety", steps(40, **HEALTHY)+[dict(step=400, use_ratio=.2)]),
    ("no head follows", steps(40, **HEALTHY)+[dict(step=6000, alignment=.1)]),
    ("frozen", [dict(step=200, alignment=.1, attention_entropy=.001)]),
    ("first ten", [dict(step=30000, loss=4., top10=.2)]),
    ("valid loss rises", [dict(step=100*i, valid_loss=v) for i,v in enumerate((5, 4, 3, 3.3, 3.5, 3.8))]),
    ("moved the weights by 30%", steps(20, **HEALTHY)+[dict(step=100, update_ratio=.3),
    dict(step=200, update_ratio=.01)]), ("move the weights by only",
    [dict(step=s, update_ratio=1e-8) for s in (400, 600, 800)]),
    ("sentences it spoke were broken: noise",
    [{"step": s, "flag/noise": 1., "flag/silence": 0.} for s in (1000, 2000, 3000)]),
    ("no gradient reaches", [{"step": 500, "grad/block 0": 1., "grad/block 1": 0., "grad/text": 1.}]),])
def test_each_alarm(words, rows):
    found = diagnose(rows)
    assert any(words in a["what"] for a in found), found
    assert all(a["why"] and a["do"] and "\n" not in a["what"] for a in found)

def test_an_alarm_rings_once(tmp_path):
    said = []
    a = Alarms(every=1, write=said.append)
    class T: folder, step = tmp_path, 1
    (tmp_path/"log.jsonl").write_text("\n".join(json.dumps(r) for r in steps(110, loss=6.9, grad_norm=1.)))
    a.after_step(T)
    a.after_step(T)
    assert len(said)==1 and "has not moved" in said[0]

def test_log_of_a_resumed_or_broken_run(tmp_path):
    (tmp_path/"log.jsonl").write_text('{"step": 10, "loss": 3}\n{"step": 20, "loss": 2}\n{"step": 30, "loss": 1}\n'
        '{"step": 20, "loss": 2.5}\n{"step": 20, "valid_loss": 2}\n{"step": 3')
    rows = read_log(tmp_path)
    assert [r.get("loss") for r in rows]==[3, 2, 2.5, None] or [r.get("loss") for r in rows]==[3, 2.5, None]
    assert column(rows, "none")[0].size==0
    with pytest.raises(ValueError, match="no log.jsonl"): read_log(tmp_path/"x")

def test_page_escapes_and_survives_odd_logs(tmp_path):
    (tmp_path/"log.jsonl").write_text('{"step": 1, "loss": NaN, "<b>": 1}\n')
    (tmp_path/"config.yaml").write_text("a: <script>")
    text = page(tmp_path).read_text()
    assert "<script>" not in text and "&lt;b&gt;" in text and "not a number" in text
