"Blocks: masks, positions, cache, embeddings"
import pytest, torch, torch.nn.functional as F
from harmonica.batch import length_mask
from harmonica.blocks import (CodeEmbedding, KVCache, PackedStack, TextEncoder, Transformer, laid_out, prefix_mask,
    two_products)

def close(a, b, eps=1e-4): assert torch.allclose(a, b, atol=eps, rtol=0), (a-b).abs().max()

@pytest.fixture
def tf():
    torch.manual_seed(0)
    return Transformer(32, 4, 3).eval()

def test_future_changes_nothing(tf):
    x, real = torch.randn(2, 12, 32), torch.ones(2, 12, dtype=torch.bool)
    mask = prefix_mask(torch.arange(12)[None] < torch.tensor([[3],[5]]), real)
    y, x2 = tf(x, mask), x.clone()
    x2[:,8:] = torch.randn(2, 4, 32)
    close(tf(x2, mask)[:,:8], y[:,:8], 1e-5)
    x2 = x.clone()
    x2[:,2] += 1 # the prefix is seen both ways
    assert ((tf(x2, mask)-y).abs().amax(-1) > 1e-4)[:,[0,1]].all()

def test_padding_is_not_seen(tf):
    x, n = torch.randn(3, 9, 32), torch.tensor([9,4,6])
    mask = length_mask(n, 9)[:,None,None]
    y = tf(x, mask)
    for i,k in enumerate(n): close(tf(x[i:i+1,:k]), y[i:i+1,:k])
    x2 = torch.where(length_mask(n, 9)[...,None], x, torch.randn_like(x)*9)
    y2 = tf(x2, mask)
    for i,k in enumerate(n): close(y2[i,:k], y[i,:k])

def test_no_nan_when_nothing_is_real(tf):
    x = torch.randn(2, 5, 32, requires_grad=True)
    mask = torch.zeros(2, 1, 5, 5, dtype=torch.bool)
    y = tf(x, mask)
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()

@pytest.mark.parametrize("first", [1, 4, 9])
def test_cache_equals_no_cache(tf, first):
    x, pos = torch.randn(2, 10, 32), torch.rand(2, 10)*20-5
    prefix = (torch.arange(10) < first)[None].expand(2, -1)
    real = torch.ones(2, 10, dtype=torch.bool)
    real[1,0] = first==1
    mask = prefix_mask(prefix, real)
    mask[...,torch.arange(10),torch.arange(10)] = True
    want, cache = tf(x, mask, pos), tf.cache(2, 10)
    got = [tf(x[:,:first], mask[...,:first,:first], pos[:,:first], cache)]
    for t in range(first, 10): got.append(tf(x[:,t:t+1], mask[...,t:t+1,:t+1], pos[:,t:t+1], cache))
    close(torch.cat(got, 1)[:,1:], want[:,1:])
    assert cache.len == 10

def test_only_distances_matter(tf):
    x, pos = torch.randn(1, 7, 32), torch.rand(1, 7)*30
    close(tf(x, pos=pos), tf(x, pos=pos+123.25), 1e-3)
    assert (tf(x, pos=pos)-tf(x, pos=pos*1.5)).abs().max() > 1e-3
    close(tf(x), tf(x, pos=torch.arange(7.)[None]))

def test_full_cache_says_so():
    c = KVCache(1, 1, 1, 2, 4)
    z = torch.zeros(1, 1, 3, 4)
    with pytest.raises(ValueError, match="max_len"): c.put(0, z, z)

def test_watch_agrees_and_ends(tf):
    x = torch.randn(1, 6, 32)
    y = tf(x)
    with tf.watch([0,2]) as maps: close(tf(x), y)
    assert set(maps) == {0,2} and maps[0].shape == (1,4,6,6)
    close(maps[0].sum(-1), torch.ones(1,4,6))
    assert tf.maps is None

def test_conditioning_starts_neutral_and_steers():
    torch.manual_seed(0)
    tf, x, c = Transformer(32, 4, 2, cond_dim=8).eval(), torch.randn(2, 5, 32), torch.randn(2, 8)
    close(tf(x, cond=c), tf(x, cond=torch.zeros(2, 8)))
    for n,p in tf.named_parameters():
        if "ada" in n: torch.nn.init.normal_(p, std=.1)
    a, b = tf(x, cond=c), tf(x, cond=c.flip(0))
    assert (a-b).abs().max() > .01
    close(tf(x[1:], cond=c[1:]), a[1:])

def test_grad_checkpoint_changes_nothing():
    torch.manual_seed(0)
    a, b = Transformer(16, 2, 2), Transformer(16, 2, 2, grad_checkpoint=True)
    b.load_state_dict(a.state_dict())
    x = torch.randn(1, 5, 16)
    for m in (a,b): m(x).pow(2).sum().backward()
    for p,q in zip(a.parameters(), b.parameters()): close(p.grad, q.grad)

@pytest.mark.parametrize("d,h", [(30,4),(12,4),(10,3)])
def test_odd_heads_are_refused(d, h):
    with pytest.raises(ValueError, match="even width"): Transformer(d, h, 1)

