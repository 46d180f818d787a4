"A voice that a flow paints: what `Voice` promises holds for it, too, with models of a few thousand random parameters"
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from torch.nn import functional as F
from harmonica.ar import AR, ARConfig
from harmonica.checkpoint import save_model
from harmonica.batch import Batch
from harmonica.codec import Clip, packaged_voice
from harmonica.flow import FlowNAR, FlowNARConfig, PAINTING
from harmonica.infer import Line, Sampling, Voice, speak_lines
from harmonica.melcodec import MelCodec, MelCodecConfig
from harmonica.microcodec import MicroCodec, MicroCodecConfig
from harmonica.signal import stft
from harmonica.text import Tokenizer

N_Q, BINS = 4, 32
STORY = "It was quite late. Nobody had heard!"

def flow(latent_dim=52, vocab=64, seed=0):
    torch.manual_seed(seed)
    sizes = dict(d_model=32, n_heads=2, n_layers=1, d_ff=64, cond_dim=16, speaker_dim=16)
    return FlowNAR(FlowNARConfig(vocab_size=vocab, n_bins=BINS, latent_dim=latent_dim, **sizes)).eval()

def mel_codec(seed=0):
    torch.manual_seed(seed)
    c = MelCodec(MelCodecConfig(dim=32, n_layers=1)).eval()
    c.spread.copy_(torch.rand(48, generator=torch.Generator().manual_seed(seed))+.5)
    return c

def tiny_voice(frame_rate=50.):
    "What an AR expects of a symbol is .08 seconds at its frame rate; a lower one speaks fast and says little"
    tok = Tokenizer("letters")
    torch.manual_seed(0)
    codec = MicroCodec(MicroCodecConfig(n_q=N_Q, n_bins=BINS, code_dim=8, enc_dim=16, enc_layers=1, dec_dim=16,
        dec_layers=1)).eval()
    ar = AR(ARConfig(group=2, frame_rate=frame_rate, vocab_size=tok.vocab_size, n_q=N_Q, n_bins=BINS, d_model=32,
        n_heads=2, n_layers=1, d_ff=32, code_dim=8, speaker_dim=16)).eval()
    nar = flow(vocab=tok.vocab_size)
    nar.info = dict(steps=90000, painting=dict(steps=3, guidance=1.5, temperature=.7))
    return Voice(codec, ar, nar, tok, vocoder=mel_codec())

@pytest.fixture(scope="module")
def voice(): return tiny_voice()

@pytest.fixture(scope="module")
def me(voice): return voice.like(Clip.load(packaged_voice()).cut(0, 2))

def test_say_is_the_joined_stream_and_the_seed_decides(me):
    said = me.say(STORY, seed=3)
    torch.manual_seed(99)    # the global generator has no say
    assert np.array_equal(said.samples, Clip.join(me.stream(STORY, seed=3)).samples)
    other = me.say(STORY, seed=4)
    assert len(other) != len(said) or not np.array_equal(other.samples, said.samples)

def test_what_was_heard_stays_while_more_is_painted(me):
    "In pieces, a sentence has its length, and its first frames do not depend on when the later ones came"
    whole = me.say("Nobody had heard anything at all.", seed=1)
    parts = list(me.stream("Nobody had heard anything at all.", seed=1, chunk=.2))
    assert len(parts) > 2 and sum(map(len, parts)) == len(whole)

def test_known_frames_are_kept(me):
    request = me.request("It was late.")
    codes = torch.randint(BINS, (40,), generator=torch.Generator().manual_seed(0))
    durations = torch.full((int(request.text_len),), 40/int(request.text_len))
    first, _ = me.predict_fine(request, codes[:20], durations, seed=5)
    both, _ = me.predict_fine(request, codes, durations, first, seed=5)
    torch.testing.assert_close(both[:len(first)], first)
    alone, _ = me.predict_fine(request, codes, durations, seed=5)
    assert not torch.allclose(alone[len(first):], both[len(first):])      # the later frames see what was heard

def asked():
    "Two tokens in twelve frames, after a prompt of nine"
    one = Batch.of([[1, 2]], codes=[torch.zeros(1, 12, dtype=torch.long)], durations=[torch.tensor([6., 6.])])
    return replace(one, prompt=torch.randn(1, 52, 9), prompt_len=torch.tensor([9]))

