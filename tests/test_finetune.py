"One's own voice: recordings in, better weights out or the old ones kept; LoRA leaves no trace but its corrections"
import sys
import numpy as np, pytest, torch
from harmonica.ar import AR, ARConfig
from harmonica.checkpoint import load_checkpoint, load_model, save_model
from harmonica.codec import Clip
from harmonica.finetune import add_lora, finetune, merge_lora, own_speech, tune
from harmonica.microcodec import MicroCodec, MicroCodecConfig
from harmonica.nar import NAR, NARConfig
from harmonica.config import load_config
from harmonica.text import Tokenizer

N_Q, BINS = 3, 32
def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Twelve recordings, a codec and an untrained AR and NAR"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    top = tmp_path_factory.mktemp("home")
    (top/"me").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        text = " ".join(rng.choice("the sea is calm tonight and all is well".split(), 5))
        N = 2000*len(text)
        swell = np.interp(np.arange(N), np.linspace(0, N, 2*len(text)), rng.uniform(.2, 1, 2*len(text)))
        Clip((.2*swell*np.sin(np.arange(N)*.03)).astype(np.float32)).save(top/f"me/r{i:02d}.wav")
        (top/f"me/r{i:02d}.txt").write_text(text)
    save_model(top/"codec.safetensors", MicroCodec(MicroCodecConfig(n_q=N_Q, n_bins=BINS, code_dim=8, enc_dim=16,
        enc_layers=1, dec_dim=16, dec_layers=1)))
    from harmonica.codec import load_codec
    codec, tok = load_codec(str(top/"codec.safetensors")), Tokenizer("letters")
    common = dict(vocab_size=tok.vocab_size, n_q=N_Q, n_bins=BINS, d_model=16, n_heads=2, n_layers=2, d_ff=32,
        code_dim=4, speaker_dim=8, dropout=.1)
    info = dict(codec=codec.name, codec_hash=codec.hash, frame_rate=50, tokenizer=tok.to_dict(),
        prompt_seconds=[.3, 1.], max_seconds=20.)
    save_model(top/"ar.safetensors", AR(ARConfig(**common, group=2, duration_hidden_dim=8, frame_rate=50)), bits=32,
        **info)
    save_model(top/"nar.safetensors", NAR(NARConfig(**common, cond_dim=8)), bits=32, **info)
    return top

def over(home, *more):
    return [f"data.codec={home}/codec.safetensors", "stages={}", "training.max_steps=20", "training.valid_every=5",
        "training.warmup_steps=1", "training.lr=3e-3", "training.batch_frames=600", *more]

def test_some_are_held_out(home, tmp_path):
    us = own_speech(home/"me")
    assert len(us) == 12 and {u.speaker for u in us} == {"me"} and sum(u.split == "valid" for u in us) == 1
    assert all(u.split == "train" for u in own_speech(home/"me", valid=0))
    with pytest.raises(ValueError, match="no folder"): own_speech(tmp_path/"nobody")

def files(home): return {k: home/f"{k}.safetensors" for k in ("ar", "nar")}

@pytest.fixture(scope="module")
def done(home):
    return finetune(home/"me", home/"full", overrides=over(home), models=files(home), device="cpu", progress=False)

@pytest.mark.parametrize("kind", ("ar", "nar"))
def test_learns_and_exports(home, done, kind):
    d = done[kind]
    assert d["after"] < d["before"] and d["steps"] == 20
    m, old = load_model(d["path"], kind=kind), load_model(home/f"{kind}.safetensors")
    assert not same(m, old) and m.info["codec_hash"] == old.info["codec_hash"]
    assert m.info["tokenizer"] == old.info["tokenizer"] and m.cfg == old.cfg
    assert m.info["finetuned"]["method"] == "full" and m.info["finetuned"]["utterances"] == 11
    assert m.info["prompt_seconds"] == [.3, 1.]

def test_the_best_is_kept(home, done):
    "The exported weights are those of best.pt, to half precision"
    best, m = load_checkpoint(home/"full/ar/best.pt"), load_model(done["ar"]["path"])
    assert all(torch.allclose(v, best["ema"][k], atol=2e-3) for k,v in m.state_dict().items())

def test_what_does_not_help_is_not_kept(home, done):
    cfg = load_config("finetune", over(home, "training.lr=3.", "training.max_steps=5", "training.clip=100"))
    cfg.data.cache_dir = str(home/"full/codes")
    with pytest.warns(UserWarning, match="no better on the held-out"):
        d = tune("ar", cfg, home/"worse", home/"ar.safetensors", device="cpu", progress=False)
    assert all(torch.allclose(a, b, atol=2e-3)
        for a,b in zip(load_model(d["path"]).state_dict().values(),
        load_model(home/"ar.safetensors").state_dict().values()))

def test_resumes(home, done):
    again = finetune(home/"me", home/"full", overrides=over(home), models=files(home), device="cpu", resume=True,
        progress=False)
    assert again["ar"]["before"] == done["ar"]["before"] and again["ar"]["after"] == pytest.approx(done["ar"]["after"])
    with pytest.raises(ValueError, match="holds a run already"):
        finetune(home/"me", home/"full", overrides=over(home), models=dict(ar=home/"ar.safetensors"), device="cpu",
            progress=False)

def test_refusals(home, monkeypatch):
    cfg = load_config("finetune", over(home))
    cfg.data.cache_dir = str(home/"full/codes")
    other = load_model(home/"ar.safetensors")
    save_model(home/"other.safetensors", other, codec="x", codec_hash="y")
    with pytest.raises(ValueError, match="speaks codes of x"):
        tune("ar", cfg, home/"x", home/"other.safetensors", device="cpu")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match="pip install"): add_lora(load_model(home/"ar.safetensors"))

# -- LoRA

@pytest.mark.parametrize("kind", ("ar", "nar"))
def test_lora_touches_only_its_corrections(home, done, kind):
    pytest.importorskip("peft")
    old = load_model(home/f"{kind}.safetensors")
    m = add_lora(load_model(home/f"{kind}.safetensors"), 2)
    names = [n for n,p in m.named_parameters() if p.requires_grad]
    # two matrices, two layers, four places
    assert names and all("lora_" in n for n in names) and len(names) == 2*2*4
    assert same(merge_lora(m), old)
    for n,p in m.named_parameters():
        if "lora_B" in n: torch.nn.init.normal_(p)
    merged = merge_lora(m)
    changed = {n for n,p in merged.named_parameters() if not torch.equal(p, dict(old.named_parameters())[n])}
    assert len(changed) == 8 and all("blocks" in n for n in changed)
    # a copy was merged, the model goes on learning
    assert any("lora_" in n for n,_ in m.named_parameters())

def test_lora_run_leaves_a_plain_model_and_resumes(home, done):
    pytest.importorskip("peft")
    cfg = load_config("finetune", over(home, "training.lr=2e-2", "training.max_steps=10"))
    cfg.data.cache_dir = str(home/"full/codes")
    d = tune("ar", cfg, home/"lora", home/"ar.safetensors", 2, device="cpu", progress=False)
    m = load_model(d["path"])
    assert d["after"] < d["before"] and m.info["finetuned"]["method"] == "lora"
    assert m.state_dict().keys() == load_model(home/"ar.safetensors").state_dict().keys()
    cfg = load_config("finetune", over(home, "training.lr=2e-2", "training.max_steps=12"))
    cfg.data.cache_dir = str(home/"full/codes")
    assert tune("ar", cfg, home/"lora", home/"ar.safetensors", 2, device="cpu", resume=True,
        progress=False)["steps"] == 12
