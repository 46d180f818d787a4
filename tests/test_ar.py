"AR: layout, masks, loss, generation"
import pytest, torch, torch.nn.functional as F
from dataclasses import replace
from harmonica.ar import AR, ARConfig, StepStack, n_steps
from harmonica.batch import Batch, length_mask
from harmonica.length import length_loss

def close(a, b, eps=1e-4): assert torch.allclose(a, b, atol=eps, rtol=0), (a-b).abs().max()

def model(group=1, seed=0, **kw):
    torch.manual_seed(seed)
    m = AR(ARConfig(**{**dict(vocab_size=20, n_bins=32, n_q=3, d_model=32, n_heads=4, n_layers=2, d_ff=64, dropout=0.,
        group=group, code_dim=8, speaker_dim=16, duration_hidden_dim=16, frame_rate=50.), **kw})).eval()
    torch.nn.init.normal_(m.head.weight, std=.3)                 # lively answers
    for n,p in m.named_parameters():
        if n.endswith(("predict.out.weight","predict.out.bias","cue.weight")): torch.nn.init.normal_(p, std=.2)
    return m

def batch(seed=0, pad=0, B=4):
    "Random batch; `pad` more places in every segment, filled with rubbish as all padding is"
    g = torch.Generator().manual_seed(seed)
    text_len, n_frames, prompt_len = torch.tensor([7,3,5,1]), torch.tensor([12,7,3,9]), torch.tensor([6,0,8,3])
    full = lambda n, hi, *shape: torch.randint(1, hi, (B, *shape, int(n.max())), generator=g)
    b = dict(text=full(text_len, 20), codes=full(n_frames, 32, 3), prompt=full(prompt_len, 32, 3))
    h = torch.Generator().manual_seed(seed+100+pad)
    for k,n,hi in (("text",text_len,20),("codes",n_frames,32),("prompt",prompt_len,32)):
        t = F.pad(b[k], (0,pad))
        real = length_mask(n, t.shape[-1])
        b[k] = torch.where(real if t.dim()==2 else real[:,None], t, torch.randint(0, hi, t.shape, generator=h))
    return Batch(**b, text_len=text_len, n_frames=n_frames, prompt_len=prompt_len,
        continues=torch.tensor([False,False,True,True]), prompt_text_len=torch.zeros(4, dtype=torch.long))

def ask(b): return replace(b, codes=None, n_frames=None)
def one(text, prompt=None, continues=False, **kw): return Batch.of([text], [prompt], continues=continues, **kw)
def dice(seed=0): return torch.Generator().manual_seed(seed)
def speak(m, b, seed=0, **kw): return m.generate(b, generator=dice(seed), **kw)[0]

def logits(m, b):
    with torch.no_grad(): return m.logits(m.encode(b), b.codes[:,0], b.n_frames)

@pytest.mark.parametrize("group", [1,2,3])
def test_padding_changes_nothing(group):
    m, b = model(group), batch()
    out, (loss,_) = logits(m, b), m.loss(b)
    for pad in (1,5):
        more = logits(m, batch(pad=pad))
        for i,n in enumerate(n_steps(b.n_frames, group)):
            close(more[i,:n+1].nan_to_num(neginf=0), out[i,:n+1].nan_to_num(neginf=0))
        close(m.loss(batch(pad=pad))[0], loss)
    for i,n in enumerate(n_steps(b.n_frames, group)):
        close(logits(m, b[i:i+1])[0].nan_to_num(neginf=0), out[i,:n+1].nan_to_num(neginf=0))

@pytest.mark.parametrize("group", [1,2])
def test_never_the_future(group):
    m, b = model(group), batch()
    out = logits(m, b)
    c = batch()
    c.codes[:,:,4:] = (c.codes[:,:,4:]+5) % 32
    new = logits(m, c)
    s = 4//group
    close(new[:,:s+1], out[:,:s+1], 1e-5)                          # step s answers for frames it has not been shown
    assert (new[0,s+1]-out[0,s+1]).nan_to_num().abs().max() > 1e-3
    for k in ("text","prompt"):                                   # but all of the prefix is seen
        c = batch()
        v = getattr(c,k)
        v[0,...,5] = v[0,...,5] % 19 + 1
        assert ((logits(m,c)-out)[0].nan_to_num().abs().amax((1,2)) > 1e-5)[:n_steps(12,group)].all(), k

