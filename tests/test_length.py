"Length: durations, places, bounds"
import pytest, torch
from harmonica.length import MODES, MARGIN, SLACK, LengthControl, length_loss, stretch, token_times

torch.manual_seed(0)
x, n, spk = torch.randn(3, 8, 16), torch.tensor([8,1,5]), torch.randn(3, 4)

@pytest.mark.parametrize("mode", MODES)
def test_durations_are_positive_where_real(mode):
    lc = LengthControl(mode, 16, 4, 8)
    d = lc(x, n, spk)
    for row,k in zip(d, n): assert (row[:k]>0).all() and not row[k:].any()
    length_loss(d, torch.tensor([40,3,22])).backward()
    assert any(p.grad is not None and p.grad.abs().sum()>0 for p in lc.parameters())

def test_padding_is_not_heard():
    lc = LengthControl("duration_predictor", 16, 4, 8)
    torch.nn.init.normal_(lc.predict.out.weight)
    d = lc(x, n, spk)
    y = x.clone()
    y[1,1:] = 99.
    y[2,5:] = -99.
    assert torch.allclose(lc(y, n, spk), d, atol=1e-5)
    assert torch.allclose(lc(x[2:,:5], n[2:], spk[2:]), d[2:,:5], atol=1e-5)

def test_durations_stay_finite():
    lc = LengthControl("duration_predictor", 16, 4, 8)
    torch.nn.init.normal_(lc.predict.out.weight, std=1e4)
    d = lc(x, n, spk)
    assert d.isfinite().all() and d.max() <= 4*20.1 and d[0].min() >= 4/20.1

def test_loss_is_about_ratios():
    a = length_loss(torch.full((1,4), 5.), torch.tensor([40]))
    b = length_loss(torch.full((1,4), 50.), torch.tensor([400]))
    assert torch.allclose(a, b) and length_loss(torch.full((1,4), 5.), torch.tensor([20])) < 1e-6

def test_token_times_grow_and_fit():
    d, total = torch.rand(3, 8)*torch.tensor([[1.]*8, [1.]+[0]*7, [1.]*5+[0]*3]), torch.tensor([40.,7,30])
    at = lambda d: token_times(stretch(d, total), torch.tensor([0.,-3,0]))
    p = at(d)
    assert (p[:,1:] >= p[:,:-1]-1e-4).all() and torch.isclose(p[1,0], torch.tensor(.5))
    assert p[0].min() > 0 and p[0].max() < 40 and p[2,:5].max() < 30
    assert torch.allclose(at(d*3), p, atol=1e-4)   # only shares count

@pytest.mark.parametrize("mode", MODES)
def test_bounds(mode):
    lo, hi = LengthControl(mode, 16, 4, 8).bounds(torch.tensor([.5, 10., 1000.]))
    assert (lo >= 1).all() and (hi > lo).all() and lo[2] < 1000 < hi[2]
    assert hi[0] >= MARGIN and SLACK[mode][0] < 1 < SLACK[mode][1]

def test_only_length_prompt_tells():
    for mode in MODES:
        lc = LengthControl(mode, 16, 4, 8)
        same = torch.equal(lc.add_length(x, torch.tensor([10,100,1000])), x)
        assert same == (mode != "length_prompt")
    assert lc.add_length(x, torch.tensor([0., 1e9, 5.])).isfinite().all()

def test_unknown_mode():
    with pytest.raises(ValueError, match="stop_token"): LengthControl("magic", 16, 4)

def test_measured_durations_end_the_speech():
    lo, hi = LengthControl("duration_predictor", 16, 4, 8, measured=True).bounds(torch.tensor([100.]))
    assert 50 < lo < 100 <= hi < 110
