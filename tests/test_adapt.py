"A voice that goes on learning from its prompt"
import numpy as np, pytest, torch
from safetensors.torch import load_file, save_file
from harmonica.adapt import SHORTEST, adapt, adapted, fingerprint, learner, practice
from harmonica.checkpoint import packaged_weights
from harmonica.codec import Clip, packaged_voice
from harmonica.infer import OTHER_FLOW, Line, Sampling, Voice, speak_lines

ABC = "late", "too late", "cold"

@pytest.fixture(scope="module")
def voice(): return Voice.load()

@pytest.fixture(scope="module")
def plain(voice): return voice.like(Clip.load(packaged_voice()).cut(0, 4), adapt=False)

@pytest.fixture(scope="module")
def me(plain): return plain.adapt()

def surprise(flow, prompt, seed=0):
    "How wrong a flow is about the two halves of a prompt"
    batch = practice(prompt.latents, prompt.codes[0][:len(prompt.latents)], np.random.default_rng(1), 6)
    with torch.no_grad(): return flow.loss(batch, torch.Generator().manual_seed(seed), .75)[0].item()

def test_the_packaged_flow_can_learn_again(voice, plain):
    assert surprise(learner(voice.nar), plain.prompt) < .9*surprise(voice.nar, plain.prompt)

def test_it_learns(voice, plain, me):
    before, learned = learner(voice.nar), me.prompt.learned
    assert surprise(learned.merge(before), plain.prompt) < .97*surprise(before, plain.prompt)

def test_the_same_prompt_teaches_the_same(plain, me):
    for p,q in zip(me.prompt.learned.parameters(), plain.adapt().prompt.learned.parameters()):
        assert torch.equal(p, q)

def test_a_recording_is_learned_from_and_a_packaged_voice_is_not(voice, plain):
    assert voice.like(Clip.load(packaged_voice()).cut(0, 2)).prompt.learned is not None
    for v in (plain, voice.like("ruth"), voice.like(Clip.load(packaged_voice()).cut(0, SHORTEST/50-.3))):
        assert v.prompt.learned is None

def test_others_hear_nothing_of_it(voice, plain, me):
    said = plain.say("Hello.", seed=1, watermark=False).samples
    assert not np.allclose(said, me.say("Hello.", seed=1, watermark=False).samples[:len(said)], atol=1e-3)
    again = me.wearing(plain.prompt)           # from the adapted voice back to the plain one
    assert again.painter is voice.nar and me.painter is not voice.nar
    assert np.array_equal(said, again.say("Hello.", seed=1, watermark=False).samples)

def test_kept_it_says_the_same(voice, me, tmp_path):
    again = voice.like(me.save(tmp_path/"me.voice"))
    assert again.prompt.learned is not None and OTHER_FLOW not in again.notes
    assert np.array_equal(again.say("Hello.", seed=1).samples, me.say("Hello.", seed=1).samples)

def test_another_flow_does_not_take_it(voice, me, tmp_path):
    path = me.save(tmp_path/"me.voice")
    other = adapted(voice.nar, me.prompt.learned)
    assert fingerprint(other) != fingerprint(voice.nar)
    them = Voice(voice.codec, voice.ar, other, vocoder=voice.vocoder).like(path)
    assert them.prompt.learned is None and OTHER_FLOW in them.notes
    assert OTHER_FLOW not in them.adapt().notes and them.adapt().prompt.learned is not None

@pytest.mark.parametrize("spoil", [lambda t: t[:, :3], lambda t: t*float("nan")])
def test_what_was_learned_is_damaged(voice, me, tmp_path, spoil):
    from safetensors import safe_open
    path = me.save(tmp_path/"me.voice")
    with safe_open(path, "pt") as f: meta = f.metadata()
    tensors = load_file(path)
    k = next(k for k in tensors if k.startswith("learned.b."))
    save_file({**tensors, k: spoil(tensors[k]).contiguous()}, path, meta)
    with pytest.raises(ValueError, match="damaged voice"): voice.like(path)

def test_adapted_voices_speak_abreast_as_alone(voice, plain, me):
    "The AR takes all of them at once, each flow its own"
    mixed = [v.wearing(v.prompt) for v in (me, plain, me)]
    for v in mixed: v.int8 = v.half = False                       # a draw then falls the same way in any company
    lines = [Line(v, f"It was {w}.", Sampling(seed=3, retries=0), i) for i,(v,w) in enumerate(zip(mixed, ABC))]
    assert len({l.kin() for l in lines}) == 1
    for clip,line in zip(speak_lines(lines), lines):
        alone = speak_lines([line])[0]
        assert len(alone) == len(clip) and np.allclose(alone.samples, clip.samples, atol=1e-3)

def test_too_short_or_no_flow(voice, plain):
    z, codes = plain.prompt.latents, plain.prompt.codes[0]
    with pytest.raises(ValueError, match="1.4 s given: a voice learns from 1.5 s or more"):
        adapt(voice.nar, z[:70], codes[:70])
    books = Voice.load(nar=packaged_weights("nar"))
    with pytest.raises(ValueError, match="learns from no prompt"): books.adapt()