def test_only_book_0_of_the_target_is_used():
    m, b, c = model(), batch(), batch()
    c.codes[:,1:] = 0
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
    def at(p, go_on):
        b = one([1]*5, torch.ones(3,p), go_on)
        return m.positions(b, torch.full((1,5), 4.), p)[0]
    assert torch.equal(at(3,False)[:5], at(9,False)[:5])
    assert at(3,False)[-1] == at(9,False)[-1] == -m.gap-1
    assert at(3,True)[-1] == at(9,True)[-1] == -1 and at(9,True)[0] == -9+2
    close(at(9,True)[4], torch.tensor(-9+18.))

@pytest.mark.parametrize("mode", ["duration_predictor","stop_token","length_prompt"])
@pytest.mark.parametrize("group", [1,2])
def test_modes_learn_and_speak(mode, group):
    m, b = model(group, length_control_mode=mode), batch()
    m.train()
    torch.manual_seed(0)
    loss, metrics = m.loss(b)
    loss.backward()
    assert set(metrics) >= {"loss_code","duration","top1","top10"}
    assert not any(torch.as_tensor(v).requires_grad for v in metrics.values())
    idle = {n for n,p in m.named_parameters() if p.grad is None}
    assert not idle and all(p.grad.isfinite().all() for p in m.parameters())
    m.eval()
    c, = speak(m, ask(b[:1]))
    assert c.dim()==1 and len(c)%group==0 and 0 <= c.min() and c.max() < 32

def test_sizes():
    with torch.device("meta"):
        full, micro = (sum(p.numel() for p in AR(c).parameters())
            for c in (ARConfig(), ARConfig(d_model=256, n_layers=8, n_heads=4, d_ff=768, group=2)))
    assert abs(full/50e6-1) < .05 and micro < 12e6

def test_loss_weight_and_unknown_mode():
    m, b = model(), batch()
    (a,x), (c,_) = m.loss(b, duration_loss_weight=0.), m.loss(b, duration_loss_weight=2.)
    close(a, x["loss_code"])
    close(c, x["loss_code"]+2*x["duration"])
    with pytest.raises(ValueError, match="stop_token"): model(length_control_mode="never")

# --- scheduled sampling

def test_two_passes():
    m, b = model(2), batch()
    codes, out = b.codes[:,0], logits(m, b)
    g = lambda: torch.Generator().manual_seed(3)
    assert torch.equal(m.own_codes(out, codes, 1., g()), codes)
    a = m.own_codes(out, codes, .5, g())
    assert torch.equal(a, m.own_codes(out, codes, .5, g())) and 0 < (a!=codes).float().mean() < .7
    m.train()
    b0 = batch()
    l1,_ = m.loss(b, .3, g())
    l2,_ = m.loss(b, .3, g())
    l3,_ = m.loss(b, 1., g())
    assert l1==l2 and l1!=l3 and torch.equal(b.codes, b0.codes) and torch.equal(b.prompt, b0.prompt)
    l1.backward()

def test_confident_model_replaces_by_its_own_answer():
    m, b = model(), batch()
    out = torch.full((4,13,1,33), -20.)
    out[...,7] = 20
    out[...,32] = 40 # never stop as an input
    assert (m.own_codes(out, b.codes[:,0], 0.) == 7).all()

# --- generation