def test_a_flow_hears_how_sure_the_ar_was():
    "Certainty is the same as a code; two codes, each half likely, are the mean of both"
    m, B = flow(), asked()
    codes = torch.arange(12)[None]%m.cfg.n_bins
    sure = F.one_hot(codes, m.cfg.n_bins).float().mT
    both = (sure+sure.roll(1, 1))/2
    torch.testing.assert_close(m.expected_book0(sure), m.embed_book0(codes))
    torch.testing.assert_close(m.expected_book0(both),
        (m.embed_book0(codes)+m.embed_book0((codes+1)%m.cfg.n_bins))/2)
    make = lambda c: m.generate(B.with_targets(c), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(make(sure), make(codes[None]))
    assert not torch.allclose(make(both), make(codes[None]))

def test_a_batch_holds_codes_and_how_likely_they_were():
    "The likeliest entries are the codes, for whoever asks for codes; new codes put the probabilities away"
    B, codes = asked(), torch.arange(12)[None]
    probs = .8*F.one_hot(codes[0], 16).float().mT + .2/16
    soft = B.with_targets([probs])
    assert torch.equal(soft.codes, codes[None]) and torch.equal(soft.book0_probs[0], probs) and soft.n_frames == 12
    assert soft.with_targets([codes]).book0_probs is None
    two = Batch.of([[1], [2]]).with_targets([probs, probs[:,:5]])
    assert two[1:].book0_probs.shape == (1, 16, 5) and two.frame_mask.sum(1).tolist() == [12, 5]
    for wrong in (torch.ones(2, 12), torch.ones(12)):
        with pytest.raises(ValueError, match="add up to 1"): B.with_targets([wrong])
    with pytest.raises(ValueError, match="at least one frame"): B.with_targets([probs[:,:0]])

def test_flow_generates_from_the_noise_it_is_given():
    m = flow()
    B = asked()
    noise = torch.randn(1, 12, 52, generator=torch.Generator().manual_seed(3))
    drawn = m.generate(B, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(m.generate(B, noise=noise), drawn)
    assert not torch.allclose(m.generate(B, noise=-noise), drawn)

def test_refined_latents_are_nearer_to_the_prompt_quicker_and_wider():
    m, g = flow(), torch.Generator().manual_seed(0)
    z, prompt = torch.randn(40, 52, generator=g), torch.randn(25, 52, generator=g)
    z[:20, 50:], z[20:, 50:] = 1., -1.                  # a voice in the first half only
    plain = dict(nearest=0., sharpen=0., widen=0.)
    torch.testing.assert_close(m.refine(z, prompt, **plain), z)
    near = m.refine(z, prompt, **{**plain, "nearest": .5})
    far = lambda x: torch.cdist(x[:20,:48], prompt[:,:48]).min(1).values.mean()
    assert far(near) < far(z)-.3
    torch.testing.assert_close(near[24:], z[24:])       # the way is smoothed over seven frames
    torch.testing.assert_close(m.refine(z, prompt[:0], **{**plain, "nearest": 1.}), z)
    quick = m.refine(z, prompt, **{**plain, "sharpen": 1.})
    change = lambda x: x.diff(dim=0).std(0)
    assert (change(quick)[12:48] > 1.3*change(z)[12:48]).all()
    torch.testing.assert_close(change(quick)[:12], change(z)[:12])
    wide = m.refine(z, prompt, **{**plain, "widen": .5})
    torch.testing.assert_close(wide[:,:13], z[:,:13])   # the first of the fine numbers, and the last
    torch.testing.assert_close(wide[:,47], z[:,47]+.5*(z[:,47]-prompt[:,47].mean()))
    for x in (near, quick, wide): torch.testing.assert_close(x[:,48:], z[:,48:])

def test_latents_that_the_prompt_holds_are_found():
    "Frames of the prompt find themselves, on another note as well"
    m = flow()
    prompt = torch.randn(60, 52, generator=torch.Generator().manual_seed(0))
    sung = prompt.clone()
    sung[:,48:50] += 1.
    torch.testing.assert_close(m.nearest(sung, prompt, k=1), prompt)

def test_a_voice_refines_what_was_painted_and_keeps_what_is_settled(me):
    "Its file may say how; what is settled stays as it was painted, or pieces of a sentence would be refined again"
    asked, codes = me.request("It was late."), torch.arange(40)%BINS
    durations = torch.full((int(asked.text_len),), 40/int(asked.text_len))
    kept = me.refining
    settled, refined = me.predict_fine(asked, codes, durations, seed=1)
    try:
        me.refining = dict(nearest=0., sharpen=0., widen=0.)
        again, plain = me.predict_fine(asked, codes, durations, seed=1)
    finally: me.refining = kept
    torch.testing.assert_close(again, settled)
    assert (refined-plain)[:,:48].abs().mean() > .05 and torch.equal(refined[:,48:], plain[:,48:])

def test_a_flow_that_says_nothing_of_its_painting_paints_as_the_recipe_writes():
    "A file written before, a bare `generate` and a file of today's recipe: one set of settings"
    silent, telling = tiny_voice(), tiny_voice()
    silent.nar.info, telling.nar.info = {}, dict(painting=dict(PAINTING))
    clip = Clip.load(packaged_voice()).cut(0, 2)
    parts = lambda v: (v.codec, v.ar, v.nar, v.tokenizer)
    a, b = (Voice(*parts(v), vocoder=v.vocoder).like(clip).say("Hello.", seed=2) for v in (silent, telling))
    assert np.array_equal(a.samples, b.samples)
    B = asked()
    draw = lambda **how: silent.nar.generate(B, generator=torch.Generator().manual_seed(3), **how)
    torch.testing.assert_close(draw(), draw(**PAINTING))

def test_saved_it_says_the_same(me, voice, tmp_path):
    me.save(tmp_path/"me.voice", consent="My own voice, for a test.")
    again = voice.like(tmp_path/"me.voice")
    assert np.array_equal(again.say("Hello.").samples, me.say("Hello.").samples)

def test_a_folder_holds_the_vocoder_too(me, tmp_path):
    me.save_pretrained(tmp_path/"voice")
    again = Voice.from_pretrained(tmp_path/"voice")
    assert np.array_equal(again.say("Hello.").samples, me.say("Hello.").samples)
    assert (tmp_path/"voice"/"vocoder.safetensors").is_file()

def test_a_file_for_another_vocoder_is_refused(me, voice, tmp_path):
    me.save(tmp_path/"me.voice")
    other = Voice(voice.codec, voice.ar, voice.nar, voice.tokenizer, vocoder=mel_codec(1))
    with pytest.raises(ValueError, match="make it again from its recording"): other.like(tmp_path/"me.voice")

def test_a_flow_and_its_vocoder_must_agree(voice):
    with pytest.raises(ValueError, match="paints 50 numbers"):
        Voice(voice.codec, voice.ar, flow(50, voice.tokenizer.vocab_size), voice.tokenizer, vocoder=mel_codec())

def test_load_takes_a_flow_by_its_file(voice, tmp_path):
    save_model(tmp_path/"flow.safetensors", voice.nar, bits=32, tokenizer=voice.tokenizer.to_dict())
    for k in ("codec", "ar", "vocoder"):
        save_model(tmp_path/f"{k}.safetensors", getattr(voice, k), bits=32, tokenizer=voice.tokenizer.to_dict())
    v = Voice.load(codec=tmp_path/"codec.safetensors", ar=tmp_path/"ar.safetensors", nar=tmp_path/"flow.safetensors",
                   vocoder=tmp_path/"vocoder.safetensors")
    assert v.flows and v.vocoder.name == "mel"
    with pytest.raises(ValueError, match="wanted 'nar or flow'"): Voice.load(nar=tmp_path/"ar.safetensors")

def test_a_run_of_the_flow_stage_serves_as_nar(voice, tmp_path):
    from harmonica.recipes import load_trained
    save_model(tmp_path/"flow.safetensors", voice.nar, bits=32)
    assert isinstance(load_trained(tmp_path, "nar"), FlowNAR)
    save_model(tmp_path/"ar.safetensors", voice.ar, bits=32)
    with pytest.raises(ValueError, match="wanted 'nar or flow'"): load_trained(tmp_path/"ar.safetensors", "nar")

# -- side by side

TEXTS = ["One.", "Two and three.", "A sentence that takes a good while longer than its neighbours to say."]

def close(a, b):
    "As long, and of the same spectrum: a pitch on the edge of a sixteenth of a hertz may shift all later phase"
    x, y = (stft(torch.from_numpy(c.samples[:len(c)//240*240])[None], 960, 240).abs() for c in (a, b))
    return len(a) == len(b) and (x-y).abs().mean() < .01*y.mean()

def in_float32(v):
    "A draw then falls the same way in any company"
    other = v.wearing(v.prompt)
    other.int8 = other.half = False
    return other

def test_neighbours_change_nothing(me):
    me = in_float32(me)
    for clip,text in zip(me.say_batch(TEXTS, seed=5), TEXTS): assert close(clip, me.say(text, seed=5))

def test_voices_side_by_side(me, voice):
    "Prompts of different lengths, and each sentence has its own dice"
    both = [in_float32(v) for v in (me, voice.like(Clip.load(packaged_voice()).cut(2, 3.5)))]
    lines = [Line(v, "It was late.", Sampling(seed=i, retries=0), i) for i,v in enumerate(both)]
    for clip,line in zip(speak_lines(lines), lines): assert close(clip, speak_lines([line])[0])
    a, b = speak_lines([lines[0]]*2)
    assert np.allclose(a.samples, b.samples, atol=1e-5)

def test_a_prompt_is_heard_once(me, monkeypatch):
    v, heard, hear = me.wearing(me.prompt), [], FlowNAR.hear
    def listen(self, prompt, *rest, **how):
        heard.append(len(prompt))
        return hear(self, prompt, *rest, **how)
    monkeypatch.setattr(FlowNAR, "hear", listen)
    once = lambda f: (heard.clear(), f(), sum(n > 0 for n in heard))[-1]
    assert once(lambda: v.say("It was late. Nobody had heard.")) == 1
    assert once(lambda: list(v.stream("Hello there.", chunk=.2))) == 0
    v.half = not v.half
    assert once(lambda: v.say("Hello.")) == 1
    assert once(lambda: v.like(Clip.load(packaged_voice()).cut(2, 4)).say("Hello.")) == 1

def test_weights_are_looked_at_once_a_sentence(me, monkeypatch):
    "A change of theirs is noticed, but each look at a model takes as long as a step of the AR"
    import harmonica.ar, harmonica.blocks, harmonica.flow
    looks, look = [], harmonica.blocks.laid_out
    def seen(model, *how):
        looks.append(type(model).__name__)
        return look(model, *how)
    for room in (harmonica.ar, harmonica.flow):
        monkeypatch.setattr(room, "laid_out", seen)
    me.say("Nobody had heard.", retries=0)
    assert sorted(looks) == ["AR", "FlowNAR"]

def test_sentences_are_painted_a_few_at_a_time_and_rendered_one_by_one(me, monkeypatch):
    "More at once take more time, not less: what lies between two layers is then too large to be kept at hand"
    import harmonica.infer as infer
    texts, frames, rows = [f"Number {i} of many sentences." for i in range(8)], [], []
    whole = me.say_batch(texts, retries=0)
    paint, vocode = infer.paint, MelCodec.vocode
    monkeypatch.setattr(infer, "PAINTED", max(round(c.seconds*50) for c in whole)*3)
    def painting(voices, request, codes, *rest):
        frames.append(sum(map(len, codes)))
        return paint(voices, request, codes, *rest)
    def rendering(self, z, **kw):
        rows.append(len(z))
        return vocode(self, z, **kw)
    monkeypatch.setattr(infer, "paint", painting)
    monkeypatch.setattr(MelCodec, "vocode", rendering)
    for a,b in zip(me.say_batch(texts, retries=0), whole): assert close(a, b)
    assert rows == [1]*8 and len(frames) > 1 and max(frames) <= infer.PAINTED

def test_the_packaged_voice_says_the_same_alone_and_side_by_side():
    v = in_float32(Voice.load("ruth", device="cpu"))
    texts = ["Good morning.", "Nobody came to the old house by the river."]
    for clip,text in zip(v.say_batch(texts, watermark=False), texts): assert close(clip, v.say(text, watermark=False))

def test_half_the_bits_are_heard_as_little_as_a_tenth_of_a_decibel():
    "bfloat16 where the processor has it: as many frames, and the spectrum that float32 paints"
    v = Voice.load("ruth", device="cpu")
    request = v.request("Good morning.")
    codes, durations = v.predict_coarse(request, Sampling(), torch.Generator().manual_seed(0))
    mel = []
    for v.half in (False, True):
        mel.append(v.vocoder.envelope(v.predict_fine(request, codes, durations, seed=1)[1][None])[0])
    assert mel[0].shape == mel[1].shape and (mel[0]-mel[1]).pow(2).mean().sqrt()*8.686 < .1

# -- for long

STATUS = Path("/proc/self/status")

def megabytes(): return int(next(l for l in STATUS.read_text().splitlines() if l.startswith("VmRSS")).split()[1])/1024

@pytest.mark.skipif(not STATUS.exists(), reason="reads what a process holds from /proc")
def test_a_hundred_thousand_characters_stream_in_bounded_memory():
    "What is held does not grow with what was said, the first sentence waits for no other, and the voice stays as loud"
    me = tiny_voice(3.).like(Clip.load(packaged_voice()).cut(0, 2))
    words = "somebody wrote down late one evening by the river while the others had long been asleep and nobody cared"
    told = [f"Sentence {i} of many that {words}." for i in range(780)]
    text = "\n\n".join(" ".join(told[i:i+10]) for i in range(0, 780, 10))[:100_000]
    assert len(text) == 100_000
    asked, generate = [], me.ar.generate
    def generating(request, *a, **kw):
        asked.append(len(request))
        return generate(request, *a, **kw)
    me.ar.generate = generating
    held, loud, seconds = [], [], 0.
    for clip in me.stream(text, retries=0, watermark=False):
        if not held: assert asked == [1]
        held.append(megabytes())
        loud.append(float((clip.samples**2).mean())**.5)
        seconds += clip.seconds
    assert len(held) == sum(asked) > 700 and max(asked) == 8
    begin, kept_it_would_be = len(held)//5, seconds*24000*4/2**20
    grown = max(held[begin:])-held[begin]
    assert kept_it_would_be > 60 and grown < kept_it_would_be/4, (grown, kept_it_would_be)
    first, last = (np.mean(x) for x in (loud[:80], loud[-80:]))
    assert .8 < last/first < 1.25
