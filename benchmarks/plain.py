"""The yardstick: a plain modern decoder, as anyone would write it

Rotary positions, RMSNorm, SwiGLU, scaled_dot_product_attention, no biases; one sequence of text, prompt and target
tokens under one causal mask. No trick that is ours is in it."""
import torch, torch.nn as nn, torch.nn.functional as F

def rope(x, cos, sin):
    a,b = x.chunk(2, -1)
    return torch.cat([a*cos-b*sin, b*cos+a*sin], -1)

class Block(nn.Module):
    def __init__(self, d, heads, d_ff):
        super().__init__()
        self.heads, self.n1, self.n2 = heads, nn.RMSNorm(d), nn.RMSNorm(d)
        self.qkv, self.out = nn.Linear(d, 3*d, bias=False), nn.Linear(d, d, bias=False)
        self.gate, self.up, self.down = nn.Linear(d, d_ff, bias=False), nn.Linear(d, d_ff, bias=False), nn.Linear(d_ff,
            d, bias=False)
    def forward(self, x, cos, sin, causal):
        B,S,D = x.shape
        q,k,v = self.qkv(self.n1(x)).view(B, S, 3, self.heads, -1).permute(2,0,3,1,4)
        a = F.scaled_dot_product_attention(rope(q, cos, sin), rope(k, cos, sin), v, is_causal=causal)
        x = x+self.out(a.transpose(1,2).reshape(B, S, D))
        h = self.n2(x)
        return x+self.down(F.silu(self.gate(h))*self.up(h))

class Plain(nn.Module):
    "Decoder (causal) or, for a NAR, encoder over the same tokens"
    def __init__(self, vocab=128, bins=1024, d=512, heads=8, layers=12, d_ff=1856, causal=True):
        super().__init__()
        self.text, self.codes, self.causal, self.d, self.heads = nn.Embedding(vocab, d), nn.Embedding(bins,
            d), causal, d, heads
        self.blocks, self.norm, self.head = nn.ModuleList(Block(d, heads, d_ff)
            for _ in range(layers)), nn.RMSNorm(d), nn.Linear(d, bins, bias=False)
    def loss(self, batch):
        text, prompt, codes = batch.text, batch.prompt[:,0], batch.codes[:,0]
        x = torch.cat([self.text(text), self.codes(prompt), self.codes(codes)], 1)
        dim = self.d//self.heads
        a = torch.arange(x.shape[1], device=x.device)[:,None]*10000.**(-torch.arange(0, dim, 2, device=x.device)/dim)
        cos, sin = a.cos().to(x.dtype), a.sin().to(x.dtype)
        for b in self.blocks: x = b(x, cos, sin, self.causal)
        n = codes.shape[1]
        said = x[:,-n-1:-1] if self.causal else x[:,-n:]
        loss = F.cross_entropy(self.head(self.norm(said)).flatten(0,1).float(), codes.flatten())
        return loss, {}