@pytest.mark.parametrize("group", [1,2])
@torch.no_grad()
def test_cached_equals_uncached(group):
    "The likelihoods told on the way are those of one parallel pass with the length that generation assumed"
    m, b = model(group), batch(pad=2)
    context = m.encode(ask(b))
    steps = [(c.clone(), l) for c,_,l,_ in m.stream(context, min_frames=12, max_frames=12, generator=dice(1))]
    codes, likelihood = torch.cat([c for c,_ in steps], 1), torch.stack([l for _,l in steps], 1)
    assert codes.shape == (4,12)
    p = m.logits(context, codes, torch.full((4,), 12))[:,:-1].log_softmax(-1).flatten(1,2).gather(2,
        codes[...,None])[...,0]
    close(p.view(4,-1,group).sum(-1), likelihood, 1e-4)

@pytest.mark.parametrize("group", [1,2])
def test_a_batch_speaks_as_each_alone(group):
    m, b = model(group), ask(batch())
    many, when = m.generate(b, temperature=0)
    for i in range(4):
        (codes,), (durations,) = m.generate(b[i:i+1], temperature=0)
        assert torch.equal(codes, many[i]) and len(durations) == b.text_len[i]
        close(durations, when[i])

def test_seeds_greedy_stream_and_mode():
    m, b = model(2), ask(batch()[:1])
    m.train()
    a, = speak(m, b, 1)
    assert torch.equal(a, speak(m, b, 1)[0]) and not torch.equal(a, speak(m, b, 2)[0])
    assert torch.equal(speak(m, b, 1, temperature=0)[0], speak(m, b, 2, temperature=0)[0])
    assert m.training
    m.eval()
    with torch.no_grad(): steps = [c.clone() for c,*_ in m.stream(m.encode(b), generator=dice(1))]
    assert torch.equal(torch.cat(steps, 1)[0], a) and steps[0].shape == (1,2)

@pytest.mark.parametrize("best_of", [1, 3])
def test_soft_codes_tell_how_sure_each_was(best_of):
    "With temperature 0 the likeliest entry is the code; each frame's chances add up to 1"
    m, b = model(2), ask(batch())
    how = dict(temperature=0, best_of=best_of)
    hard, soft = m.generate(b, **how)[0], m.generate(b, soft=True, **how)[0]
    for codes,p in zip(hard, soft):
        assert p.shape == (len(codes), m.cfg.n_bins)
        assert torch.equal(p.argmax(-1), codes)
        close(p.sum(-1), torch.ones(len(codes)))

@torch.no_grad()
def test_the_likeliest_of_several_attempts_is_kept():
    m, b = model(2), ask(batch()[:1])
    steps = list((c.clone(), live.clone(), l)
        for c,live,l,_ in m.stream(m.encode(b)[torch.tensor([0,0,0])], generator=dice(1)))
    n = sum(live.long() for _,live,_ in steps)
    mean = sum(l*live for _,live,l in steps)/n
    best = int(mean.argmax())
    assert torch.equal(speak(m, b, 1, best_of=3)[0], torch.cat([c for c,_,_ in steps], 1)[best,:2*n[best]])

@pytest.mark.parametrize("group", [1,2])
def test_stop_is_bounded(group, monkeypatch):
    m, b = model(group), ask(batch()[:1])
    scores = m.scores
    def always(h):
        s = scores(h).clone()
        s[...,0,-1] = 50
        return s
    def never(h):
        s = scores(h).clone()
        s[...,0,-1] = -50
        return s
    n = lambda b=b, **kw: len(m.generate(b, **kw)[0][0])
    monkeypatch.setattr(m, "scores", always, raising=False)
    assert n(min_frames=10, max_frames=40) == 10
    assert n(min_frames=0) == 0
    assert n(one(b.text[0])) >= 1
    monkeypatch.setattr(m, "scores", never, raising=False)
    assert n(min_frames=4, max_frames=15) == 15//group*group
    assert n() < 25 + 2*50

def test_speed_and_pace():
    m, d = model(), torch.ones(1,8)*4
    def rest(p=0, go_on=False, k=0, **kw):
        return m.expected_frames(one([1]*8, torch.ones(3,p), go_on, prompt_text_len=k), d, **kw).item()
    assert rest() == 32 and rest(speed=2.) == 16 and rest(100) == 32
    assert rest(10, True) == 22
    assert rest(24, True, 4) == 24                                # four symbols took 24 frames: a slow voice
    assert rest(200, True) > 0

