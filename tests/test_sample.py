"Properties of `harmonica.sample`"
import pytest, torch
from hypothesis import given, settings, strategies as st
from harmonica.sample import draw, probabilities, sample

gen = lambda seed=0: torch.Generator().manual_seed(seed)
logits = lambda B=4, V=50, seed=0: torch.randn(B, V, generator=gen(seed))*3

dials = dict(temperature=st.floats(0, 5), top_k=st.one_of(st.none(), st.integers(0, 60)),
    top_p=st.one_of(st.none(), st.floats(0, 1)))

@settings(max_examples=80)
@given(**dials, seed=st.integers(0, 99))
def test_a_distribution(temperature, top_k, top_p, seed):
    p = probabilities(x := logits(seed=seed), temperature, top_k, top_p)
    assert p.shape == x.shape and (p >= 0).all() and torch.allclose(p.sum(-1), torch.ones(4))
    assert (p.gather(-1, x.argmax(-1, keepdim=True)) > 0).all()                  # the best is always there
    kept = p > 0
    if top_k and temperature: assert (kept.sum(-1) <= top_k).all()
    # what is kept is the top
    for row, keep in zip(x, kept): assert keep.all() or temperature < .2 or row[keep].min() >= row[~keep].max()

@settings(max_examples=30)
@given(**dials, seed=st.integers(0, 99), ras=st.booleans())
def test_forbidden_is_never_chosen(temperature, top_k, top_p, seed, ras):
    x = logits(seed=seed)
    x[:, ::2] = -torch.inf
    for _ in range(5):
        assert (sample(x, temperature, top_k, top_p, history=torch.ones(4, 12, dtype=torch.long) if ras else None,
            generator=gen(seed)) % 2 == 1).all()

def test_top_p_is_the_smallest_set():
    p = torch.tensor([[.5, .3, .15, .05]])
    count = lambda q: (probabilities(p.log(), 1, 0, q) > 0).sum().item()
    assert [count(q) for q in (0, .4, .51, .79, .81, .96, 1)] == [1, 1, 2, 2, 3, 4, 4]

def test_greedy():
    x = logits()
    assert torch.equal(sample(x, temperature=0), x.argmax(-1))
    assert torch.equal(sample(x, temperature=0, history=torch.zeros(4, 5, dtype=torch.long)), x.argmax(-1))
    assert torch.isfinite(probabilities(x, temperature=1e-6)).all()              # nearly greedy is no trouble either
    assert torch.equal(sample(x, top_k=1), x.argmax(-1)) and torch.equal(sample(x, top_p=0.), x.argmax(-1))

def test_ties_give_one():
    assert probabilities(torch.zeros(1, 5), temperature=0).sum() == 1
    assert (probabilities(torch.zeros(1, 5), 1, 2, 1) > 0).sum() == 2

@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    out = sample(logits().to(dtype), generator=gen())
    assert out.dtype == torch.long and out.shape == (4,)

def test_reproducible_and_leaves_inputs_alone():
    x, h = logits(), torch.zeros(4, 3, dtype=torch.long)
    a, b = x.clone(), h.clone()
    assert torch.equal(sample(x, history=h, generator=gen(3)), sample(x, history=h, generator=gen(3)))
    assert torch.equal(x, a) and torch.equal(h, b)
    torch.manual_seed(1)
    one = sample(x)
    torch.manual_seed(1)
    assert torch.equal(one, sample(x))

def test_rows_are_independent():
    x = logits(64, 20)
    x[32:] = x[:32]
    assert not torch.equal((s := sample(x, 2., 0, 1, generator=gen()))[:32], s[32:])

def test_frequencies():
    p = torch.tensor([[.6, .25, .1, .05, 0.]])
    got = draw(p.expand(20_000, -1), gen()).bincount(minlength=5)/20_000
    assert (got - p[0]).abs().max() < .015 and got[4] == 0

class Always:
    "torch.rand at its ends"
    def __init__(self, u): self.u = u
@pytest.mark.parametrize("u", [0., 1-2**-24])
def test_ends_of_the_unit_interval(u, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *s, **kw: torch.full(s, u))
    p = torch.tensor([[0., .7, .3, 0.]])
    assert draw(p).item() in (1, 2)

def test_repetition_aware():
    "A code that fills the window is drawn again from everything; one that does not, is kept"
    x = torch.full((2000, 10), 0.)
    x[:, 3] = 4. # the nucleus is {3}; its share of everything 86%
    stuck = torch.full((2000, 10), 3)
    plain, fresh, loop = (sample(x, 1., 0, .5, history=h, generator=gen())
        for h in (None, torch.zeros(2000, 10, dtype=torch.long), stuck))
    assert (plain == 3).all() and (fresh == 3).all()
    assert abs((loop == 3).float().mean() - x.softmax(-1)[0,3]) < .03

def test_window_and_threshold():
    x = torch.full((500, 10), 0.)
    x[:, 3] = 4.
    h = torch.zeros(500, 40, dtype=torch.long)
    h[:, :20] = 3 # long ago
    kept = lambda **kw: (sample(x, 1., 0, .5, history=h, generator=gen(), **kw) == 3).all().item()
    assert kept() and not kept(ras_window=40) and kept(ras_window=40, ras_threshold=.5) and kept(ras_window=0)
    h[:, -1] = 3
    assert kept() and not kept(ras_threshold=.05)                                # one in ten does not exceed .1

def test_empty_history_and_padding():
    x = logits()
    assert sample(x, history=torch.zeros(4, 0, dtype=torch.long), generator=gen()).shape == (4,)
    a = sample(x, history=torch.full((4, 10), -1), generator=gen())
    assert torch.equal(a, sample(x, generator=gen()))

@pytest.mark.parametrize("kw,word", [(dict(temperature=-1), "temperature"), (dict(top_k=-1), "top_k"),
    (dict(top_p=95), "top_p"), (dict(top_p=-.1), "top_p"), (dict(temperature=float("nan")), "temperature")])
def test_wrong_dials(kw, word):
    with pytest.raises(ValueError, match=word) as e: sample(logits(), **kw)
    assert "\n" not in str(e.value)
