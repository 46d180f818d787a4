"""Signals, the mel codec, speech laid flat, and the flow: what they promise, on small made-up sounds."""
import json
from types import SimpleNamespace
import numpy as np
import pytest
import torch

from harmonica.codec import Clip, load_codec, packaged_voice
from harmonica.data import Utterance
from harmonica.batch import Batch
from harmonica.flow import (Distillation, FlowLoader, FlowNAR, FlowNARConfig, PAINTING, RetoldCrops,
    disguise, flow_times, warp_matrix)
from harmonica.melcodec import PITCH_SPREAD, MelCodec, MelCodecConfig, SpeechBatch, spectral_loss
from harmonica.signal import fill_unvoiced, find_pitch, glide, log_mel, overlap_add, phase, pulses, stft
from harmonica.speech import SpeechCrops, SpeechStore, prepare_speech


def tone(hz, seconds=1., rate=24000, harmonics=12):
    t = np.arange(round(seconds*rate))/rate
    return Clip(sum(np.cos(2*np.pi*k*hz*t)/k for k in range(1, harmonics))*.1, rate)


@pytest.fixture(scope="module")
def reader(): return Clip.load(packaged_voice()).tidy()

@pytest.fixture(scope="module")
def codec(reader):
    wav = torch.from_numpy(reader.samples[:len(reader)//480*480])[None]
    return MelCodec(MelCodecConfig(dim=64, n_layers=2, n_bins=32)).fit_latent([wav]).eval()

@pytest.fixture(scope="module")
def store(tmp_path_factory, reader):
    out = tmp_path_factory.mktemp("speech")
    half = len(reader)//2
    rows = [Utterance(Clip(reader.samples[:half], 24000), "", "a", id="1"),
        Utterance(Clip(reader.samples[half:], 24000), "", "a", id="2"), Utterance(tone(150, 3), "", "b", id="3"),
        Utterance(Clip(np.zeros(24000, np.float32)), "", "c", id="4")]
    counts = prepare_speech(rows, out, progress=False)
    assert counts == dict(made=3, rejected=1)
    return SpeechStore([out])


# ---------------------------------------------------------------- signals

@pytest.mark.parametrize("hz", [70, 110, 180, 260, 420])
def test_pitch_is_found(hz):
    f, sure = find_pitch(tone(hz))
    assert len(f) == len(sure) == 100
    assert (sure[10:-10] > .5).all() and np.abs(np.log2(f[10:-10]/hz)).max() < .02

def test_pitch_is_in_time():
    t = np.arange(72000)/24000
    slide = 130*2**(.5*np.sin(2*np.pi*1.5*t))
    f, _ = find_pitch(Clip(sum(np.cos(2*np.pi*h*np.cumsum(slide)/24000)/h for h in range(1, 15))*.1))
    at = (np.arange(300)+.5)*240
    off = [np.abs(np.log(f)-np.log(np.interp(at+s*24, np.arange(72000), slide)))[10:-10].mean() for s in range(-10, 11)]
    assert abs(int(np.argmin(off))-10) <= 1      # within a millisecond

def test_no_pitch_in_noise_or_silence():
    noise = Clip(np.random.default_rng(0).standard_normal(48000).astype(np.float32)*.1)
    assert (find_pitch(noise)[1] > .5).mean() < .1
    assert not (find_pitch(Clip(np.zeros(24000, np.float32)))[1] > .5).any()

def test_very_short_sound_has_columns():
    f, sure = find_pitch(Clip(np.zeros(100, np.float32)))
    assert len(f) == len(sure) == 1

def test_fill_unvoiced_draws_lines():
    f = fill_unvoiced(np.array([100., 0., 0., 0., 200.]), np.array([True, False, False, False, True]))
    assert np.allclose(f, 100*2**(np.arange(5)/4))
    assert (fill_unvoiced(np.zeros(3), np.zeros(3, bool), silent=99.) == 99).all()

def test_spectrogram_and_back(reader):
    x = torch.from_numpy(reader.samples[:24000])[None]
    y = overlap_add(torch.fft.irfft(stft(x, 960, 240)), 240)
    assert (x-y)[:, 960:-960].abs().max() < 1e-4

def test_log_mel_of_white_noise_is_flat():
    s = stft(torch.randn(1, 240000, generator=torch.Generator().manual_seed(0)), 960, 240).abs()
    m = log_mel(s).mean((0, 1))
    assert m.std() < .05

@pytest.mark.parametrize("hz", [80., 200., 500.])
def test_pulses_have_their_power_and_pitch(hz):
    f = glide(torch.full((1, 100), hz))
    x = pulses(phase(f)[0], f.flatten(1))[0]
    assert .4 < x.pow(2).mean() < .6
    found, _ = find_pitch(Clip(x.numpy()*.1))
    assert abs(np.log2(np.median(found)/hz)) < .02


# ---------------------------------------------------------------- codec

def test_latents_say_pitch_and_loudness(codec, reader):
    z = codec.analyse(reader)
    mel, hertz, voiced = codec.envelope(z[None])
    wav = torch.from_numpy(np.pad(reader.samples, (0, -len(reader) % 480)))[None]
    true = codec.log_mel(wav).reshape(1, -1, 80)
    assert (mel-true).abs().mean() < .25
    f, sure = find_pitch(reader)
    on = sure[:hertz.shape[1]] > .8
    assert np.abs(np.log2(hertz[0].numpy()[:len(f)][on]/f[:hertz.shape[1]][on])).max() < .02

def test_untrained_vocoder_keeps_the_spectrum(codec, reader):
    z = codec.analyse(reader)
    with torch.no_grad(): again = Clip(codec.vocode(z[None])[0].numpy())
    z2 = codec.analyse(again)
    assert (codec.envelope(z[None])[0]-codec.envelope(z2[None])[0]).abs().mean() < .6
    assert torch.corrcoef(torch.stack([z[:, 0], z2[:, 0]]))[0, 1] > .98

@pytest.mark.parametrize("n", [1, 9, 50, 1000])
def test_stream_equals_whole(codec, reader, n):
    z = codec.analyse(reader)[:120]
    with torch.no_grad(): whole = codec.vocode(z[None])[0].clamp(-1, 1).numpy()
    got = Clip.join(list(codec.stream(z.split(n)))).samples
    assert len(got) == len(whole) and np.abs(got-whole).max() < 1e-5

def test_codes_are_a_coarser_telling(codec, reader):
    codec.fit_books(codec.analyse(reader), rounds=4, generator=torch.Generator().manual_seed(0))
    codes, z = codec.encode(reader), codec.analyse(reader)
    assert codes.shape == (8, len(z)) and codes.max() < 32
    off = [float(((codec.from_codes(codes[None, :k])[0]-z)*codec.hearing).pow(2).mean()) for k in (1, 3, 8)]
    assert off[0] > off[1] > off[2]
    assert codec.decode(codes[:2]).seconds == pytest.approx(len(z)/50)

def test_hash_depends_on_what_makes_codes(codec):
    other = MelCodec(codec.cfg)
    other.load_state_dict(codec.state_dict())
    assert other.hash == codec.hash
    torch.nn.init.normal_(other.in_proj.weight)
    assert other.hash == codec.hash
    other.spread += 1
    assert other.hash != codec.hash

def test_spectral_loss_hears_only_what_there_is():
    g = torch.Generator().manual_seed(0)
    loss, low = spectral_loss, torch.from_numpy(tone(200).samples)[None]
    high = torch.randn(1, 24000, generator=g)*.001
    s = torch.fft.rfft(high)
    s[:, :9000] = 0
    above = low+torch.fft.irfft(s)              # something above 9 kHz that the recording could not hold
    assert loss(low, low, torch.tensor([12000.])) == 0
    assert loss(above, low, torch.tensor([8000.])) < .2*loss(above, low, torch.tensor([12000.]))

def test_vocoder_learns(codec, store):
    torch.manual_seed(0)
    model = MelCodec(MelCodecConfig(dim=64, n_layers=2))
    model.load_state_dict({k: v for k, v in codec.state_dict().items() if k in ("mean", "basis", "spread")},
        strict=False)
    batch = next(iter(SpeechCrops(store, 2, .64, vary=0.)))
    opt, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(25):
        d, parts = model.loss(batch)
        opt.zero_grad()
        d.backward()
        opt.step()
        losses.append(d.item())
    assert losses[-1] < .95*losses[0] and set(parts) == {"spectral"}


# ---------------------------------------------------------------- speech laid flat

def test_store_gives_back_what_was_laid_out(store, reader):
    x, pitch, codes = store.window(store.rows[0], 10, 20)
    assert x.shape == (9600,) and pitch.shape == (40, 2) and codes.shape == (20,)
    f, _ = find_pitch(tone(150, 3))
    got = store.window(store.rows[2], 0, 100)[1]
    assert np.abs(2**got[20:-20, 0]-150).max() < 3

def test_store_refuses(tmp_path, store):
    with pytest.raises(ValueError, match="holds no index.jsonl"): SpeechStore([tmp_path])
    with pytest.raises(ValueError, match="no utterance of 100000 frames"): SpeechStore([store_folder(store)], 100000)
    with pytest.raises(ValueError, match="shorter crops"): SpeechCrops(store, seconds=100.)

def store_folder(store):
    from pathlib import Path
    return Path(store.maps[0][0].filename).parent

def test_rare_speakers_are_drawn_nearly_as_often(store):
    by_length, evenly = store.chances(1.), store.chances(0.)
    who = store.who
    assert np.allclose([evenly[who == k].sum() for k in (0, 1)], .5)
    assert by_length[who == 0].sum() > .6
    assert np.isclose(store.chances(.4).sum(), 1)

def test_crops_resume(store):
    a = iter(SpeechCrops(store, 3, .5, seed=4))
    first, second = next(a), next(a)
    b = SpeechCrops(store, 3, .5, seed=4)
    b.load_state_dict(dict(i=1))
    again = next(iter(b))
    assert torch.equal(again.wav, second.wav) and not torch.equal(first.wav, second.wav)
    assert first.pitch.shape == (3, 50, 2) and first.seconds == pytest.approx(1.5)

def test_a_killed_preparation_leaves_no_store(tmp_path, reader):
    def interrupted():
        yield Utterance(reader, "", "a", id="1")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): prepare_speech(interrupted(), tmp_path, progress=False)
    with pytest.raises(ValueError, match="holds no index.jsonl"): SpeechStore([tmp_path])

def test_rows_are_json(store):
    rows = [json.loads(l) for l in open(store_folder(store)/"index.jsonl")]
    assert [r["id"] for r in rows] == ["1", "2", "3"] and all(r["tokens"] == [0] for r in rows)


# ---------------------------------------------------------------- flow

TINY = FlowNARConfig(vocab_size=20, n_bins=32, d_model=32, n_heads=2, n_layers=2, d_ff=64, cond_dim=16, speaker_dim=16,
    dropout=0.)

def request(T=(30, 20), P=(25, 0)):
    g = torch.Generator().manual_seed(0)
    B, L = len(T), 6
    d = torch.zeros(B, L)
    for row, t in zip(d, T): row[:] = t/L
    codes, prompt = torch.randint(32, (B, 1, max(T)), generator=g), torch.randn(B, max(P), 52, generator=g).mT
    text, apart = torch.randint(1, 20, (B, L), generator=g), torch.zeros(B, dtype=torch.bool)
    return Batch(text, torch.full((B,), L), prompt, torch.tensor(P), apart, codes, torch.tensor(T), d)

def test_padding_changes_nothing():
    torch.manual_seed(0)
    m, two = FlowNAR(TINY).eval(), request()
    x, t = torch.randn(2, 30, 52), torch.tensor([.2, .7])
    with torch.no_grad():
        both, one = m(x, t, m.frames(two), two), two[1:]
        assert one.prompt.shape == (1, 52, 0) and one.codes.shape == (1, 1, 20)
        alone = m(x[1:, :20], t[1:], m.frames(one), one)
    assert (both[1, :20]-alone[0]).abs().max() < 1e-4

def test_a_kept_prompt_changes_nothing():
    torch.manual_seed(0)
    m, b = FlowNAR(TINY).eval(), request((30, 20), (25, 9))
    torch.nn.init.normal_(m.body.ada.weight, std=.3)
    x, t = torch.randn(2, 30, 52), torch.tensor([.3, .6])
    with torch.no_grad():
        for n in (b.prompt_len, b.prompt_len*0):
            heard = [m.hear(p[:,:k].mT) for p,k in zip(b.prompt, n)]
            off = m.steerer(b, heard)(x, t)-m(x, t, m.frames(b), b, n)
            assert off[0].abs().max() < 1e-4 and off[1, :20].abs().max() < 1e-4

def test_nobody_is_heard_once_and_anew_when_the_weights_change(monkeypatch):
    "Guidance asks what would be said without a prompt; that is worked out once a model, and never stale"
    torch.manual_seed(0)
    m, b, heard, hear = FlowNAR(TINY).eval(), request((30, 20), (25, 9)), [], FlowNAR.hear
    torch.nn.init.normal_(m.body.ada.weight, std=.3)
    def listen(self, prompt, *rest):
        heard.append(len(prompt))
        return hear(self, prompt, *rest)
    monkeypatch.setattr(FlowNAR, "hear", listen)
    make = lambda m: m.generate(b, steps=1, guidance=2., generator=torch.Generator().manual_seed(0))
    first = make(m)
    assert torch.equal(make(m), first) and heard.count(0) == 1
    with torch.no_grad(): m.speaker.null_speaker.add_(1.)
    again = make(m)
    assert heard.count(0) == 2 and not torch.equal(again, first)
    fresh = FlowNAR(TINY).eval()
    fresh.load_state_dict(m.state_dict())
    assert torch.equal(make(fresh), again)

def test_seed_decides_and_prompt_matters():
    torch.manual_seed(0)
    m, b = FlowNAR(TINY).eval(), request()
    torch.nn.init.normal_(m.body.ada.weight, std=.3)
    make = lambda seed, **kw: m.generate(b, steps=2, generator=torch.Generator().manual_seed(seed), **kw)
    assert torch.equal(make(1), make(1)) and not torch.equal(make(1), make(2))
    assert not torch.allclose(make(1, guidance=1.), make(1, guidance=3.))

def test_flow_learns_what_book0_says():
    "Two entries of book 0, two latents: after some updates a draw is near the right one"
    torch.manual_seed(0)
    m = FlowNAR(TINY)
    places = torch.zeros(2, 52)
    places[0, 0], places[1, 0] = 1.5, -1.5
    opt = torch.optim.Adam(m.parameters(), 4e-3)
    for i in range(150):
        b = request((24,)*8, (0,)*8)
        b.codes = torch.randint(2, (8, 1, 24))
        b.latents = (places[b.codes[:,0]]+.1*torch.randn(8, 24, 52)).mT
        loss, parts = m.train().loss(b)
        opt.zero_grad()
        loss.backward()
        opt.step()
    b = request((24,)*2, (0,)*2)
    b.codes = torch.tensor([[[0]*12+[1]*12]]*2)
    z = m.eval().generate(b, guidance=1., generator=torch.Generator().manual_seed(0))
    assert z[:, :12, 0].mean() > .8 and z[:, 12:, 0].mean() < -.8
    assert set(parts) == {"low", "middle", "high", "pitch", "voicing"}

def test_times_rise_from_0_to_1():
    for n in (1, 4, 16):
        t = flow_times(n)
        assert t[0] == 0 and abs(t[-1]-1) < 1e-6 and all(a < b for a, b in zip(t, t[1:]))
    assert flow_times(8)[1] < 1/8

def test_disguise_moves_pitch_and_formants_alone(codec, reader):
    z = codec.analyse(reader)[None]
    still = disguise(codec, z, warp_matrix(np.ones(1)), torch.zeros(1, 80), torch.zeros(1))
    assert (still-z).abs().max() < 1e-3
    up = disguise(codec, z, warp_matrix(np.array([.9])), torch.zeros(1, 80), torch.tensor([.5]))
    assert torch.allclose(up[..., 48:50]-z[..., 48:50], torch.full_like(z[..., 48:50], .5/PITCH_SPREAD), atol=1e-4)
    bands = torch.arange(80.)
    middle = lambda y: (codec.envelope(y)[0].exp().mean((0, 1))*bands).sum()/codec.envelope(y)[0].exp().mean((0,
        1)).sum()
    assert middle(up) > middle(z)

def test_batches_of_the_loader(store, codec):
    loader = FlowLoader(store, codec, frames=300, target_seconds=(.5, 1.), prompt_seconds=(.4, .8))
    b, again = loader[3], loader[3]
    assert torch.equal(b.latents, again.latents) and b.latents.shape[1] == 52 and (b.text_start <= 0).all()
    assert (b.prompt_len > 0).all() and b.n_frames.sum() > 25
    m = FlowNAR(FlowNARConfig(vocab_size=64, d_model=32, n_heads=2, n_layers=1, d_ff=64, cond_dim=16, speaker_dim=16))
    loss, _ = m.loss(b)
    assert torch.isfinite(loss)

def small_flow():
    return FlowNAR(FlowNARConfig(vocab_size=64, d_model=32, n_heads=2, n_layers=1, d_ff=64, cond_dim=16,
        speaker_dim=16)).eval()

def test_repaint_begins_where_it_is_told(store, codec):
    "From the latents themselves nothing is painted; from near noise, all but pitch and voicing"
    b, m = FlowLoader(store, codec, frames=300, target_seconds=(.5, 1.), prompt_seconds=(.4, .8))[3], small_flow()
    new = lambda begin: m.repaint(b, begin, generator=torch.Generator().manual_seed(0))
    true = b.latents.mT
    torch.testing.assert_close(new(1.), true)
    assert not torch.allclose(new(.1)[..., :48], true[..., :48], atol=.1)
    torch.testing.assert_close(new(.1)[..., 48:], true[..., 48:])

@pytest.mark.parametrize("share", [0., 1.])
def test_retold_crops_are_sound_beside_what_the_flow_makes_of_it(store, codec, share):
    crops = RetoldCrops(store, codec, small_flow(), batch=3, seconds=.5, share=share)
    b, again = crops[2], crops[2]
    assert torch.equal(b.latents, again.latents) and torch.equal(b.wav, again.wav)
    assert b.wav.shape[1] == b.latents.shape[1]*480
    # the windows of the spectrum reach beyond a crop at its edges
    own = codec.latents(b.wav, b.pitch)[:, 2:-2]
    assert torch.allclose(b.latents[:, 2:-2], own, atol=1e-3) == (share == 0)
    assert b.to("cpu").latents is not None

def test_speech_batch_moves(store):
    b = next(iter(SpeechCrops(store, 2, .5))).to("cpu")
    assert isinstance(b, SpeechBatch) and b.rate == 24000

@pytest.mark.parametrize("bits", [8, 16])
def test_files(tmp_path, codec, bits):
    from harmonica.checkpoint import load_model, save_model
    m = FlowNAR(TINY)
    again = load_model(save_model(tmp_path/"flow.safetensors", m, bits=bits), kind="flow")
    assert again.cfg == TINY and (again.out.weight-m.out.weight).abs().max() < .02
    path = save_model(tmp_path/"mel.safetensors", codec, bits=16)
    same = load_model(path, kind="mel")
    assert same.cfg == codec.cfg and load_codec(path).name == "mel"


# ---------------------------------------------------------------- from recordings to weights, as the commands do it

@pytest.fixture(scope="module")
def flat(tmp_path_factory, reader):
    "A manifest of four recordings of two speakers, laid flat by the command"
    from harmonica import cli
    root = tmp_path_factory.mktemp("flat")
    rows = []
    for i, who in enumerate("aabb"):
        part = reader.cut(i*1.6, 1.6)
        if who == "b": part = Clip(Clip(part.samples, 20000).to(24000).samples, 24000)
        part.save(root/f"{i}.wav")
        rows.append(dict(audio=f"{i}.wav", text="", speaker=who, split="train"))
    (root/"speech.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cli.flatten.__wrapped__(str(root/"speech.jsonl"), out=str(root/"laid"), device="cpu")
    return root

def config(flat, *more):
    from harmonica.config import load_config
    small = ["model.mel.dim=32", "model.mel.n_layers=1", "model.mel.n_bins=16", "model.flow.d_model=32",
        "model.flow.n_heads=2", "model.flow.n_layers=1", "model.flow.d_ff=32", "model.flow.cond_dim=16",
        "model.flow.speaker_dim=16", "training.batch_size=2", "training.batch_frames=200", "training.max_steps=3",
        "training.grad_accum_steps=1", "training.valid_every=2", "training.warmup_steps=1", "data.crop_seconds=.5",
        "data.prompt_seconds=[.4, .8]", "data.target_seconds=[.5, 1]"]
    where = [f"data.speech_dir={flat/'laid'}", f"data.speech_valid_dir={flat/'laid'}"]
    return load_config("config", [*small, *where, *more])

def test_speech_is_laid_flat(flat):
    store = SpeechStore([flat/"laid"])
    assert len(store.rows) == 4 and len(set(store.who)) == 2
    assert (store.window(store.rows[0], 0, 20)[2] > 0).any()      # book 0 of the packaged codec

class StopAt2:
    def after_step(self, t): t.stop = t.step == 2

@pytest.mark.parametrize("critics,pieces", [("false", 1), ("true", 1), ("true", 2)])
def test_train_mel_stops_and_goes_on(flat, tmp_path, critics, pieces):
    "Critics hear each micro-batch of an update once: with two of them the second turn had nothing to learn from"
    from harmonica.recipes import train
    cfg = config(flat, f"training.critics={critics}", f"training.grad_accum_steps={pieces}")
    whole = train("mel", cfg, tmp_path/"whole", "cpu", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train("mel", cfg, tmp_path/"run", "cpu", callbacks=[StopAt2()], progress=False)
    again = train("mel", cfg, tmp_path/"run", "cpu", resume=True, progress=False)
    assert again.step == 3
    for (k, a), b in zip(whole.model.state_dict().items(), again.model.state_dict().values()):
        assert torch.equal(a, b), k
    codec = load_codec(tmp_path/"run"/"mel.safetensors")
    assert codec.name == "mel" and codec.spread.std() > 0

def test_train_flow(flat, tmp_path):
    from harmonica.checkpoint import load_model
    from harmonica.recipes import train
    train("mel", config(flat), tmp_path/"mel", "cpu", progress=False)
    cfg = config(flat, f"data.codec={tmp_path/'mel'/'mel.safetensors'}")
    t = train("flow", cfg, tmp_path/"flow", "cpu", progress=False)
    m = load_model(tmp_path/"flow"/"flow.safetensors", kind="flow")
    assert t.step == 3 and m.info["codec"] == "mel" and (m.size != 1).any()
    how = m.info["painting"]   # what a voice speaks with: Euler steps, not those of the training
    assert how == PAINTING and m.info["steps"] == 3
    told = config(flat, f"data.flow={tmp_path/'flow'/'flow.safetensors'}")
    with pytest.raises(ValueError, match="without --init"): train("mel", told, tmp_path/"no", "cpu", progress=False)
    again = train("mel", told, tmp_path/"mel2", "cpu", init=tmp_path/"mel"/"mel.safetensors", progress=False)
    assert again.step == 3
    assert load_codec(tmp_path/"mel2"/"mel.safetensors").hash == load_codec(tmp_path/"mel"/"mel.safetensors").hash
    with pytest.raises(ValueError, match="give the file that stage mel made"):
        train("flow", config(flat, "data.codec=micro"), tmp_path/"no", "cpu", progress=False)

def test_a_flow_is_distilled(flat, tmp_path):
    "Its file says how to paint with it and who taught it, and a vocoder hears it set out from noise alone"
    from harmonica.checkpoint import load_model
    from harmonica.recipes import train
    mel, teacher, out = tmp_path/"mel"/"mel.safetensors", tmp_path/"flow"/"flow.safetensors", tmp_path/"student"
    train("mel", config(flat), mel.parent, "cpu", progress=False)
    cfg = config(flat, f"data.codec={mel}", "model.flow.dropout=.5")
    train("flow", cfg, teacher.parent, "cpu", progress=False)
    taught = config(flat, f"data.codec={mel}", f"training.teacher={teacher}")
    t = train("flow", taught, out, "cpu", init=teacher, progress=False)
    m = load_model(out/"flow.safetensors", kind="flow")
    assert t.model.cfg.dropout == 0 and m.info["painting"] == dict(PAINTING, steps=2, guidance=1.)
    assert m.info["teacher"] == str(teacher) and set(t.metrics) >= {"low", "middle", "high", "pitch"}
    began = []
    repaint = FlowNAR.repaint
    def watched(self, batch, begin, generator, painting):
        began.append((begin, painting["steps"]))
        return repaint(self, batch, begin, generator, painting)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlowNAR, "repaint", watched)
        told = config(flat, f"data.flow={out/'flow.safetensors'}")
        train("mel", told, tmp_path/"mel2", "cpu", init=mel, progress=False)
    assert set(began) == {(0., 2)}

def test_a_distilled_flow_learns_to_learn_again(flat, tmp_path):
    "Nothing changes but the factors, and its file says what it said"
    from harmonica.checkpoint import load_model
    from harmonica.recipes import UNDO_RANK, train
    mel, done, out = tmp_path/"mel"/"mel.safetensors", tmp_path/"flow"/"flow.safetensors", tmp_path/"again"
    train("mel", config(flat), mel.parent, "cpu", progress=False)
    train("flow", config(flat, f"data.codec={mel}"), done.parent, "cpu", progress=False)
    cfg = config(flat, f"data.codec={mel}", f"training.distilled={done}", "training.ema=0")
    train("flow", cfg, out, "cpu", progress=False)
    before, after = (load_model(p, kind="flow") for p in (done, out/"flow.safetensors"))
    own = before.state_dict()
    assert before.undo is None and after.cfg.undo_rank == UNDO_RANK
    assert all(torch.equal(v, own[k]) for k,v in after.state_dict().items() if not k.startswith("undo."))
    assert any(b.any() for b in after.undo.b.values())
    assert after.info["painting"] == before.info["painting"] and after.info["steps"] == 3

def test_a_student_comes_to_where_its_teacher_goes():
    torch.manual_seed(0)
    teacher, student = FlowNAR(TINY).eval(), FlowNAR(TINY).eval()
    for p in teacher.parameters(): p.data += .1*torch.randn_like(p)
    student.load_state_dict(teacher.state_dict())
    b = request()
    lesson, optimiser, losses = Distillation(teacher), torch.optim.AdamW(student.parameters(), lr=3e-3), []
    for _ in range(60):
        loss, _ = lesson(SimpleNamespace(model=student), b)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    noise = .3*torch.randn(len(b), b.codes.shape[-1], TINY.latent_dim, generator=torch.Generator().manual_seed(1))
    goal = teacher.generate(b, noise=noise/.3)
    off = lambda m, **how: float((m.generate(b, noise=noise/.3, **how)-goal).pow(2).mean())
    assert off(student, steps=2, guidance=1.) < .3*off(teacher, steps=2, guidance=1.)
    assert losses[-1] < .3*losses[0] and torch.equal(lesson.way(b, noise)[0], noise)
    assert (lesson.way(b, noise)[-1]/teacher.size-goal).abs().mean() < .01*goal.std()   # bfloat16 where it is quick
    with pytest.raises(ValueError, match="4 steps"): Distillation(teacher, steps=3)

def test_speech_dir_is_asked_for(tmp_path):
    from harmonica.config import load_config
    from harmonica.recipes import train
    with pytest.raises(ValueError, match="data.speech_dir is not set"):
        train("mel", load_config("config"), tmp_path, "cpu", progress=False)

def test_the_packaged_vocoder_has_learned(reader):
    "Nearer to a recording of a speaker held out than latents without training, and pitch and envelope come back"
    mel = load_codec("mel")
    plain = MelCodec(mel.cfg).eval()
    plain.load_state_dict({k: v for k, v in mel.state_dict().items() if k in ("mean", "basis", "spread")}, strict=False)
    wav = torch.from_numpy(reader.samples[:len(reader)//480*480])[None]
    z = mel.analyse(reader)[None, :wav.shape[1]//480]
    with torch.no_grad(): off = [float(spectral_loss(c.vocode(z), wav, torch.tensor([7600.]))) for c in (mel, plain)]
    assert off[0] < .9*off[1]
    assert mel.encode(reader).shape[0] == 8