def test_no_prompt_and_short_prompts():
    m, t = model(2), torch.tensor([3,4,5])
    for p in (None, torch.zeros(3,0,dtype=torch.long), torch.zeros(3,1,dtype=torch.long),
        torch.zeros(3,5,dtype=torch.long), torch.zeros(8,4,dtype=torch.long)):
        for go_on in (False, True):
            assert len(speak(m, one(t, p, go_on, cfg=m.cfg), min_frames=2, max_frames=6)[0]) >= 2

def test_codes_that_repeat_are_drawn_again():
    m, b = model(), ask(batch()[:1])
    torch.nn.init.zeros_(m.head.weight)
    m.head.weight.data[7] += 1e-3
    say = lambda **kw: speak(m, b, temperature=1., min_frames=40, max_frames=40, **kw)[0]
    top1 = dict(top_k=1)
    assert len(set(say(**top1).tolist())) == 1 < len(set(say(**top1, ras_window=10).tolist()))


# --- durations

def test_the_cue_follows_measured_durations():
    "A step is told the symbols that sound in its frames, and nothing else of the text"
    m = model(2)
    torch.nn.init.normal_(m.cue.weight)
    enc = torch.randn(1, 4, m.cfg.d_model)
    base = m.encode(one([1]*4))
    def cue(e, d): return m.cues(replace(base, text=e, durations=torch.tensor([d])), 5)[0]
    a = cue(enc, [2.,4.,0.,4.])
    e2 = enc.clone()
    e2[:,1] += 1
    moved = (cue(e2, [2.,4.,0.,4.]) - a).abs().sum(-1) > 1e-4
    assert moved.tolist() == [False, True, True, False, False]
    e3 = enc.clone()
    e3[:,2] += 1 # a symbol that takes no time is never said
    close(cue(e3, [2.,4.,0.,4.]), a)

def test_known_durations_are_learned_one_by_one():
    true, n = torch.tensor([[3.,0,5,2],[1,1,0,0]]), torch.tensor([4,2])
    swapped = true[:, [2,1,0,3]].clone()
    swapped[1] = true[1] # the same total, other places
    assert length_loss(true, true.sum(1), true, n) == 0 < length_loss(swapped, true.sum(1), true, n)
    assert length_loss(swapped, true.sum(1)) == 0                     # where nothing is known only the total counts
    assert length_loss(swapped, true.sum(1), torch.zeros(2,4), n) == 0

def test_durations_come_with_the_codes():
    m = model(2)
    b = one([1,2,3], torch.randint(0, 32, (m.cfg.n_q, 10)))
    d, = m.generate(b)[1]
    fast, = m.generate(b, speed=2.)[1]
    assert d.shape == (3,) and (d > 0).all() and d.sum() > fast.sum()

def test_durations_that_are_known_are_kept():
    "Whoever knows when each symbol is said may tell: `Batch.of(durations=...)`"
    m, d = model(2), torch.tensor([4.,0.,9.])
    b = one([1,2,3], torch.randint(0, 32, (m.cfg.n_q, 10)), durations=[d])
    context = m.encode(b)
    assert torch.equal(context.durations[0], d) and context.n_frames == 13

# --- steps

@torch.no_grad()
def test_steps_follow_the_model_as_it_changes():
    "Laid-out matrices are kept between sentences, but never longer than the numbers they were made of"
    m, b = model(2), ask(batch()[:1])
    a, = speak(m, b, temperature=0)
    for p in m.parameters(): p.mul_(-1)
    fresh = AR(m.cfg).eval()
    fresh.load_state_dict(m.state_dict())
    assert torch.equal(speak(m, b, temperature=0)[0], speak(fresh, b, temperature=0)[0])
    assert not torch.equal(a, speak(m, b, temperature=0)[0])

