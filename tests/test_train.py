"The loop: what it averages, how it stops, what it saves, where it can go on"
import json, os, signal, subprocess, sys, threading
from dataclasses import dataclass, replace
import numpy as np, pytest, torch
import torch.nn.functional as F
from torch import nn
from harmonica import checkpoint as C
from harmonica.checkpoint import load_checkpoint, save_checkpoint, suit
from harmonica.microcodec import AudioBatch
from harmonica.train import (TrainConfig, Trainer, device_selftest, fit, lr_at, pick_device, pick_precision,
    teacher_forcing_at)

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    def loss(self, batch):
        x, y = batch
        err = (self.a*x+self.b-y).pow(2).mean()
        return err, dict(err=err.detach())
class Points:
    def __init__(self): self.i = 0
    def __iter__(self):
        while True:
            g = torch.Generator().manual_seed(self.i)
            self.i += 1
            x = torch.rand(16, generator=g)
            yield torch.stack([x, 3*x-1])
    def state_dict(self): return dict(i=self.i)
    def load_state_dict(self, s): self.i = s["i"]
def cfg(**kw):
    return TrainConfig(**{**dict(lr=.1, max_steps=20, warmup_steps=2, grad_accum_steps=2, ema=.9, log_every=1,
        save_every_minutes=99), **kw})
def rows(folder): return [json.loads(l) for l in open(folder/"log.jsonl")]
def same(a, b): return all(torch.equal(x, y) for x,y in zip(a.state_dict().values(), b.state_dict().values()))

# -- averages

def sometimes(t, b):
    "Metric book_2 is there in every other micro-batch only, as in a NAR"
    loss,_ = t.model.loss(b)
    i = int(t.step*2+sometimes.k)
    sometimes.k = 1-sometimes.k
    return loss, dict(always=torch.tensor(1.), **({"loss_2": torch.tensor(4.)} if i%2 else {}))

def test_a_metric_is_averaged_over_those_that_have_it(tmp_path):
    sometimes.k = 0
    Trainer(Line(), Points(), cfg(max_steps=3), tmp_path, "cpu", loss=sometimes).fit(progress=False)
    for r in rows(tmp_path): assert r["loss_2"] == 4. and r["always"] == 1.

def test_valid_too_and_with_the_dice_of_its_own(tmp_path):
    sometimes.k = 0
    valid = [next(iter(Points())) for _ in range(4)]
    t = Trainer(Line(), Points(), cfg(), tmp_path, "cpu", valid=valid, loss=sometimes)
    v = t.validate()
    assert v["valid_loss_2"] == 4. and v["valid_always"] == 1.
    torch.manual_seed(3)
    before = torch.get_rng_state()
    t.validate()
    assert torch.equal(before, torch.get_rng_state())

def test_micro_batches_add_up_to_the_batch(tmp_path):
    "Two micro-batches give the update of the two together"
    a, b = Line(), Line()
    p = Points()
    it = iter(p)
    x, y = next(it), next(it)
    ta, tb = Trainer(a, Points(), cfg(), tmp_path, "cpu"), Trainer(b, Points(), cfg(grad_accum_steps=1), tmp_path,
        "cpu")
    ta.one_step([x, y])
    tb.one_step([torch.cat([x, y], 1)])
    assert torch.allclose(a.a, b.a, atol=1e-6)
    assert float(ta.metrics["loss"]) == pytest.approx(float(tb.metrics["loss"]), rel=1e-5)

def test_a_broken_batch_is_skipped(tmp_path):
    class Bad(Points):
        def __iter__(self):
            for i,b in enumerate(super().__iter__()): yield b*float("nan") if i == 2 else b
    t = Trainer(Line(), Bad(), cfg(max_steps=5, grad_accum_steps=1), tmp_path, "cpu").fit(progress=False)
    r = rows(tmp_path)
    assert np.isnan(r[2]["grad_norm"]) and all(np.isfinite(x["grad_norm"]) for i,x in enumerate(r) if i != 2)
    assert torch.isfinite(t.model.a).all()

