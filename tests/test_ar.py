"AR: layout, masks, loss, generation"
import pytest, torch, torch.nn.functional as F
from types import SimpleNamespace as NS
from harmonica.ar import *
from harmonica.ar import GAP, n_steps
from harmonica.blocks import lengths_mask

def close(a, b, eps=1e-4): assert torch.allclose(a, b, atol=eps, rtol=0), (a-b).abs().max()

def model(group=1, seed=0, **kw):
    torch.manual_seed(seed)
    m = AR(ARConfig(**{**dict(vocab_size=20, n_bins=32, n_q=3, d_model=32, n_heads=4, n_layers=2, d_ff=64, dropout=0., group=group, code_dim=8, speaker_dim=16, duration_hidden_dim=16, frame_rate=50.), **kw})).eval()
    torch.nn.init.normal_(m.head.weight, std=.3)                 # lively answers
    for n,p in m.named_parameters():
        if n.endswith(('predict.out.weight','predict.out.bias','about.weight')): torch.nn.init.normal_(p, std=.2)
    return m

def batch(seed=0, pad=0, B=4):
    "Random batch; `pad` more places in every segment, filled with rubbish as all padding is"
    g = torch.Generator().manual_seed(seed)
    text_len, n_frames, prompt_len = torch.tensor([7,3,5,1]), torch.tensor([12,7,3,9]), torch.tensor([6,0,8,3])
    full = lambda n, hi, *shape: torch.randint(1, hi, (B, *shape, int(n.max())), generator=g)
    b = dict(text=full(text_len, 20), codes=full(n_frames, 32, 3), prompt=full(prompt_len, 32, 3))
    if pad is not None:
        h = torch.Generator().manual_seed(seed+100+pad)
        for k,n,hi in (('text',text_len,20),('codes',n_frames,32),('prompt',prompt_len,32)):
            t = F.pad(b[k], (0,pad)); real = lengths_mask(n, t.shape[-1])
            b[k] = torch.where(real if t.dim()==2 else real[:,None], t, torch.randint(0, hi, t.shape, generator=h))
    return NS(**b, text_len=text_len, n_frames=n_frames, prompt_len=prompt_len, continues=torch.tensor([False,False,True,True]))

def only(b, i):
    "Item i alone, without any padding"
    t,n,p = int(b.text_len[i]), int(b.n_frames[i]), int(b.prompt_len[i])
    return NS(text=b.text[i:i+1,:t], codes=b.codes[i:i+1,:,:n], prompt=b.prompt[i:i+1,:,:p], continues=b.continues[i:i+1],
              text_len=b.text_len[i:i+1], n_frames=b.n_frames[i:i+1], prompt_len=b.prompt_len[i:i+1])

def logits(m, b):
    with torch.no_grad(): return m.write(m.read(b), b.codes[:,0], b.n_frames)

@pytest.mark.parametrize("group", [1,2,3])
def test_padding_changes_nothing(group):
    m, b = model(group), batch()
    out, (loss,_) = logits(m, b), m.loss(b)
    for pad in (1,5):
        more = logits(m, batch(pad=pad))
        for i,n in enumerate(n_steps(b.n_frames, group)): close(more[i,:n+1].nan_to_num(neginf=0), out[i,:n+1].nan_to_num(neginf=0))
        close(m.loss(batch(pad=pad))[0], loss)
    for i,n in enumerate(n_steps(b.n_frames, group)): close(logits(m, only(b,i))[0].nan_to_num(neginf=0), out[i,:n+1].nan_to_num(neginf=0))

@pytest.mark.parametrize("group", [1,2])
def test_never_the_future(group):
    m, b = model(group), batch(); out = logits(m, b)
    c = batch(); c.codes[:,:,4:] = (c.codes[:,:,4:]+5) % 32
    new = logits(m, c); s = 4//group
    close(new[:,:s+1], out[:,:s+1], 1e-5)                          # step s answers for frames it has not been shown
    assert (new[0,s+1]-out[0,s+1]).nan_to_num().abs().max() > 1e-3
    for k in ('text','prompt'):                                   # but all of the prefix is seen
        c = batch(); v = getattr(c,k); v[0,...,5] = v[0,...,5] % 19 + 1
        assert ((logits(m,c)-out)[0].nan_to_num().abs().amax((1,2)) > 1e-5)[:n_steps(12,group)].all(), k