@torch.no_grad()
def test_bytes_say_nearly_the_same():
    "With a byte a weight the likelihoods of the same codes move by little, and attempts stay inside the bounds"
    m, context = model(2), None
    context = m.encode(ask(batch()))
    def scores(**kw):
        steps, out = m.output_steps(context, 4, **kw), []
        for i in range(4): out.append(next(steps) if not i else steps.send(torch.full((4,2), i)))
        return torch.stack(out).log_softmax(-1)
    plain, rounded = scores(), scores(int8=True)
    assert 0 < (plain-rounded).abs().max() < .15*plain.std()

@pytest.mark.parametrize("best_of", [1,3])
def test_rows_have_dice_of_their_own(best_of):
    "With a generator for each, a sentence says the same in any company"
    m, b = model(2), ask(batch())
    many, _ = m.generate(b, best_of, generator=[dice(i) for i in range(4)])
    for i in range(4): assert torch.equal(many[i], m.generate(b[i:i+1], best_of, generator=dice(i))[0][0])
    two, _ = m.generate(b[:2], best_of, generator=[dice(0), dice(1)])
    assert all(torch.equal(x, y) for x,y in zip(two, many))

@pytest.mark.parametrize("best_of,group", [(1,2), (1,1), (2,2)])
def test_who_has_stopped_costs_no_more_steps(best_of, group, monkeypatch):
    "And those who go on say what they say alone"
    m, b, rows = model(group), ask(batch()), []
    bounds = torch.tensor([4, 12, 24, 16]).repeat_interleave(best_of)
    monkeypatch.setattr(AR, "frame_bounds", lambda self, context, *a: (bounds[:len(context.x)*best_of],)*2)
    step = StepStack.step
    monkeypatch.setattr(StepStack, "step", lambda self, x, *a: (rows.append(len(x)), step(self, x, *a))[1])
    many, _ = m.generate(b, best_of, generator=[dice(i) for i in range(4)])
    assert [len(c) for c in many] == [4, 12, 24, 16]
    n = best_of
    assert rows == [4*n]*(4//group) + [3*n]*(8//group) + [2*n]*(4//group) + [n]*(8//group-1)
    for i in range(4):
        bounds = torch.tensor([4, 12, 24, 16])[i].repeat(best_of)
        assert torch.equal(many[i], m.generate(b[i:i+1], best_of, generator=[dice(i)])[0][0])

def test_reading_end_to_end_is_reading_in_a_padded_batch(monkeypatch):
    "On a processor that has neither bytes nor bfloat16, `int8` reads the same hidden state, keys and values"
    monkeypatch.setattr("harmonica.blocks.quick_halves", lambda device: False)
    monkeypatch.delattr(torch, "_weight_int8pack_mm")
    m = model(2)
    c = m.encode(ask(batch()))
    begin = torch.randn(4, 1, 32)
    with torch.no_grad(): (h, a), (g, b) = (m.prefill(c, begin, 3, m.step_stack(int8)) for int8 in (False, True))
    close(g, h)
    seen = F.pad(c.real, (0, 1), value=True)
    for x,y in ((a.k, b.k), (a.v, b.v)): close(*(o[:,:,:,:seen.shape[1]].transpose(2, 3)[:,seen] for o in (x, y)))
    assert a.len == b.len == seen.shape[1]

def test_it_speaks_with_what_it_has_just_learned():
    "A fused optimiser changes weights without a trace; the steps laid out before must not be used again"
    ar = AR(ARConfig(vocab_size=9, n_bins=16, n_q=2, d_model=32, n_heads=2, n_layers=1, d_ff=32, code_dim=8,
        speaker_dim=8, duration_hidden_dim=8)).eval()
    before = ar.step_stack().head.weight.clone()
    ar.train()
    optimiser = torch.optim.AdamW(ar.parameters(), lr=.1, fused=True)
    for p in ar.parameters(): p.grad = torch.ones_like(p)
    optimiser.step()
    after = ar.eval().step_stack().head.weight
    assert not torch.equal(after, before) and torch.equal(after, ar.head.weight.detach().t())
