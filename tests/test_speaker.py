"The speaker encoder: padding, empty prompts, gradients"
import pytest, torch
from harmonica.speaker import SpeakerEncoder

def make(**kw):
    torch.manual_seed(0)
    enc = SpeakerEncoder(4, 32, code_dim=8, dim=16, out_dim=12, **kw).eval()
    torch.nn.init.normal_(enc.null_speaker)
    return enc

def test_shape_and_length():
    enc = make()
    for P in (1, 2, 7, 100): assert enc(torch.randint(32, (3,4,P))).shape == (3,12)

@torch.no_grad()
@pytest.mark.parametrize("seed", range(5))
def test_padding_is_invisible(seed):
    enc, g = make(), torch.Generator().manual_seed(seed)
    lens = torch.randint(0, 30, (6,), generator=g)
    codes = torch.randint(32, (6,4,40), generator=g)
    other = torch.where(torch.arange(40) < lens[:,None,None], codes, torch.randint(32, (6,4,40), generator=g))
    v = enc(codes, lens)
    assert torch.equal(v, enc(other, lens))
    for i,n in enumerate(lens.tolist()):
        torch.testing.assert_close(v[i], enc(codes[i:i+1,:,:n])[0], atol=1e-5, rtol=1e-4)

@torch.no_grad()
def test_nobody():
    enc = make()
    assert torch.equal(enc(torch.zeros(2,4,0, dtype=torch.long)), enc.null_speaker.expand(2,-1))
    v = enc(torch.randint(32, (2,4,9)), torch.tensor([0,9]))
    assert torch.equal(v[0], enc.null_speaker) and not torch.equal(v[1], enc.null_speaker) and v.isfinite().all()

def test_gradients_are_finite_with_empty_prompts():
    enc = make()
    enc(torch.zeros(3,4,9, dtype=torch.long), torch.tensor([0,9,1])).pow(2).sum().backward()
    assert all(p.grad.isfinite().all() for p in enc.parameters() if p.grad is not None)
    assert enc.null_speaker.grad.abs().sum() > 0 and enc.books.tables.grad.abs().sum() > 0

@pytest.mark.parametrize("shape", [(2,3,9), (4,9), (1,2,4,9)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match="books"): make()(torch.zeros(shape, dtype=torch.long))

def test_codec_books_load():
    enc = make()
    assert enc.books.load_books(torch.randn(8,32,8)) and not enc.books.load_books(torch.randn(8,16,8))