# -- stopping and going on

class At:
    def __init__(self, step, do): self.n, self.do = step, do
    def after_step(self, t):
        if t.step == self.n: self.do()

def test_ctrl_c_waits_for_the_update_and_resumes_exactly(tmp_path):
    whole = Trainer(Line(), Points(), cfg(), tmp_path/"whole", "cpu").fit(progress=False)
    def loss(t, b):
        if t.step == 7 and not loss.sent:
            loss.sent = True
            signal.raise_signal(signal.SIGINT) # in the middle of an update
        return t.model.loss(b)
    loss.sent = False
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        Trainer(Line(), Points(), cfg(), tmp_path/"cut", "cpu", loss=loss).fit(progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    # the update was finished
    assert load_checkpoint(tmp_path/"cut/last.pt")["step"] == 8
    t = Trainer(Line(), Points(), cfg(), tmp_path/"cut", "cpu").fit(resume=True, progress=False)
    drop = lambda rs: [{k:v for k,v in r.items() if k != "elapsed"} for r in rs]
    assert same(t.model, whole.model) and same(t.ema, whole.ema)
    assert drop(rows(tmp_path/"cut")) == drop(rows(tmp_path/"whole"))

def test_twice_stops_at_once_and_keeps_the_last_checkpoint(tmp_path):
    def loss(t, b):
        if t.step == 7:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return t.model.loss(b)
    t = Trainer(Line(), Points(), cfg(save_every_minutes=0), tmp_path, "cpu", loss=loss)
    with pytest.raises(KeyboardInterrupt): t.fit(progress=False)
    assert load_checkpoint(tmp_path/"last.pt")["step"] == 7

def test_fit_works_outside_the_main_thread(tmp_path):
    done = []
    th = threading.Thread(target=lambda: done.append(fit(Line(), Points(), tmp_path, cfg(max_steps=2), device="cpu")))
    th.start()
    th.join()
    assert done[0].step == 2

def test_overtaken_lines_of_the_log_are_dropped(tmp_path):
    Trainer(Line(), Points(), cfg(), tmp_path, "cpu").fit(steps=10, progress=False)
    with open(tmp_path/"log.jsonl", "a") as f:
        f.write('{"step": 11, "loss": 5}\n{"step": 12, "valid_loss": 5}\n{"step": 1')
    Trainer(Line(), Points(), cfg(), tmp_path, "cpu").fit(resume=True, progress=False)
    assert [r["step"] for r in rows(tmp_path)] == list(range(1, 21)) and rows(tmp_path)[10]["loss"] != 5

def test_a_new_run_starts_a_new_log(tmp_path):
    (tmp_path/"log.jsonl").write_text('{"step": 99}\n')
    Trainer(Line(), Points(), cfg(max_steps=2), tmp_path, "cpu").fit(progress=False)
    assert [r["step"] for r in rows(tmp_path)] == [1, 2]

def test_keeps_the_last_k_and_the_best(tmp_path):
    Trainer(Line(), Points(), cfg(keep=3, max_steps=8, save_every_minutes=0, valid_every=2), tmp_path, "cpu",
        valid=[next(iter(Points()))]).fit(progress=False)
    assert {p.name for p in tmp_path.glob("*.pt")} == {"last.pt", "last-1.pt", "last-2.pt", "best.pt"}
    assert [load_checkpoint(tmp_path/f)["step"] for f in ("last.pt", "last-1.pt", "last-2.pt")] == [8, 8, 7]

def test_a_checkpoint_tells_all(tmp_path):
    Trainer(Line(), Points(), cfg(max_steps=2), tmp_path, "cpu").fit(progress=False)
    ck = load_checkpoint(tmp_path/"last.pt")
    assert {"model", "opt", "ema", "loader", "rng", "step", "seconds", "best", "training", "version",
        "memory"} <= set(ck)
    assert ck["training"]["lr"] == .1 and ck["version"]["torch"] == str(torch.__version__)
    assert ck["version"]["harmonica"] != "?" and {"python", "numpy", "torch"} <= set(ck["rng"])

def test_checkpoints_of_earlier_versions_load(tmp_path):
    Trainer(Line(), Points(), cfg(max_steps=4), tmp_path, "cpu").fit(steps=2, progress=False)
    ck = torch.load(tmp_path/"last.pt", weights_only=True)
    for k in ("version", "training", "precision", "scalers", "memory"): del ck[k]
    torch.save(ck, tmp_path/"last.pt")
    assert Trainer(Line(), Points(), cfg(max_steps=4), tmp_path, "cpu").fit(resume=True, progress=False).step == 4

def test_nothing_but_data_is_read(tmp_path):
    class Evil:
        def __reduce__(self): return os.mkdir, (str(tmp_path/"pwned"),)
    torch.save(dict(model={}, x=Evil()), tmp_path/"evil.pt")
    with pytest.raises(ValueError, match="can't be read as a checkpoint"): load_checkpoint(tmp_path/"evil.pt")
    assert not (tmp_path/"pwned").exists()

# -- other devices

@pytest.mark.parametrize("where", ("cuda:0", "cuda:3", "mps:0"))
def test_a_checkpoint_written_elsewhere_loads_here(where, tmp_path, monkeypatch):
    "Storages tagged with a device that is not here, and the generators of that device"
    m = Line()
    opt = torch.optim.AdamW(m.parameters())
    m.loss(next(iter(Points())))[0].backward()
    opt.step()
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: where)
    state = C.rng_state()
    kind = where.split(":")[0]
    monkeypatch.setattr(C, "rng_state", lambda: dict(state,
        **{kind: [torch.zeros(16, dtype=torch.uint8)] if kind == "cuda" else torch.zeros(16, dtype=torch.uint8)}))
    save_checkpoint(tmp_path/"x.pt", m, opt=opt, step=3)
    monkeypatch.undo()
    # the tag is real: without care this fails
    with pytest.raises(Exception): torch.load(tmp_path/"x.pt", weights_only=True)
    n = Line()
    opt2 = torch.optim.AdamW(n.parameters())
    ck = load_checkpoint(tmp_path/"x.pt", model=n, device=torch.device("cpu"), rng=True, opt=opt2)
    assert ck["step"] == 3 and same(m, n) and torch.equal(opt2.state[n.a]["exp_avg"], opt.state[m.a]["exp_avg"])

