"The mark is found where it was put and nowhere else, pieces or whole; files say in words what they hold"
import builtins
import numpy as np, pytest, torch
from harmonica.codec import Clip, packaged_voice, packaged_voices
from harmonica.watermark import NOTE, Watermark, is_synthetic, weights_file

needs = pytest.mark.skipif(weights_file() is None, reason="resemble-perth is not installed")
rng = np.random.default_rng(0)

@pytest.fixture(scope="module")
def clip(): return Clip.load(packaged_voice()).tidy().cut(0, 5)
@pytest.fixture(scope="module")
def mark(): return Watermark()

@needs
def test_found_where_it_is(clip, mark):
    marked = mark.mark(clip)
    assert len(marked) == len(clip) and marked.comment == NOTE and not clip.comment
    assert not is_synthetic(clip)["marked"] and is_synthetic(marked)["marked"]
    added = marked.samples-clip.samples
    assert 0 < added.std() < .3*clip.samples.std()
    between = lambda x, low, high: abs(np.fft.rfft(x))[int(low*len(x)/24000):int(high*len(x)/24000)].max()
    # where the ear follows the pitch, and above 2 kHz, the sound stays as it was
    for low,high in ((0, 300), (2300, 12000)):
        assert between(added, low, high) < 2e-2*between(clip.samples, low, high)

@needs
@pytest.mark.parametrize("wear", ["mp3", "opus", "ogg", "16 kHz", "noise", "two seconds", "quieter"])
def test_lives_through(clip, mark, wear):
    m = mark.mark(clip)
    noise = rng.normal(size=len(m)).astype(np.float32)*m.samples.std()/10
    worn = {"mp3": lambda: Clip.load(m.encoded(".mp3")), "opus": lambda: Clip.load(m.encoded(".opus")),
        "ogg": lambda: Clip.load(m.encoded(".ogg")), "16 kHz": lambda: m.to(16000),
        "noise": lambda: Clip(m.samples+noise, m.rate), "two seconds": lambda: m.cut(1, 2),
        "quieter": lambda: Clip(m.samples*.3, m.rate)}[wear]()
    assert is_synthetic(worn)["marked"]

@needs
def test_as_strong_as_noise_demands_and_no_stronger(mark):
    "A dozen voices under noise of 20 dB; the mark is as weak as it can be, so it is not equally strong"
    found, shares = [], []
    for name in packaged_voices():
        c = Clip.load(packaged_voice(name)).to(24000).tidy().cut(0, 5)
        m = mark.mark(c)
        noise = rng.normal(size=len(m)).astype(np.float32)*m.samples.std()/10
        found.append(is_synthetic(Clip(m.samples+noise, m.rate))["marked"])
        shares.append((m.samples-c.samples).std()/c.samples.std())
    assert np.mean(found) >= .9 and max(shares) < .25 and max(shares)/min(shares) > 1.2, (found, shares)

@needs
def test_pieces_are_marked_as_they_come(clip, mark):
    pieces = [clip.cut(a, .3) for a in np.arange(0, 4.5, .3)]
    came = list(mark.stream(iter(pieces)))
    assert [len(c) for c in came] == [len(c) for c in pieces] and is_synthetic(Clip.join(came))["marked"]
    # nothing jumps where pieces meet
    for a,b in zip(pieces, came): assert a.samples[0] == b.samples[0] and abs(a.samples[-1]-b.samples[-1]) < 1e-3

@needs
@pytest.mark.parametrize("samples", [1, 100, 1535, 3000])
def test_short_and_silent_sound(mark, samples):
    for x in (np.zeros(samples), .1*rng.normal(size=samples)):
        m = mark.mark(Clip(x))
        assert len(m) == samples and np.isfinite(m.samples).all()
    assert not is_synthetic(Clip(np.zeros(samples)))["marked"]

@needs
def test_a_marked_sentence_in_long_speech(clip, mark):
    sentence = mark.mark(Clip.join([clip, clip.cut(0, 2)]))
    long = Clip.join([clip, clip, clip, clip, sentence, clip, clip])
    said = is_synthetic(long)
    assert said["marked"] and len(said["windows"]) == 4 and said["windows"][0] < .5 < said["windows"][2]
    assert mark.heard(long, seconds=5)[[0, 4]].round().tolist() == [0, 1]  # shorter windows, shorter pieces

@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3"])
def test_files_say_it_in_words(clip, tmp_path, suffix):
    clip = Clip(clip.samples, clip.rate, NOTE)
    for c in (clip, clip.cut(1), clip.to(16000), Clip.join([Clip([0.]), clip])):
        assert Clip.load(c.save(tmp_path/f"a{suffix}")).comment == NOTE
    assert Clip.load(Clip(clip.samples).save(tmp_path/f"b{suffix}")).comment == ""

def test_weights_that_are_none(tmp_path):
    (tmp_path/"w.pth.tar").write_bytes(b"junk")
    with pytest.raises(ValueError, match="can't be read as Perth's weights"): Watermark(tmp_path/"w.pth.tar")

@needs
def test_weights_run_no_code(tmp_path):
    class Evil:
        def __reduce__(self): return (builtins.exec, (f"open({str(tmp_path/'ran')!r}, 'w')",))
    torch.save(dict(model=Evil()), tmp_path/"w.pth.tar")
    with pytest.raises(ValueError): Watermark(tmp_path/"w.pth.tar")
    assert not (tmp_path/"ran").exists()

def test_absent_extra_names_the_command(monkeypatch, clip):
    import harmonica.watermark as w
    monkeypatch.setattr(w, "weights_file", lambda: None)
    w.watermark.cache_clear()
    try:
        with pytest.raises(ImportError, match=r'pip install "harmonica-tts\[watermark\]"'): is_synthetic(clip)
        assert w.watermark() is None
    finally: w.watermark.cache_clear()