def test_only_book_0_of_the_target_is_used():
    m, b, c = model(), batch(), batch(); c.codes[:,1:] = 0
    close(m.loss(b)[0], m.loss(c)[0], 0)

@pytest.mark.parametrize("group", [1,2,3])
def test_targets(group):
    m, b = model(group), batch()
    t = m.targets(b.codes[:,0], b.n_frames)
    for i,n in enumerate(b.n_frames.tolist()):
        flat = t[i].flatten()
        assert torch.equal(flat[:n], b.codes[i,0,:n])
        assert flat[n_steps(n,group)*group] == 32 and (flat != -100).sum() == n+1
    out = logits(m, b)
    assert out[:,:,1:,-1].isinf().all() and out[:,:,0].isfinite().all()   # only the first frame of a group may be stop

def test_a_longer_prompt_shifts_nothing():
    m = model()
    at = lambda p, cont: m.places(torch.ones(1,5), torch.tensor([20.]), torch.tensor([p]), 9, torch.tensor([cont]))[0]
    assert torch.equal(at(3,False)[:6], at(9,False)[:6])
    assert at(3,False)[6+2] == at(9,False)[6+8] == -GAP-1
    assert at(3,True)[6+2] == at(9,True)[6+8] == -1 and at(9,True)[1] == -9+2
    close(at(9,True)[5], torch.tensor(-9+18.))

@pytest.mark.parametrize("mode", ["duration_predictor","stop_token","length_prompt"])
@pytest.mark.parametrize("group", [1,2])
def test_modes_learn_and_speak(mode, group):
    m, b = model(group, length_control_mode=mode, cond_drop=.3), batch()
    m.train(); torch.manual_seed(0); loss, metrics = m.loss(b); loss.backward()
    assert set(metrics) >= {'loss_code','duration','top1','top10'} and not any(torch.as_tensor(v).requires_grad for v in metrics.values())
    idle = {n for n,p in m.named_parameters() if p.grad is None}
    assert not idle and all(p.grad.isfinite().all() for p in m.parameters())
    m.eval(); c = m.generate(b.text[0], b.prompt[0], seed=0)
    assert c.dim()==1 and len(c)%group==0 and 0 <= c.min() and c.max() < 32

def test_sizes():
    with torch.device('meta'): full, micro = (sum(p.numel() for p in AR(c).parameters()) for c in (ARConfig(), ARConfig(d_model=256, n_layers=8, n_heads=4, d_ff=768, group=2)))
    assert abs(full/50e6-1) < .05 and micro < 12e6

def test_loss_weight_and_unknown_mode():
    m, b = model(), batch()
    (a,x), (c,_) = m.loss(b, duration_loss_weight=0.), m.loss(b, duration_loss_weight=2.)
    close(a, x['loss_code']); close(c, x['loss_code']+2*x['duration'])
    with pytest.raises(ValueError, match="stop_token"): model(length_control_mode="never")

# --- scheduled sampling

def test_two_passes():
    m, b = model(2), batch(); codes, out = b.codes[:,0], logits(m, b)
    g = lambda: torch.Generator().manual_seed(3)
    assert torch.equal(m.own(out, codes, 1., g()), codes)
    a = m.own(out, codes, .5, g())
    assert torch.equal(a, m.own(out, codes, .5, g())) and 0 < (a!=codes).float().mean() < .7
    same = (a==codes)[:,:6].view(4,3,2)
    m.train(); b0 = batch()
    l1,_ = m.loss(b, .3, g()); l2,_ = m.loss(b, .3, g()); l3,_ = m.loss(b, 1., g())
    assert l1==l2 and l1!=l3 and torch.equal(b.codes, b0.codes) and torch.equal(b.prompt, b0.prompt)
    l1.backward()

def test_confident_model_replaces_by_its_own_answer():
    m, b = model(), batch(); out = torch.full((4,13,1,33), -20.); out[...,7] = 20; out[...,32] = 40   # never stop as an input
    assert (m.own(out, b.codes[:,0], 0.) == 7).all()

