"The NAR: sizes, padding, what it may see, losses, painting"
from dataclasses import asdict, replace
import pytest, torch
from harmonica.batch import Batch, length_mask
from harmonica.context import pack, pick
from harmonica.nar import NAR, NARConfig

small = dict(vocab_size=20, n_q=4, n_bins=16, d_model=32, n_heads=2, n_layers=2, d_ff=64, dropout=0., code_dim=8,
    cond_dim=12, speaker_dim=16, gap=4)

def make(**kw):
    torch.manual_seed(0)
    nar = NAR(NARConfig(**{**small, **kw})).eval()
    # AdaLN starts at no change: shake it, or conditioning would go untested
    for n,p in nar.named_parameters():
        if "ada" in n or n.endswith(("bias","null_speaker")): torch.nn.init.normal_(p, std=.2)
    return nar

def make_batch(seed=0, B=5, L=9, P=14, T=12, **kw):
    g = torch.Generator().manual_seed(seed)
    b = Batch(text=torch.randint(1, 20, (B,L), generator=g), text_len=torch.randint(1, L+1, (B,), generator=g),
        codes=torch.randint(16, (B,4,T), generator=g), n_frames=torch.randint(1, T+1, (B,), generator=g),
        prompt=torch.randint(16, (B,4,P), generator=g), prompt_len=torch.randint(0, P+1, (B,), generator=g),
        continues=torch.rand(B, generator=g) < .5)
    return replace(b, **kw)

def paint(nar, b, book): return nar(nar.encode(b), b.codes, book)

def ask(text, prompt=None, **kw): return Batch.of([text], [prompt], cfg=NARConfig(**small), **kw)

def scramble(b, seed):
    "Other padding, and more of it"
    g, out = torch.Generator().manual_seed(seed), {}
    for name,n,hi in (("text","text_len",20), ("codes","n_frames",16), ("prompt","prompt_len",16)):
        x = getattr(b, name)
        big = torch.randint(hi, (*x.shape[:-1], x.shape[-1]+int(torch.randint(5, (1,), generator=g))), generator=g)
        keep = length_mask(getattr(b, n), big.shape[-1]).view(len(x), *[1]*(x.dim()-2), -1)
        big[...,:x.shape[-1]] = torch.where(keep[...,:x.shape[-1]], x, big[...,:x.shape[-1]])
        out[name] = big
    return replace(b, **out)

def n_params(cfg): return sum(p.numel() for p in NAR(cfg).parameters())

@pytest.mark.parametrize("vocab_size", [64, 128, 256])
def test_full_size_is_30M(vocab_size): assert abs(n_params(NARConfig(vocab_size=vocab_size))/30e6 - 1) < .05

def test_micro_is_small():
    assert n_params(NARConfig(vocab_size=128, d_model=256, n_layers=6, n_heads=4, d_ff=768, cond_dim=64,
        speaker_dim=128)) < 8e6

