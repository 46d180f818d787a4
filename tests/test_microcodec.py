"Pitch, buzz and streams of our own codec"
import math
import pytest, torch
from harmonica import Clip, load_codec
from harmonica.codec import packaged_voice
from harmonica.microcodec import HIGH, LOW, AudioBatch, MicroCodec, MicroCodecConfig
from harmonica.signal import glide, hold_pitch, phase, pulses, yin

@pytest.fixture(scope="module")
def codec(): return load_codec("micro")
@pytest.fixture(scope="module")
def codes(codec): return codec.encode(Clip.load(packaged_voice()).to(24000).cut(0, 4))

def tone(f, n=12000, overtones=6):
    return sum(torch.sin(2*math.pi*f*k*torch.arange(n)/24000)/k for k in range(1, overtones+1))[None]

@pytest.mark.parametrize("f", [60., 97.3, 150., 244., 410.])
def test_pitch_of_a_tone(f):
    assert (yin(tone(f))[:,5:-5]/f).log2().abs().max() < .01

def test_no_pitch_in_noise_and_silence():
    assert (yin(torch.randn(1, 12000, generator=torch.Generator().manual_seed(0))*.1) > 0).float().mean() < .1
    assert not yin(torch.zeros(1, 12000)).any()

def test_hold_carries_pitch_through_gaps():
    assert hold_pitch(torch.tensor([[0.,0,100,0,0,200,0]])).tolist() == [[100,100,100,100,100,200,200]]
    assert hold_pitch(torch.zeros(1,3)).tolist() == [[120,120,120]]
    assert hold_pitch(torch.tensor([[10., 5000]])).tolist() == [[LOW, HIGH]]

def test_pulses_have_the_pitch_they_were_given():
    f = torch.full((1,100), 173.)
    g = glide(f)
    x = pulses(phase(g)[0], g.flatten(1))
    dull = torch.nn.functional.avg_pool1d(x, 25, 1, 12)          # as any throat makes it
    assert (yin(dull)[:,5:-5] - 173).abs().max() < 1 and .5 < x.std() < 1.5

def test_phase_goes_on_where_it_was_left():
    g = glide(torch.linspace(90, 210, 40)[None])
    whole, begins = phase(g)
    later, _ = phase(g[:,17:], start=begins[:,17])
    assert torch.equal(whole[:,17*240:], later)

@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_stream_is_the_whole(codec, codes, size):
    whole, parts = codec.decode(codes), list(codec.stream(codes.split(size, 1)))
    joined = Clip.join(parts).samples
    assert len(joined) == len(whole) and abs(joined-whole.samples).max() < 1e-4

def test_a_stream_waits_only_for_its_look_ahead(codec, codes):
    given = []
    def source():
        for c in codes.split(5, 1):
            given.append(c.shape[1])
            yield c
    out = 0
    for clip in codec.stream(source()):
        out += len(clip)//480
        assert out == codes.shape[1] or sum(given)-out == codec.ahead
    assert codec.ahead/codec.frame_rate <= .2 and list(codec.stream([])) == []

def test_a_stream_of_few_books_and_of_few_frames(codec, codes):
    for c in (codes[:2], codes[:,:3]):
        assert abs(Clip.join(list(codec.stream(c.split(2, 1)))).samples - codec.decode(c).samples).max() < 1e-4

def test_tone_carries_one_timbre_into_another_at_equal_loudness(codec):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(24000, generator=g)*.1
    X = torch.fft.rfft(x)
    dull = torch.fft.irfft(X*torch.linspace(1, .3, len(X)), len(x))
    gain = codec.tone(x, codec.timbre(dull))
    db = 20*gain.log10()
    assert db.shape == (481,)
    assert 6 < db[20]-db[460] < 12 and (db[100:-20:40].diff() < 0).all()          # it falls as the filter does: 10 dB
    assert abs(20*math.log10(torch.fft.irfft(X*torch.nn.functional.interpolate(gain[None,None], len(X))[0,0],
        len(x)).std()/x.std())) < 1
    assert torch.allclose(codec.tone(x, codec.timbre(x)), torch.ones(481), atol=1e-4)

def test_no_band_is_raised_or_lowered_by_more_than_allowed(codec):
    x = torch.randn(24000, generator=torch.Generator().manual_seed(0))*.1
    X = torch.fft.rfft(x)
    X[len(X)//2:] *= 1e-4
    db = 20*codec.tone(x, codec.timbre(torch.fft.irfft(X, len(x))), most=6.).log10()
    assert 6 < db.max()-db.min() <= 12.01

def test_a_stream_with_a_tone_is_the_whole_with_it(codec, codes):
    tone = torch.linspace(2, .2, 481)
    whole = codec.sound(codec.rvq.decode(codes[None]), tone)[0].detach().clamp(-1, 1).numpy()
    assert abs(Clip.join(list(codec.stream(codes.split(9, 1), tone))).samples-whole).max() < 1e-4
    assert abs(whole-codec.decode(codes).samples).max() > .01

def test_the_decoder_keeps_the_pitch(codec, codes):
    a = yin(torch.from_numpy(Clip.load(packaged_voice()).to(24000).cut(0, 4).samples)[None])
    b = yin(torch.from_numpy(codec.decode(codes).samples)[None])[:,:a.shape[1]]
    both = (a>0) & (b>0)
    assert both.float().mean() > .2 and ((a/b)[both].log2().abs() < 1/12).float().mean() > .8

def test_loss_teaches_all_parts():
    torch.manual_seed(0)
    m = MicroCodec(MicroCodecConfig(n_q=2, n_bins=16, code_dim=8, enc_dim=16, enc_layers=1, dec_dim=16, dec_layers=1,
        n_phones=4)).train()
    loss, parts = m.loss(AudioBatch(tone(150., 480*25).repeat(2,1), torch.randint(4, (2,25))))
    loss.backward()
    assert {"mel", "commit", "pitch", "pitch_error", "phone", "perplexity0"} <= parts.keys()
    for name in ("in_proj", "enc.0.conv", "to_code.1", "from_code", "dec.0.conv", "pitch.1", "spec_head.1", "phones"):
        assert m.get_parameter(name+".weight").grad.abs().sum() > 0, name