# --- generation

def uncached(m, b, codes, covers):
    "Scores by one parallel pass, with the length that generation assumed"
    enc, spk = m.text(b.text, b.text_len), m.speaker(b.prompt, b.prompt_len)
    x,real = m.prefix(b.text, b.text_len, b.prompt, b.prompt_len, spk, enc, covers)
    pos = m.places(m.length(enc, b.text_len, spk), covers, b.prompt_len, x.shape[1]-1-enc.shape[1], b.continues)
    dur = m.length(enc, b.text_len, spk)
    about = m.cue(enc, dur*(covers/dur.sum(1))[:,None], -b.prompt_len*b.continues, n_steps(codes.shape[1], m.cfg.group)+1)
    return m.write(dict(x=x, real=real, pos=pos, about=about), codes, torch.full_like(b.n_frames, codes.shape[1]))

@pytest.mark.parametrize("group", [1,2])
@torch.no_grad()
def test_cached_equals_uncached(group):
    m, b = model(group), batch(pad=2)
    args = (b.text, b.text_len, b.prompt, b.prompt_len, b.continues)
    steps = list(m.speak(*args, min_frames=12, max_frames=12, generator=torch.Generator().manual_seed(1)))
    codes, ll = torch.cat([c for c,_,_ in steps], 1), torch.stack([l for _,_,l in steps], 1)
    assert codes.shape == (4,12)
    dur = m.length(m.text(b.text, b.text_len), b.text_len, m.speaker(b.prompt, b.prompt_len))
    covers,_ = m.guess_length(dur, b.prompt_len, b.continues, torch.zeros(4, dtype=torch.long))
    lp = uncached(m, b, codes, covers)[:,:-1].log_softmax(-1).flatten(1,2).gather(2, codes[...,None])[...,0]
    close(lp.view(4,-1,group).sum(-1), ll, 1e-4)

@pytest.mark.parametrize("group", [1,2])
@pytest.mark.parametrize("cfg", [1.,1.7])
def test_a_batch_speaks_as_each_alone(group, cfg):
    m, b = model(group), batch()
    items = [only(b,i) for i in range(4)]
    texts, prompts, cont = [o.text[0] for o in items], [o.prompt[0] for o in items], b.continues.tolist()
    many,_ = m.generate_batch(texts, prompts, cont, temperature=0, cfg=cfg)
    for c,t,p,k in zip(many, texts, prompts, cont): assert torch.equal(m.generate(t, p, k, temperature=0, cfg=cfg), c)

def test_seeds_greedy_stream_and_mode():
    m, b = model(2), batch(); t, p = b.text[0], b.prompt[0]; m.train()
    a = m.generate(t, p, seed=1)
    assert torch.equal(a, m.generate(t, p, seed=1)) and not torch.equal(a, m.generate(t, p, seed=2))
    assert torch.equal(m.generate(t, p, temperature=0, seed=1), m.generate(t, p, temperature=0, seed=2))
    assert torch.equal(torch.cat([c.clone() for c in m.stream(t, p, seed=1)]), a)
    assert m.training and len(next(m.stream(t, p))) == 2
    kept = m.generate(t, p, seed=1, best_of=3); many, score = m.generate_batch([t]*3, [p]*3, seed=1)
    assert torch.equal(kept, many[score.argmax()])

@pytest.mark.parametrize("group", [1,2])
def test_stop_is_bounded(group, monkeypatch):
    m, b = model(group), batch(); scores = m.scores
    def always(h): s = scores(h).clone(); s[...,0,-1] = 50; return s
    def never(h): s = scores(h).clone(); s[...,0,-1] = -50; return s
    monkeypatch.setattr(m, 'scores', always, raising=False)
    n = len(m.generate(b.text[0], b.prompt[0], min_frames=10, max_frames=40)); assert n == 10
    assert len(m.generate(b.text[0], b.prompt[0], min_frames=0)) == 0
    assert len(m.generate(b.text[0])) >= 1
    monkeypatch.setattr(m, 'scores', never, raising=False)
    assert len(m.generate(b.text[0], b.prompt[0], min_frames=4, max_frames=15)) == 15//group*group
    assert len(m.generate(b.text[0], b.prompt[0])) < 25 + 2*50