@torch.no_grad()
@pytest.mark.parametrize("seed", range(8))
def test_padding_is_invisible(seed):
    nar, b = make(), make_batch(seed)
    book = torch.randint(0, 4, (5,), generator=torch.Generator().manual_seed(seed))
    x = paint(nar, b, book)
    c = scramble(b, seed)
    y = paint(nar, c, book)
    for i,n in enumerate(b.n_frames.tolist()):
        torch.testing.assert_close(x[i,:n], y[i,:n], atol=1e-5, rtol=1e-4)
        # and the same as on its own
        torch.testing.assert_close(x[i,:n], paint(nar, b[i:i+1], book[i:i+1])[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(nar.loss(b, torch.Generator().manual_seed(1))[0],
        nar.loss(c, torch.Generator().manual_seed(1))[0], atol=1e-5, rtol=1e-4)

@torch.no_grad()
def test_sees_what_it_should():
    "Lower books, text, prompt and book number change the output; the book itself and higher ones do not"
    nar, b = make(), make_batch(1, text_len=torch.full((5,), 9), prompt_len=torch.full((5,), 14),
        n_frames=torch.full((5,), 12))
    two = torch.full((5,), 2)
    x = paint(nar, b, two)
    def change(**kw): return (paint(nar, replace(b, **kw), two) - x).abs().amax((1,2))
    def other(j):
        c = b.codes.clone()
        c[:,j] = (c[:,j]+1) % 16
        return c
    def prompt(j):
        c = b.prompt.clone()
        c[:,j] = (c[:,j]+1) % 16
        return c
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
        c = b.codes.clone()
        c[0,0,t] = (c[0,0,t]+1) % 16
        assert (paint(nar, replace(b, codes=c), one) - x).abs().amax(-1).min() > 1e-7

@torch.no_grad()
def test_books_may_differ_in_a_batch():
    nar, b = make(), make_batch(3)
    mixed = paint(nar, b, torch.tensor([1,2,3,1,2]))
    for j in (1,2,3):
        same = paint(nar, b, torch.full((5,), j))
        for i in [i for i,k in enumerate([1,2,3,1,2]) if k==j]:
            torch.testing.assert_close(mixed[i,:b.n_frames[i]], same[i,:b.n_frames[i]], atol=1e-5, rtol=1e-4)

def test_positions():
    nar = make(gap=16)
    def at(P, go_on, d): return nar.positions(ask([1]*4, torch.zeros(4,P), continues=go_on), torch.full((1,4), d), P)[0]
    for P in (0, 5, 10):                              # a separate prompt of any length shifts nothing
        assert at(P, False, 2.).tolist() == [.5, 2.5, 4.5, 6.5, *range(-P-16, -16)]
    assert at(8, True, 4.).tolist() == [-6.5, -2.5, 1.5, 5.5, *range(-8, 0)]

def test_packing():
    real = torch.rand(7, 30, generator=torch.Generator().manual_seed(0)) < .4
    order, back = pack(real, multiple=1)
    kept = pick(real, order)
    for r,o,k in zip(real, order, kept): assert o[k].tolist() == r.nonzero()[:,0].tolist()
    assert order.shape[1] == real.sum(1).max() and pack(real)[0].shape[1] % 16 == 0
    x = torch.randn(7, 30, 3)
    assert torch.equal(pick(pick(x, order), back)[real], x[real])

@torch.no_grad()
def test_max_prompt_keeps_the_end():
    nar = make(max_prompt=4)
    nar.speaker.forward = lambda prompt, n=None: torch.zeros(len(prompt), 12)   # the speaker vector hears all of it
    b = make_batch(4, B=2, prompt_len=torch.tensor([14,9]), n_frames=torch.tensor([12,12]))
    one = torch.tensor([1,1])
    x = paint(nar, b, one)
    for t,changes in ((4,False), (5,True), (8,True)):
        c = b.prompt.clone()
        c[1,:,t] = (c[1,:,t]+1) % 16
        assert bool((paint(nar, replace(b, prompt=c), one)[1] - x[1]).abs().max() > 1e-6) == changes

@pytest.mark.parametrize("kw", [{}, dict(tied=False), dict(grad_checkpoint=True), dict(max_prompt=3)])
def test_loss_trains_every_parameter(kw):
    nar = make(dropout=.1, **kw).train()
    g = torch.Generator().manual_seed(0)
    b = make_batch(5, B=12)
    b.prompt_len[0] = 0
    loss,m = nar.loss(b, g)
    loss.backward()
    assert loss.isfinite() and not any(v.requires_grad for v in m.values()) and "loss" not in m
    assert all(p.grad is not None and p.grad.isfinite().all() for p in nar.parameters())
    n,books = b.n_frames, nar.draw_books(12, torch.Generator().manual_seed(0))
    mean = sum(m[f"loss_{j}"]*n[books==j].sum() for j in (1,2,3)) / n.sum()
    torch.testing.assert_close(mean, m["loss_code"])

def test_loss_repeats_with_a_generator_and_one_book():
    nar, b = make().train(), make_batch(6)
    a,c = (nar.loss(b, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(a, c)
    assert {k for k in nar.loss(b, book=2)[1]} == {"loss_code","top1","top10","loss_2","top1_2"}

@pytest.mark.parametrize("book", [0, 4, -1])
def test_wrong_book(book):
    with pytest.raises(ValueError, match="books 1 to 3"): make().loss(make_batch(), book=book)

def test_wrong_number_of_books():
    with pytest.raises(ValueError, match="8 books"):
        make().loss(make_batch(codes=torch.zeros(5,8,12, dtype=torch.long)))

def test_draw_books_is_weighted_and_even():
    nar = make(book_decay=.5)
    books = torch.cat([nar.draw_books(7, torch.Generator().manual_seed(i)) for i in range(500)])
    share = torch.bincount(books, minlength=4)[1:]/len(books)
    torch.testing.assert_close(share, torch.tensor([4.,2,1])/7, atol=.01, rtol=0)
    assert {tuple(torch.bincount(nar.draw_books(7, torch.Generator().manual_seed(i))).tolist())
        for i in range(9)} == {(0,4,2,1)}

def test_generate():
    nar, b = make().train(), make_batch(7)
    b = replace(b, continues=torch.zeros(5, dtype=torch.bool))
    books = [c[0,:n] for c,n in zip(b.codes, b.n_frames)]
    many = nar.generate(b, books)
    assert nar.training
    for i,out in enumerate(many):
        assert out.shape == (4,len(books[i])) and torch.equal(out[0], books[i])
        assert torch.equal(out, nar.generate(b[i:i+1], books[i:i+1])[0])
    other = replace(b, prompt=b.prompt.roll(1, 0), prompt_len=b.prompt_len.roll(1, 0))
    assert not all(torch.equal(x, y) for x,y in zip(many, nar.generate(other, books)))
    assert nar.generate(ask([3], b.prompt[1], continues=True), [[5]])[0].shape == (4,1)

@pytest.mark.parametrize("args,words", [(([],), "text ids"), (([99],), "tokenizer"),
    (([1], torch.zeros(2,5)), "4 books"), (([1], torch.full((4,5), 16)), "prompt codes run from")])
def test_requests_that_do_not_fit_are_refused(args, words):
    with pytest.raises(ValueError, match=words) as e: ask(*args)
    assert "\n" not in str(e.value)

@pytest.mark.parametrize("codes0,words", [([], "at least one frame"), ([[1]], "target codes have shape"),
    ([16], "target codes run from"), ([-1], "target codes run from")])
def test_generate_refuses(codes0, words):
    with pytest.raises(ValueError, match=words) as e: make().generate(ask([1]), [codes0])
    assert "\n" not in str(e.value)

@torch.no_grad()
def test_lives_in_a_file():
    "Config and state dict are all there is to a NAR"
    nar = make()
    twin = NAR(NARConfig(**asdict(nar.cfg))).eval()
    twin.load_state_dict(nar.state_dict())
    assert torch.equal(twin.generate(ask([1,2]), [[3,4,5]])[0], nar.generate(ask([1,2]), [[3,4,5]])[0])

def test_devices_come_from_the_input():
    "With another default device, any tensor made without saying where would clash"
    nar, b = make(), make_batch(8)
    requests = [ask([1,2,3], b.prompt[0]), ask([1,2,3])]
    here = [nar.generate(r, [b.codes[0,0]])[0] for r in requests]
    with torch.device("meta"): there = [nar.generate(r, [b.codes[0,0]])[0] for r in requests]
    assert all(torch.equal(x, y) and y.device.type == "cpu" for x,y in zip(here, there))

def test_durations_place_the_text_and_tell_each_frame_its_token():
    "With durations a frame hears the token that sounds in it; without, the text is spread evenly"
    torch.manual_seed(0)
    nar = NAR(NARConfig(vocab_size=12, n_q=3, n_bins=16, d_model=16, n_heads=2, n_layers=1, d_ff=32, code_dim=4,
        cond_dim=8, speaker_dim=8)).eval()
    def about(d):
        return nar.cues(nar.encode(Batch.of([[1,2,3]], codes=[torch.zeros(3,9).long()], durations=d)), 9)[0]
    with torch.no_grad():
        assert torch.equal(about(None), about(torch.zeros(1,3)))
        assert torch.allclose(about(None), about(torch.full((1,3), 3.)))
        assert not torch.allclose(about(torch.tensor([[6.,2,1]])), about(None))

def test_one_stroke():
    nar = make(stroke=.5)
    b = make_batch(n_frames=torch.full((5,), 12), text_len=torch.full((5,), 9),
        continues=torch.zeros(5, dtype=torch.bool))
    with pytest.raises(ValueError, match="entries"): nar.loss(b, torch.Generator().manual_seed(0))
    entries = torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(1))
    drawn = torch.cat([nar.draw_books(10, torch.Generator().manual_seed(i)) for i in range(20)])
    assert (drawn == 0).float().mean() == .5 and set(drawn.tolist()) == {0,1,2,3}
    opt, far = torch.optim.AdamW(nar.train().parameters(), 5e-3), []
    for i in range(150):
        loss, m = nar.loss(b, torch.Generator().manual_seed(i), entries=entries)
        loss.backward()
        opt.step()
        opt.zero_grad()
        far.append(m["stroke"].item())
    assert far[-1] < .3*far[0]
    one, all4 = (nar.generate(b, b.codes[:,0], n_q=k, entries=entries) for k in (1, None))
    for i,((c,z),(d,y)) in enumerate(zip(one, all4)):
        assert torch.equal(c, b.codes[i,:1]) and d.shape == (4,12) and z.shape == (12,8)
        # the vector does not hang on the books that are filled beside it
        torch.testing.assert_close(z, y)
    true = torch.stack([sum(e[c] for e,c in zip(entries, u)) for u in b.codes])
    assert (torch.stack([z for _,z in one])-true).pow(2).mean() < .5*true.pow(2).mean()

def test_book0_may_come_in_another_voice():
    "Only in training, only for strokes, and what is to be said stays the true one"
    nar, b = make(stroke=.5, corrupt=0., dropout=0.), make_batch()
    entries = torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(1))
    def loss(book0, train=True, **kw):
        b.book0 = book0
        nar.train(train)
        return nar.loss(b, torch.Generator().manual_seed(0), entries=entries, **kw)[0].item()
    own, other = b.codes[:,0], (b.codes[:,0]+5)%16
    assert loss(own) == loss(None) != loss(other)
    assert loss(other, train=False) == loss(None, train=False)
    assert loss(other, book=1) == loss(None, book=1)

@pytest.mark.parametrize("stroke", [0., .5])
def test_guidance_goes_from_nobody_towards_the_prompt(stroke):
    nar, b = make(stroke=stroke), make_batch()
    entries = torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(0))
    def z(g, prompt=b.prompt[0], go_on=False):
        return nar.generate(ask(b.text[0], prompt, continues=go_on), [b.codes[0,0]], n_q=2, entries=entries,
            guidance=g)[0][1]
    with_it, without, far = z(1.), z(1., None), z(2.)
    assert not torch.allclose(with_it, without) and not torch.allclose(far, with_it)
    torch.testing.assert_close(z(0.), without)
    torch.testing.assert_close(z(3., None), without) # nobody's voice; and no prompt is none, however bold
    if stroke: torch.testing.assert_close(far, 2*with_it-without)
    torch.testing.assert_close(z(2., go_on=True), z(1., go_on=True))
