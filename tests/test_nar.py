"The NAR: sizes, padding, what it may see, losses, painting"
from dataclasses import asdict
from types import SimpleNamespace
import pytest, torch
from harmonica.nar import NAR, NARConfig, packing, positions

small = dict(vocab_size=20, n_q=4, n_bins=16, d_model=32, n_heads=2, n_layers=2, d_ff=64, dropout=0., code_dim=8, cond_dim=12, speaker_dim=16, gap=4)

def make(**kw):
    torch.manual_seed(0)
    nar = NAR(NARConfig(**{**small, **kw})).eval()
    for n,p in nar.named_parameters():                # AdaLN starts at no change: shake it, or conditioning would go untested
        if 'ada' in n or n.endswith(('bias','nobody')): torch.nn.init.normal_(p, std=.2)
    return nar

def make_batch(seed=0, B=5, L=9, P=14, T=12, **kw):
    g = torch.Generator().manual_seed(seed)
    b = SimpleNamespace(text=torch.randint(1, 20, (B,L), generator=g), text_len=torch.randint(1, L+1, (B,), generator=g),
        codes=torch.randint(16, (B,4,T), generator=g), n_frames=torch.randint(1, T+1, (B,), generator=g),
        prompt=torch.randint(16, (B,4,P), generator=g), prompt_len=torch.randint(0, P+1, (B,), generator=g),
        continues=torch.rand(B, generator=g) < .5)
    vars(b).update(kw)
    return b

def paint(nar, b, book, T=None):
    s = nar.scene(b.text, b.text_len, b.prompt, b.prompt_len, b.n_frames, b.continues, T)
    return nar(s, b.codes, book)

def scramble(b, seed):
    "Other padding, and more of it"
    g, out = torch.Generator().manual_seed(seed), dict(vars(b))
    for name,n,hi in (('text','text_len',20), ('codes','n_frames',16), ('prompt','prompt_len',16)):
        x = out[name]
        big = torch.randint(hi, (*x.shape[:-1], x.shape[-1]+int(torch.randint(5, (1,), generator=g))), generator=g)
        keep = (torch.arange(big.shape[-1]) < out[n][:,None]).view(len(x), *[1]*(x.dim()-2), -1)
        big[...,:x.shape[-1]] = torch.where(keep[...,:x.shape[-1]], x, big[...,:x.shape[-1]])
        out[name] = big
    return SimpleNamespace(**out)

def n_params(cfg): return sum(p.numel() for p in NAR(cfg).parameters())

@pytest.mark.parametrize('vocab_size', [64, 128, 256])
def test_full_size_is_30M(vocab_size): assert abs(n_params(NARConfig(vocab_size=vocab_size))/30e6 - 1) < .05

def test_micro_is_small(): assert n_params(NARConfig(vocab_size=128, d_model=256, n_layers=6, n_heads=4, d_ff=768, cond_dim=64, speaker_dim=128)) < 8e6