def test_default_width_of_feed_forward():
    assert Transformer(40, 2, 1).d_ff == 192 and Transformer(64, 2, 1, 80).d_ff == 80

def test_code_embedding():
    torch.manual_seed(0)
    e, c = CodeEmbedding(4, 16, 8, 32), torch.randint(16, (2,4,7))
    close(e(c), sum(e.tables[i][c[:,i]]@e.proj[i] for i in range(4)))
    close(e(c[:,2:], books=[2,3]), e(c)-e(c[:,:2]))
    assert e(c[:,:0]).shape == (2,7,32) and e(c[...,:0]).shape == (2,0,32)
    books = torch.randn(6,16,8)*3+1
    assert e.load_books(books) and abs(e.tables.std()-1) < .1
    assert not e.load_books(books[:2]) and not e.load_books(books[...,:4])

def test_text_encoder_ignores_padding():
    torch.manual_seed(0)
    enc, n = TextEncoder(20, 16), torch.tensor([9,1,5])
    t = torch.randint(1, 20, (3,9))
    y = enc(t, n)
    for i,k in enumerate(n):
        close(enc(t[i:i+1,:k], n[i:i+1]), y[i:i+1,:k])
        assert not y[i,k:].any()

@pytest.mark.parametrize("padded", (False, True))
def test_half_precision_learns_the_same_on_a_cpu(padded):
    "Attention in bfloat16, written out for gradients: same values, same gradients, nothing lost in rows of padding"
    torch.manual_seed(0)
    tf, x = Transformer(64, 4, 2, 128).eval(), torch.randn(3, 40, 64)
    w = torch.randn(3, 40, 64)
    mask = torch.ones(40, 40, dtype=torch.bool).tril()[None,None].expand(3, 1, -1, -1).clone()
    if padded:
        mask[1,:,:,25:] = False
        mask[1,:,25:] = True
    def both(half):
        tf.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half): y = tf(x, mask).float()
        (y*w)[:,:25].sum().backward()
        return y.detach()[:,:25], tf.blocks[0].attn.qkv.weight.grad.clone()
    for got, want in zip(both(True), both(False)):
        assert torch.isfinite(got).all() and (got-want).norm() < .02*want.norm()

@pytest.mark.parametrize("cond_dim", [None, 16])
def test_rows_end_to_end_say_what_padded_ones_say(cond_dim):
    torch.manual_seed(0)
    tf = Transformer(32, 4, 3, cond_dim=cond_dim).eval()
    n = torch.tensor([12, 5])
    if cond_dim:
        torch.nn.init.normal_(tf.ada.weight, std=.3)
        [torch.nn.init.normal_(b.ada.weight, std=.3) for b in tf.blocks]
    x, pos, real = torch.randn(2, 12, 32), torch.arange(12.)[None]-torch.tensor([[3.], [7.]]), length_mask(n, 12)
    cond = torch.randn(2, 16) if cond_dim else None
    with torch.no_grad(): padded = tf(x, real[:,None,None], pos, cond=cond)[real]
    for half, quick, eps in ((False, False, 1e-4), (True, False, .1), (True, True, .1)):
        packed = PackedStack(tf, half, quick)
        close(packed(x[real], n.tolist(), packed.rope(pos[real]), cond), padded, eps)

@pytest.mark.parametrize("N,S", [(1, 3), (7, 40), (130, 380), (400, 700), (0, 5), (800, 1000)])
def test_two_products_are_attention(N, S):
    "However many heads go at a time"
    q, k, v = (torch.randn(1, 4, n, 64, generator=torch.Generator().manual_seed(n)) for n in (N, S, S))
    close(two_products(q, k, v), F.scaled_dot_product_attention(q, k, v), 1e-5)

def test_what_stands_before_a_row_is_seen_as_if_it_were_part_of_it(tf):
    packed, x, kept = PackedStack(tf), torch.randn(9, 32), []
    packed(x[:4], [4], packed.rope(torch.arange(4)), keep=kept)
    after = packed(x[4:].repeat(2, 1), [5, 5], packed.rope(torch.arange(4, 9).repeat(2)),
        before=lambda i: [kept[i], [o[:,:0] for o in kept[i]]])
    mask = torch.ones(9, 9, dtype=torch.bool)
    mask[:4,4:] = False
    with torch.no_grad():
        close(after[:5], tf(x[None], mask[None,None])[0,4:])
        close(after[5:], tf(x[None,4:], pos=torch.arange(4, 9)[None])[0])

def test_a_layout_is_made_once_and_anew_when_weights_change(tf):
    first = laid_out(tf, PackedStack, False)
    assert laid_out(tf, PackedStack, False) is first
    with torch.no_grad(): tf.norm.weight.mul_(2)
    again = laid_out(tf, PackedStack, False)
    x = torch.randn(3, 32)
    rope = first.rope(torch.arange(3))
    close(again(x, [3], rope), 2*first(x, [3], rope))