def test_speed_and_pace():
    m, b = model(), batch()
    dur, none = torch.ones(1,8)*4, torch.tensor([0])
    f = lambda p=0, cont=False, k=0, **kw: [o.item() for o in m.guess_length(dur, torch.tensor([p]), torch.tensor([cont]), torch.tensor([k]), **kw)]
    assert f() == [32,32] and f(speed=2.) == [16,16] and f(100) == [32,32]
    assert f(10, True) == [32,22]
    assert f(24, True, 4) == [48,24]                              # four symbols took 24 frames: a slow voice
    total, rest = f(200, True); assert rest > 0 and abs(total-200-rest) < 1e-3

def test_no_prompt_and_short_prompts():
    m, t = model(2), torch.tensor([3,4,5])
    for p in (None, torch.zeros(3,0,dtype=torch.long), torch.zeros(3,1,dtype=torch.long), torch.zeros(3,5,dtype=torch.long), torch.zeros(8,4,dtype=torch.long)):
        for cont in (False, True): assert len(m.generate(t, p, cont, seed=0, min_frames=2, max_frames=6)) >= 2
    assert len(m.generate([3], min_frames=2, seed=0)) >= 2

def test_guidance_at_one_is_none_and_at_zero_knows_nothing():
    m, b = model(), batch(); t, p = b.text[0], b.prompt[0]
    kw = dict(temperature=0, min_frames=8, max_frames=8)
    assert torch.equal(m.generate(t, p, **kw), m.generate(t, p, cfg=1.0000001, **kw))
    assert torch.equal(m.generate(t, p, cfg=0., **kw), m.generate(t.flip(0), p.flip(1), cfg=0., **kw))

@pytest.mark.parametrize("text,prompt,word", [([], None, "shape"), ([25], None, "tokenizer"), ([-1], None, "tokenizer"),
    ([1], torch.zeros(2,4,dtype=torch.long), "books"), ([1], torch.full((3,4), 40), "codec"), ([[1,2]], None, "shape")])
def test_bad_input(text, prompt, word):
    with pytest.raises(ValueError, match=word): model().generate(text, prompt)


# --- durations

def test_the_cue_follows_measured_durations():
    "A step is told the symbols that sound in its frames, and nothing else of the text"
    m, b = model(2), batch()
    torch.nn.init.normal_(m.about.weight)
    enc = torch.randn(1, 4, m.cfg.d_model)
    def cue(e, d): return m.cue(e, torch.tensor([d]), torch.zeros(1), 5)[0]
    a = cue(enc, [2.,4.,0.,4.]); e2 = enc.clone(); e2[:,1] += 1
    moved = (cue(e2, [2.,4.,0.,4.]) - a).abs().sum(-1) > 1e-4
    assert moved.tolist() == [False, True, True, False, False]
    e3 = enc.clone(); e3[:,2] += 1                                   # a symbol that takes no time is never said
    close(cue(e3, [2.,4.,0.,4.]), a)

def test_known_durations_are_learned_one_by_one():
    from harmonica.length import length_loss
    true, n = torch.tensor([[3.,0,5,2],[1,1,0,0]]), torch.tensor([4,2])
    swapped = true[:, [2,1,0,3]].clone(); swapped[1] = true[1]        # the same total, other places
    assert length_loss(true, true.sum(1), true, n) == 0 < length_loss(swapped, true.sum(1), true, n)
    assert length_loss(swapped, true.sum(1)) == 0                     # where nothing is known only the total counts
    assert length_loss(swapped, true.sum(1), torch.zeros(2,4), n) == 0

def test_plan_says_when():
    m = model(2)
    d = m.plan(torch.tensor([1,2,3]), torch.randint(0, 32, (m.cfg.n_q, 10)))
    fast = m.plan(torch.tensor([1,2,3]), torch.randint(0, 32, (m.cfg.n_q, 10)), speed=2.)
    assert d.shape == (3,) and (d > 0).all() and d.sum() > fast.sum()