def test_nothing_of_64_bits_goes_to_a_mac(tmp_path, monkeypatch):
    "A pretended MPS: a module that refuses float64, as the real one does"
    m = Line().double()
    m.register_buffer("n", torch.ones(3, dtype=torch.float64))
    save_checkpoint(tmp_path/"x.pt", m, extra=dict(s=torch.ones(2).double()))
    went = []
    def to(self, device):
        assert str(device) == "mps" and all(t.dtype != torch.float64
            for t in (*self.parameters(), *self.buffers())), "MPS framework doesn't support float64"
        went.append(device)
        return self
    monkeypatch.setattr(Line, "to", to)
    n = Line().double()
    n.register_buffer("n", torch.zeros(3, dtype=torch.float64))
    class Part:
        def load_state_dict(self, s): self.s = s
    part = Part()
    load_checkpoint(tmp_path/"x.pt", model=n, device=torch.device("mps"), extra=part)
    assert went and n.a.dtype == torch.float32 and n.n.tolist() == [1, 1, 1] and part.s["s"].dtype == torch.float32
    assert suit([torch.ones(1).double(), (1, "a")], "mps")[1] == (1, "a")
    assert suit(torch.ones(1).double(), "cuda").dtype == torch.float64

def test_selftest_finds_faults(monkeypatch):
    assert device_selftest("cpu", (64, 1100)) == []
    right = F.scaled_dot_product_attention
    for fault, words in ((lambda q, k, o: o*.9 if q.shape[2] == 1 and k.shape[2] > 1024 else o, "one place over 1100"),
                         (lambda q, k, o: o+.1 if q.shape[2] > 1024 else o, "attention over 1100"),
                         (lambda q, k, o: o*float("nan") if k.shape[2] > 1024 else o, "off by nan")):
        monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, **kw: fault(q, k, right(q, k, v, **kw)))
        found = device_selftest("cpu", (64, 1100))
        assert found and any(words in f for f in found) and not any("over 64 " in f for f in found), found
        monkeypatch.undo()