@torch.no_grad()
@pytest.mark.parametrize('seed', range(8))
def test_padding_is_invisible(seed):
    nar, b = make(), make_batch(seed)
    book = torch.randint(0, 4, (5,), generator=torch.Generator().manual_seed(seed))
    x = paint(nar, b, book, b.codes.shape[-1])
    c = scramble(b, seed)
    y = paint(nar, c, book, c.codes.shape[-1])
    for i,n in enumerate(b.n_frames.tolist()):
        torch.testing.assert_close(x[i,:n], y[i,:n], atol=1e-5, rtol=1e-4)
        L,P = b.text_len[i], b.prompt_len[i]          # and the same as on its own
        one = make_batch(text=b.text[i:i+1,:L], text_len=b.text_len[i:i+1], codes=b.codes[i:i+1,:,:n], n_frames=b.n_frames[i:i+1],
            prompt=b.prompt[i:i+1,:,:P], prompt_len=b.prompt_len[i:i+1], continues=b.continues[i:i+1])
        torch.testing.assert_close(x[i,:n], paint(nar, one, book[i:i+1])[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(nar.loss(b, torch.Generator().manual_seed(1))[0], nar.loss(c, torch.Generator().manual_seed(1))[0], atol=1e-5, rtol=1e-4)

@torch.no_grad()
def test_sees_what_it_should():
    "Lower books, text, prompt and book number change the output; the book itself and higher ones do not"
    nar, b = make(), make_batch(1, text_len=torch.full((5,), 9), prompt_len=torch.full((5,), 14), n_frames=torch.full((5,), 12))
    two = torch.full((5,), 2)
    x = paint(nar, b, two)
    def change(**kw): return (paint(nar, SimpleNamespace(**{**vars(b), **kw}), two) - x).abs().amax((1,2))
    def other(j): c = b.codes.clone(); c[:,j] = (c[:,j]+1) % 16; return c
    def prompt(j): c = b.prompt.clone(); c[:,j] = (c[:,j]+1) % 16; return c
    for j in (0,1): assert change(codes=other(j)).min() > 1e-4
    for j in (2,3): assert change(codes=other(j)).max() == 0
    for j in range(4): assert change(prompt=prompt(j)).min() > 1e-4
    assert change(text=b.text % 19 + 1).min() > 1e-4
    assert change(prompt_len=torch.zeros(5, dtype=torch.long)).min() > 1e-4
    assert change(continues=~b.continues).min() > 1e-4
    assert (paint(nar, b, torch.full((5,), 2)+1) - x).abs().amax((1,2)).min() > 1e-4

@torch.no_grad()
def test_looks_both_ways():
    nar, b = make(), make_batch(2, B=1, n_frames=torch.tensor([12]))
    one = torch.tensor([1])
    x = paint(nar, b, one)
    for t in (0,11):
        c = b.codes.clone(); c[0,0,t] = (c[0,0,t]+1) % 16
        assert (paint(nar, SimpleNamespace(**{**vars(b), 'codes':c}), one) - x).abs().amax(-1).min() > 1e-7

@torch.no_grad()
def test_books_may_differ_in_a_batch():
    nar, b = make(), make_batch(3)
    mixed = paint(nar, b, torch.tensor([1,2,3,1,2]))
    for j in (1,2,3):
        same = paint(nar, b, torch.full((5,), j))
        for i in [i for i,k in enumerate([1,2,3,1,2]) if k==j]:
            torch.testing.assert_close(mixed[i,:b.n_frames[i]], same[i,:b.n_frames[i]], atol=1e-5, rtol=1e-4)

def test_positions():
    t = lambda *x: torch.tensor(x)
    for P in (0, 5, 10):                              # a separate prompt of any length shifts nothing
        pos = positions(t(4), t(P), t(8), t(False), torch.full((1,4), 2.), P, 8, gap=16)[0]
        assert pos[:4].tolist() == [.5, 2.5, 4.5, 6.5] and pos[-8:].tolist() == list(range(8))
        assert pos[4:-8].tolist() == list(range(-P-16, -16))
    pos = positions(t(4), t(8), t(8), t(True), torch.full((1,4), 4.), 8, 8)[0]
    assert pos[4:].tolist() == list(range(-8, 8)) and pos[:4].tolist() == [-6.5, -2.5, 1.5, 5.5]

def test_packing():
    real = torch.rand(7, 30, generator=torch.Generator().manual_seed(0)) < .4
    order,kept = packing(real)
    for r,o,k in zip(real, order, kept): assert o[k].tolist() == r.nonzero()[:,0].tolist()
    assert order.shape[1] == real.sum(1).max()

@torch.no_grad()
def test_max_prompt_keeps_the_end():
    nar = make(max_prompt=4)
    nar.speaker.forward = lambda prompt, n=None: torch.zeros(len(prompt), 12)   # the speaker vector hears all of it
    b = make_batch(4, B=2, prompt_len=torch.tensor([14,9]), n_frames=torch.tensor([12,12]))
    one = torch.tensor([1,1])
    x = paint(nar, b, one)
    for t,changes in ((4,False), (5,True), (8,True)):
        c = b.prompt.clone(); c[1,:,t] = (c[1,:,t]+1) % 16
        assert bool((paint(nar, SimpleNamespace(**{**vars(b), 'prompt':c}), one)[1] - x[1]).abs().max() > 1e-6) == changes

@pytest.mark.parametrize('kw', [{}, dict(tied=False), dict(grad_checkpoint=True), dict(max_prompt=3)])
def test_loss_trains_every_parameter(kw):
    nar = make(dropout=.1, **kw).train()
    g = torch.Generator().manual_seed(0)
    b = make_batch(5, B=12)
    b.prompt_len[0] = 0
    loss,m = nar.loss(b, g)
    loss.backward()
    assert loss.isfinite() and not any(v.requires_grad for v in m.values()) and 'loss' not in m
    assert all(p.grad is not None and p.grad.isfinite().all() for p in nar.parameters())
    n,books = b.n_frames, nar.draw_books(12, torch.Generator().manual_seed(0))
    mean = sum(m[f'loss_{j}']*n[books==j].sum() for j in (1,2,3)) / n.sum()
    torch.testing.assert_close(mean, m['loss_code'])

def test_loss_repeats_with_a_generator_and_one_book():
    nar, b = make().train(), make_batch(6)
    a,c = (nar.loss(b, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(a, c)
    assert {k for k in nar.loss(b, book=2)[1]} == {'loss_code','top1','top10','loss_2','top1_2'}

@pytest.mark.parametrize('book', [0, 4, -1])
def test_wrong_book(book):
    with pytest.raises(ValueError, match='books 1 to 3'): make().loss(make_batch(), book=book)

def test_wrong_number_of_books():
    with pytest.raises(ValueError, match='8 books'): make().loss(make_batch(codes=torch.zeros(5,8,12, dtype=torch.long)))

def test_draw_books_is_weighted_and_even():
    nar = make(book_decay=.5)
    books = torch.cat([nar.draw_books(7, torch.Generator().manual_seed(i)) for i in range(500)])
    share = torch.bincount(books, minlength=4)[1:]/len(books)
    torch.testing.assert_close(share, torch.tensor([4.,2,1])/7, atol=.01, rtol=0)
    assert {tuple(torch.bincount(nar.draw_books(7, torch.Generator().manual_seed(i))).tolist()) for i in range(9)} == {(0,4,2,1)}

def test_generate():
    nar, g = make().train(), torch.Generator().manual_seed(0)
    b = make_batch(7)
    texts = [t[:n] for t,n in zip(b.text, b.text_len)]
    books = [c[0,:n] for c,n in zip(b.codes, b.n_frames)]
    prompts = [p[:,:n] if n else None for p,n in zip(b.prompt, b.prompt_len)]
    many = nar.generate_batch(texts, books, prompts)
    assert nar.training
    for t,c,p,out in zip(texts, books, prompts, many):
        assert out.shape == (4,len(c)) and torch.equal(out[0], c) and torch.equal(out, nar.generate(t, c, p))
    assert not torch.equal(nar.generate(texts[0], books[0], prompts[0]), nar.generate(texts[0], books[0], b.prompt[1]))
    a,c = (nar.generate(texts[0], books[0], temperature=1., generator=torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(a, c) and a.shape == many[0].shape and 0 <= int(a.min()) <= int(a.max()) < 16
    assert nar.generate([3], [5], prompts[1], continues=True).shape == (4,1)

@pytest.mark.parametrize('args,words', [
    (([], [1]), 'text tokens'), (([1], []), 'at least one frame'), (([1], [[1]]), 'book 0'), (([99], [1]), 'text token outside'),
    (([1], [16]), 'code outside'), (([1], [-1]), 'code outside'), (([1], [1], torch.zeros(2,5)), '4 books'), (([1], [1], torch.full((4,5), 16)), 'prompt code outside')])
def test_generate_refuses(args, words):
    with pytest.raises(ValueError, match=words) as e: make().generate(*args)
    assert '\n' not in str(e.value)

@torch.no_grad()
def test_lives_in_a_file():
    "Config and state dict are all there is to a NAR"
    nar = make()
    twin = NAR(NARConfig(**asdict(nar.cfg))).eval()
    twin.load_state_dict(nar.state_dict())
    assert torch.equal(twin.generate([1,2], [3,4,5]), nar.generate([1,2], [3,4,5]))

def test_devices_come_from_the_input():
    "With another default device, any tensor made without saying where would clash"
    nar, b = make(), make_batch(8)
    here = nar.generate([1,2,3], b.codes[0,0], b.prompt[0])
    text = torch.tensor([1,2,3])
    with torch.device('meta'): there = nar.generate(text, b.codes[0,0], b.prompt[0]), nar.generate(text, b.codes[0,0])
    assert torch.equal(here, there[0]) and there[1].device.type == 'cpu'

def test_durations_place_the_text_and_tell_each_frame_its_token():
    "With durations a frame hears the token that sounds in it; without, the text is spread evenly"
    torch.manual_seed(0)
    nar = NAR(NARConfig(vocab_size=12, n_q=3, n_bins=16, d_model=16, n_heads=2, n_layers=1, d_ff=32, code_dim=4, cond_dim=8, speaker_dim=8)).eval()
    text, n = torch.tensor([[1,2,3]]), torch.tensor([3])
    none, no = torch.zeros(1, nar.cfg.n_q, 0, dtype=torch.long), torch.tensor([0])
    def about(d): return nar.scene(text, n, none, no, torch.tensor([9]), torch.tensor([False]), durations=d).about[0]
    with torch.no_grad():
        assert torch.equal(about(None), about(torch.zeros(1,3))) and torch.allclose(about(None), about(torch.full((1,3), 3.)))
        assert not torch.allclose(about(torch.tensor([[6.,2,1]])), about(None))

def test_one_stroke():
    nar = make(stroke=.5); b = make_batch(n_frames=torch.full((5,), 12), text_len=torch.full((5,), 9), continues=torch.zeros(5, dtype=torch.bool))
    with pytest.raises(ValueError, match="entries"): nar.loss(b, torch.Generator().manual_seed(0))
    nar.entries = torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(1))
    drawn = torch.cat([nar.draw_books(10, torch.Generator().manual_seed(i)) for i in range(20)])
    assert (drawn == 0).float().mean() == .5 and set(drawn.tolist()) == {0,1,2,3}
    opt, far = torch.optim.AdamW(nar.train().parameters(), 5e-3), []
    for i in range(150):
        loss, m = nar.loss(b, torch.Generator().manual_seed(i)); loss.backward(); opt.step(); opt.zero_grad()
        far.append(m["stroke"].item())
    assert far[-1] < .3*far[0]
    how = dict(prompts=[p[:,:n] for p,n in zip(b.prompt, b.prompt_len)], vectors=nar.entries)
    one = nar.generate_batch(b.text, b.codes[:,0], n_q=1, **how); all4 = nar.generate_batch(b.text, b.codes[:,0], **how)
    for i,((c,z),(d,y)) in enumerate(zip(one, all4)):
        assert torch.equal(c, b.codes[i,:1]) and d.shape == (4,12) and z.shape == (12,8)
        torch.testing.assert_close(z, y)                          # the vector does not hang on the books that are filled beside it
    true = torch.stack([sum(e[c] for e,c in zip(nar.entries, u)) for u in b.codes])
    assert (torch.stack([z for _,z in one])-true).pow(2).mean() < .5*true.pow(2).mean()

def test_book0_may_come_in_another_voice():
    "Only in training, only for strokes, and what is to be said stays the true one"
    nar, b = make(stroke=.5, corrupt=0., dropout=0.), make_batch(); nar.entries = torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(1))
    def loss(book0, train=True, **kw):
        b.book0 = book0; nar.train(train)
        return nar.loss(b, torch.Generator().manual_seed(0), **kw)[0].item()
    own, other = b.codes[:,0], (b.codes[:,0]+5)%16
    assert loss(own) == loss(None) != loss(other)
    assert loss(other, train=False) == loss(None, train=False)
    assert loss(other, book=1) == loss(None, book=1)

@pytest.mark.parametrize("stroke", [0., .5])
def test_guidance_goes_from_nobody_towards_the_prompt(stroke):
    nar, b = make(stroke=stroke), make_batch()
    def z(g, prompt=b.prompt[0], go_on=False): return nar.generate(b.text[0], b.codes[0,0], prompt, go_on, n_q=2, vectors=torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(0)), guidance=g)[1]
    with_it, without, far = z(1.), z(1., None), z(2.)
    assert not torch.allclose(with_it, without) and not torch.allclose(far, with_it)
    torch.testing.assert_close(z(0.), without); torch.testing.assert_close(z(3., None), without)   # nobody's voice; and no prompt is none, however bold
    if stroke: torch.testing.assert_close(far, 2*with_it-without)
    torch.testing.assert_close(z(2., go_on=True), z(1., go_on=True))
