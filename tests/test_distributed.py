"""The same command under torchrun learns the same thing, and a run may go on with another number of processes

The child of these tests is this file itself, started twice by torchrun."""
import os, subprocess, sys
from pathlib import Path
import pytest, torch
sys.path.insert(0, str(Path(__file__).parent))
from test_resume import log, make_data, order, trainer
from harmonica.train import RankShard, add_up, shard_loader

STEPS, CUT, ACCUM = 10, 5, 4
def tr(kind, data, folder): return trainer(kind, data, folder, accum=ACCUM, steps=STEPS, n_workers=0, save=9)
def heard(folder): # step -> the utterances of each micro-batch, in the order of the whole
    out = {}
    for (step,k,rank),(what,*again) in order(folder).items():
        assert not again
        out.setdefault(step, []).append((k, rank, what))
    return {s: [w for *_,w in sorted(v)] for s,v in out.items()}
def close(a, b, tol=1e-5):
    assert len(a) == len(b)
    for x,y in zip(a, b):
        assert x.keys() == y.keys()
        for k in x: assert x[k] == pytest.approx(y[k], abs=tol, rel=1e-4), (x["step"], k)
def plain(rows): # `mean` and codebook use are of the first process's share
    rows = [{k:v for k,v in r.items() if not k.startswith("use_") and k != "mean"} for r in rows]
    return [r for r in rows if len(r) > 1]

@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.set_num_threads(1)
    top = tmp_path_factory.mktemp("ddp")
    make_data(top/"data")
    for kind in ("ar", "nar"):
        tr(kind, top/"data", top/f"{kind}-one").fit(progress=False)                        # one process, all the way
        tr(kind, top/"data", top/f"{kind}-grows").fit(steps=CUT, progress=False)           # one, to be continued by two
    env = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    r = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port",
        str(29500+os.getpid()%1000), __file__, str(top)], env=env, capture_output=True, text=True, timeout=400)
    assert r.returncode == 0, r.stderr[-3000:]
    for kind in ("ar", "nar"):                                                             # two, continued by one
        tr(kind, top/"data", top/f"{kind}-shrinks").fit(resume=True, progress=False)
    return top

@pytest.mark.parametrize("kind", ("ar", "nar"))
@pytest.mark.parametrize("how", ("two", "grows", "shrinks"))
def test_same_curve_same_data(runs, kind, how):
    one, other = runs/f"{kind}-one", runs/f"{kind}-{how}"
    # nothing twice, nothing left out
    assert heard(other) == heard(one) and len(heard(one)) == STEPS
    close(plain(log(one)), plain(log(other)))
    a, b = (torch.load(f/"last.pt", weights_only=True) for f in (one, other))
    for w in ("model", "ema"):
        # a bias before a softmax has no gradient but rounding, which Adam blows up
        far = {k: float((a[w][k]-b[w][k]).abs().max()) for k in a[w] if not torch.allclose(a[w][k], b[w][k], atol=1e-4)}
        assert not far, far
    assert a["step"] == b["step"] == STEPS and a["loader"] == b["loader"]
    assert a["seconds"] == pytest.approx(b["seconds"])

def test_each_process_worked_and_only_the_first_wrote(runs):
    ranks = {r for _,_,r in order(runs/"ar-two")}
    assert ranks == {0, 1}
    assert {p.name for p in (runs/"ar-two").iterdir() if p.name[0] != "."} == {"last.pt", "log.jsonl", "order.txt"}
    steps = [r["step"] for r in log(runs/"ar-two") if "loss" in r]
    assert steps == list(range(1, STEPS+1))

def test_a_share_that_does_not_come_out_is_refused(monkeypatch, tmp_path):
    import harmonica.train as T
    monkeypatch.setattr(T, "join", lambda d: (0, 3))
    with pytest.raises(ValueError, match="grad_accum_steps=4 can't be shared by 3 processes"):
        T.Trainer(torch.nn.Linear(1, 1), [], T.TrainConfig(), tmp_path, "cpu")

def test_turns_cover_everything_once():
    class Count:
        i = 0
        def __iter__(self):
            while True:
                self.i += 1
                yield self.i
        def state_dict(self): return dict(i=self.i)
        def load_state_dict(self, s): self.i = s["i"]
    def take(loader, n):
        it = iter(loader)
        return [next(it) for _ in range(n)]
    whole = [RankShard(Count(), r, 3) for r in range(3)]
    got = [take(t, 2) for t in whole]
    assert sorted(sum(got, [])) == [1, 2, 3, 4, 5, 6] and all(t.state_dict() == dict(i=6) for t in whole)
    t = RankShard(Count(), 1, 2)
    t.load_state_dict(whole[0].state_dict())
    assert take(t, 2) == [8, 10]
    c = Count()
    assert shard_loader(c, 0, 1) is c and add_up(torch.nn.Linear(1, 1), 1) is None

if __name__ == "__main__":
    torch.set_num_threads(1)
    top = Path(sys.argv[1])
    for kind in ("ar", "nar"):
        tr(kind, top/"data", top/f"{kind}-two").fit(progress=False)
        tr(kind, top/"data", top/f"{kind}-grows").fit(resume=True, progress=False)
        tr(kind, top/"data", top/f"{kind}-shrinks").fit(steps=CUT, progress=False)