def test_a_suspect_device_is_warned_of_at_the_start(tmp_path, monkeypatch):
    import harmonica.train as T
    monkeypatch.setattr(T, "device_selftest", lambda d: ["attention over 1100 places on mps is off"])
    t = Trainer(Line(), Points(), cfg(max_steps=1), tmp_path, "cpu")
    class Dev:  # a device that says it is not the CPU, and is
        type = "mps"
    monkeypatch.setattr(t, "device", Dev())
    monkeypatch.setattr(t, "one_step", lambda b: (_ for _ in ()).throw(RuntimeError("enough")))
    with pytest.warns(UserWarning, match="1100 places"), pytest.raises(RuntimeError, match="enough"):
        t.fit(progress=False)

def test_pick_device_under_torchrun(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("cuda") == torch.device("cuda") and pick_device() == torch.device("cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("cuda") == pick_device() == torch.device("cuda:1")
    assert pick_device("cuda:0") == torch.device("cuda:0")

def test_precision_is_measured(monkeypatch, tmp_path):
    assert pick_precision("cpu", "bf16") == "bf16" and pick_precision("cpu") in ("fp32", "bf16")
    with pytest.raises(ValueError, match="precision 'int4' is unknown"): pick_precision("cpu", "int4")
    import harmonica.train as T
    def clock(times):
        it = iter([x for k in times for x in (0., k)*4])
        return lambda: next(it)
    for fp32, bf16, want in ((1., .5, "bf16"), (1., .95, "fp32"), (1., 2., "fp32")):
        monkeypatch.setattr(T.time, "perf_counter", clock([fp32, bf16]))
        assert pick_precision("cpu", size=8) == want
    monkeypatch.undo()
    for p in ("bf16", "fp16"):
        Trainer(Line(), Points(), cfg(precision=p, max_steps=6), tmp_path/p, "cpu").fit(steps=3, progress=False)
        u = Trainer(Line(), Points(), cfg(precision=p, max_steps=6), tmp_path/p, "cpu").fit(resume=True, progress=False)
        w = Trainer(Line(), Points(), cfg(precision=p, max_steps=6), tmp_path/f"{p}w", "cpu").fit(progress=False)
        assert u.step == 6 and same(u.model, w.model) and u.scalers[""].is_enabled() == (p == "fp16")

# -- schedules

def test_schedules():
    c = TrainConfig(lr=1., min_lr=.1, max_steps=100, warmup_steps=10)
    assert lr_at(0, c) == pytest.approx(.1) and lr_at(9, c) == pytest.approx(1.)
    assert lr_at(100, c) == lr_at(200, c) == pytest.approx(.1)
    for kind in ("linear", "cosine", "exponential"):
        c = TrainConfig(max_steps=100, teacher_forcing_schedule=kind, teacher_forcing_start=.9, teacher_forcing_end=.3)
        y = [teacher_forcing_at(i, c) for i in range(0, 121)]
        assert y[0] == pytest.approx(.9) and y[100] == y[120] == pytest.approx(.3)
        assert all(a >= b-1e-9 for a,b in zip(y, y[1:]))
    assert teacher_forcing_at(50, TrainConfig(max_steps=100, teacher_forcing_schedule="linear",
        teacher_forcing_end=.5)) == pytest.approx(.75)
    assert teacher_forcing_at(99, TrainConfig(scheduled_sampling=False)) == 1.
    with pytest.raises(ValueError, match="sigmoid.*linear, cosine, exponential"):
        teacher_forcing_at(1, TrainConfig(teacher_forcing_schedule="sigmoid"))

@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked")
def test_memory_is_kept_from_step_to_step():
    "The second time the same memory is asked for, it is there: no page has to be fetched anew"
    code = """if 1:
        import resource, sys, torch
        from harmonica.train import keep_pages
        if sys.argv[1] == "keep" and not keep_pages(): print(-1, -1); sys.exit()
        faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        make = lambda: [torch.ones(1<<22) for _ in range(8)]
        make(); a = faults(); make(); make(); print(faults()-a)"""
    runs = {how: int(subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True,
        check=True).stdout.split()[0]) for how in ("keep", "give back")}
    # another C library than glibc: nothing to ask
    assert runs["keep"] == -1 or runs["keep"] < runs["give back"]/4, runs

# -- runs that go wrong

class Pair(nn.Module):
    "A line that learns from dataclass batches, and may be short of memory"
    def __init__(self, most=99):
        super().__init__()
        self.a, self.most, self.heard = nn.Parameter(torch.zeros(1)), most, []
    def loss(self, b):
        if len(b) > self.most: raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.heard += b.ids
        err = (self.a*b.x-b.y).pow(2).mean()
        return err, dict(err=err.detach())

@dataclass
class Rows:
    x:torch.Tensor
    y:torch.Tensor
    ids:list
    def __len__(self): return len(self.ids)
    def to(self, device): return self

class Deals:
    def __init__(self): self.i = 0
    def __iter__(self):
        while True:
            x = torch.linspace(-1, 1, 8)+self.i
            self.i += 1
            yield Rows(x, 2*x, [f"{self.i}-{k}" for k in range(8)])
    def state_dict(self): return dict(i=self.i)
    def load_state_dict(self, s): self.i = s["i"]

def test_short_memory_cuts_batches_and_not_the_update(tmp_path):
    whole = Trainer(Pair(), Deals(), cfg(max_steps=3, grad_accum_steps=1), tmp_path/"a", "cpu").fit(progress=False)
    with pytest.warns(UserWarning, match="out of memory: micro-batches are made in 4 pieces"):
        small = Trainer(Pair(most=2), Deals(), cfg(max_steps=3, grad_accum_steps=1), tmp_path/"b",
            "cpu").fit(progress=False)
    assert small.split == 4 and small.step == 3 and set(whole.model.heard) == set(small.model.heard)
    assert torch.allclose(whole.model.a, small.model.a, atol=1e-6)
    with pytest.raises(ValueError, match="out of memory with one utterance"):
        Trainer(Pair(most=0), Deals(), cfg(), tmp_path/"c", "cpu").fit(progress=False)

def test_companions_learn_beside_the_model(tmp_path):
    "From the same batches, each its own loss, whole or in pieces; memory may run out in their part, too"
    def run(folder, most):
        critic = Pair(most)
        def loss(t, b):
            theirs, _ = critic.loss(replace(b, y=-b.y))
            return *t.model.loss(b), dict(critic=theirs)
        how = cfg(max_steps=3, grad_accum_steps=2)
        t = Trainer(Pair(), Deals(), how, tmp_path/folder, "cpu", loss=loss, others=dict(critic=critic))
        return t.fit(progress=False)
    whole = run("whole", 99)
    with pytest.warns(UserWarning, match="out of memory: micro-batches are made in 2 pieces"): small = run("small", 4)
    for t in (whole, small):
        assert t.model.a > 0 > t.others["critic"].a and {"loss", "critic_loss", "critic_grad_norm"} <= set(t.metrics)
    assert small.split == 2 and torch.allclose(whole.others["critic"].a, small.others["critic"].a, atol=1e-6)
    with pytest.raises(ValueError, match="return a loss, metrics and a dict"):
        Trainer(Pair(), Deals(), cfg(), tmp_path/"none", "cpu", others=dict(critic=Pair())).fit(progress=False)

def test_short_memory_cuts_batches_of_sound_too(tmp_path):
    "They are tensors, and know no length"
    class Sounds(Points):
        def __iter__(self):
            while True: yield AudioBatch(torch.arange(6.)[:,None].repeat(1, 4), torch.full((6, 1), -1))
    def loss(t, batch):
        if len(batch.wav) > 2: raise MemoryError
        return (t.model.a-batch.wav).pow(2).mean(), {}
    with pytest.warns(UserWarning, match="out of memory: micro-batches are made in 4 pieces"):
        t = Trainer(Line(), Sounds(), cfg(max_steps=2), tmp_path, "cpu", loss=loss).fit(progress=False)
    assert t.split == 4 and t.step == 2

def test_a_run_that_comes_to_nothing_stops_and_spoils_nothing(tmp_path):
    t = Trainer(Line(), Points(), cfg(max_steps=5), tmp_path, "cpu").fit(progress=False)
    good = (tmp_path/"last.pt").read_bytes()
    def nan(t, b): return t.model.loss(b)[0]*float("nan"), {}
    with pytest.raises(ValueError, match="not a number any more, for 5 updates.*training.lr.*--resume") as e:
        Trainer(Line(), Points(), cfg(max_steps=99, save_every_minutes=0), tmp_path, "cpu",
            loss=nan).fit(resume=True, progress=False)
    assert "\n" not in str(e.value) and (tmp_path/"last.pt").read_bytes() == good
    with pytest.raises(ValueError, match="not a number"):
        Trainer(Line(), Points(), cfg(max_steps=7), tmp_path, "cpu", loss=nan).fit(resume=True, progress=False)
    assert (tmp_path/"last.pt").read_bytes() == good and t.step == 5

def test_two_runs_in_one_folder(tmp_path):
    from harmonica.files import locked
    with locked(tmp_path, "run"):
        with pytest.raises(ValueError, match="this run is in use by another process"):
            Trainer(Line(), Points(), cfg(), tmp_path, "cpu").fit(progress=False)
    assert not (tmp_path/"log.jsonl").exists()

def test_settings_out_of_range_are_refused(tmp_path):
    for bad in (dict(log_every=0), dict(grad_accum_steps=0), dict(max_steps=-3), dict(ema=2.), dict(clip=0.)):
        with pytest.raises(ValueError, match=next(iter(bad))): Trainer(Line(), Points(), cfg(**bad), tmp_path, "cpu")

def test_a_broken_checkpoint_says_what_is_left(tmp_path):
    Trainer(Line(), Points(), cfg(max_steps=2, keep=1), tmp_path, "cpu").fit(progress=False)
    whole = (tmp_path/"last.pt").read_bytes()
    (tmp_path/"last.pt").write_bytes(whole[:len(whole)//2])
    with pytest.warns(UserWarning, match="can't be read"), pytest.raises(ValueError,
        match="last.pt in .* can't be read, and no other checkpoint is there: give another folder"):
        Trainer(Line(), Points(), cfg(), tmp_path, "cpu").fit(resume=True, progress=False)

def test_only_a_damaged_checkpoint_is_passed_over(tmp_path):
    "One of another model stops the resume, whatever its folder is called"
    run = tmp_path/"can't be read"
    Trainer(Line(), Points(), cfg(max_steps=2), run, "cpu").fit(progress=False)
    with pytest.raises(ValueError, match="is of another model or size"):
        Trainer(nn.Linear(2, 3), Points(), cfg(), run, "cpu", loss=lambda *_: None).load()
