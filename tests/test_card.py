"harmonica.card: the page says what is in the cache, and codes travel"
import re
from html.parser import HTMLParser
import numpy as np, pytest, torch
from harmonica.card import bars, figures, level, make_report, publish, receive, spread, why
from harmonica.codec import Clip
from harmonica.data import CodesDataset, Utterance, prepare, rejected

RATE = 24000

class Toy:
    "Two books: how loud a frame is; sound comes back as a hum of that loudness"
    name,sample_rate,frame_rate,n_q,codebook_size,hash = "toy",RATE,50,2,64,"feedc0ffee00"
    def encode(self, clip): return self.encode_batch([clip])[0]
    def encode_batch(self, clips):
        return [torch.tensor(np.stack([(64*np.abs(c.samples[:len(c)//480*480]).reshape(-1,480).max(1)).clip(0,
            63)]*2).astype(np.int64)) for c in clips]
    def decode(self, codes):
        return Clip(np.repeat(codes[0].numpy()/64, 480)*np.sin(np.arange(480*codes.shape[1])*.06), RATE)

def tone(seconds, loud=.3, seed=0): return Clip(loud*np.sin(np.arange(int(seconds*RATE))*(.03+.005*seed)), RATE)

EVIL = '<script>alert("x")</script> & "quoted" words'

@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    out = tmp_path_factory.mktemp("c")/"codes"
    us = [Utterance(tone(1+i*.1, seed=i%5), EVIL if i == 3 else f"sentence number {i}", f"<b>s{i%4}",
        "a<i>" if i%2 else "b", id=f"u{i}", split="valid" if i > 17 else "train") for i in range(20)]
    bad = [Utterance(tone(.2), "ab", "s", id=f"brief{i}")
        for i in range(3)]+[Utterance(tone(25), "word "*60, "s", id="long"), Utterance(tone(1), "", "s", id="mute"),
        Utterance(Clip(np.zeros(RATE)), "hush", "s", id="silent"), Utterance(tone(1), "w"*60, "s", id="fast"),
        Utterance(tone(9), "a", "s", id="slow"), Utterance(tone(1), "?!", "s", id="signs"),
        Utterance(str(out/"nowhere-1.wav"), "gone", "s", id="gone1"),
        Utterance(str(out/"nowhere-2.wav"), "gone", "s", id="gone2")]
    prepare(us+bad, Toy(), out, progress=False)
    return out

class Page(HTMLParser):
    "What is on a page, and what it would load from elsewhere"
    def __init__(self, text):
        super().__init__()
        self.tags, self.outside, self.words = [], [], ""
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.outside += [v for k,v in attrs if k in ("src","href") and not v.startswith("data:")]
    def handle_data(self, d): self.words += d+" "

def test_the_page(cache, tmp_path):
    out = make_report(cache, Toy(), tmp_path/"r.html", clips=5)
    p = Page(out.read_text(encoding="utf-8"))
    assert p.tags.count("audio") == 5 and p.tags.count("svg") == 4 and "script" not in p.tags and "b>s0" not in p.tags
    assert not p.outside
    for w in ("20 utterances by 4 speakers", "toy", "feedc0ffee00", "train", "valid", "a<i>", "<b>s0", "length",
        "loudness", "letters a second", "11 recordings"): assert w in p.words, w
    assert make_report(cache, Toy()) == cache/"report.html"
    (cache/"report.html").unlink()

def test_hostile_text_is_only_text(cache, tmp_path):
    text = make_report(cache, Toy(), tmp_path/"r.html", clips=20).read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text

def test_reasons_are_counted(cache):
    n = dict(figures(cache)["reasons"])
    assert sum(n.values()) == len(rejected(cache)) == 11
    assert {k:n[k] for k in ("too short","too long","no text","silent","too many letters a second",
        "too few letters a second")} == {"too short":3,"too long":1,"no text":1,"silent":1,
        "too many letters a second":1,"too few letters a second":1}
    assert sorted(n.values()) == [1]*6+[2,3] # two files that are not there are one reason, not two
    page = make_report(cache, Toy(), cache.parent/"r.html").read_text(encoding="utf-8")
    assert re.search(r"<td>too short</td><td>3</td><td>brief0</td>", page)

def test_figures_are_those_of_the_cache(cache):
    f, ds = figures(cache), CodesDataset(cache, None)
    assert f["hours"]*3600 == pytest.approx(sum(ds[i]["seconds"] for i in range(20)))
    assert (f["utterances"], f["speakers"], f["sentences"]) == (20, 4, 20)
    assert [(s, n, k) for s,n,_,k in f["splits"]] == [("train",18,4),("valid",2,2)]
    assert f["speaker_hours"].sum() == pytest.approx(f["hours"])
    assert f["bytes"] == sum(p.stat().st_size for p in cache.glob("*.arrow"))

def test_leaks_are_named(cache, tmp_path):
    f = figures(cache)
    assert (f["shared_speakers"], f["shared_sentences"]) == (2, 0)
    us = [Utterance(tone(1, seed=i), "The same words." if i < 2 else f"other {i}", f"s{i}", "x", id=f"{i}",
        split="valid" if i == 0 else "train") for i in range(4)]
    us[1].text = "THE SAME WORDS."
    prepare(us, Toy(), tmp_path/"c", progress=False)
    assert "1 sentence(s) of the training split is in a held-out split" in make_report(tmp_path/"c",
        Toy()).read_text(encoding="utf-8")

def with_loudness(cache, out, values):
    "The same cache, made by one who knew how loud the recordings were, or who did not"
    import pyarrow as pa
    out.mkdir()
    (out/"card.json").write_text((cache/"card.json").read_text())
    table = pa.ipc.open_stream(next(cache.glob("*.arrow")).read_bytes()).read_all()
    table = table.drop_columns([c for c in table.column_names if c == "loudness"])
    if values is not None: table = table.append_column("loudness", pa.array(values, pa.float32()))
    with pa.OSFile(str(out/"000-of-001-00000.arrow"), "wb") as f, pa.ipc.new_stream(f, table.schema) as w:
        w.write_table(table)
    return out

def test_loudness_before_is_shown_where_the_cache_knows_it(cache, tmp_path):
    old = with_loudness(cache, tmp_path/"old", None)
    assert figures(old)["loudness"] is None and "20 clips decoded from codes" in make_report(old, Toy()).read_text()
    new = with_loudness(cache, tmp_path/"new", np.linspace(-40, -10, 20))
    assert "before it was made equal" in make_report(new, Toy()).read_text() and figures(new)["loudness"].min() == -40
    half = with_loudness(cache, tmp_path/"half", [None]*10+[-20.]*10)
    assert list(figures(half)["loudness"]) == [-20.]*10 # a cache that older ones were joined to

def test_level_is_of_the_speech_not_the_pauses():
    on = tone(1, .1)
    assert level(on) == pytest.approx(20*np.log10(.1/2**.5), abs=.1)
    assert level(Clip(np.r_[on.samples, np.zeros(5*RATE)], RATE)) == pytest.approx(level(on), abs=.3)
    assert level(Clip(np.zeros(RATE))) == -90

def test_spread_over_lengths_and_speakers(cache):
    ds = CodesDataset(cache, None)
    some = spread(ds, 4)
    assert len({ds.speakers[i] for i in some}) == 4 and list(ds.lengths[some]) == sorted(ds.lengths[some])
    assert spread(ds, 4) == some
    assert sorted(spread(ds, 99)) == list(range(20))

@pytest.mark.parametrize("codec", ["nothing-like-it", None])
def test_without_its_codec(cache, tmp_path, codec):
    p = Page(make_report(cache, codec, tmp_path/"r.html").read_text(encoding="utf-8"))
    assert "audio" not in p.tags and "Not to be heard here: unknown codec" in p.words and p.tags.count("svg") in (3, 4)
    assert "20 utterances" in p.words

def test_another_codec_is_not_used_to_decode(cache, tmp_path):
    other = Toy()
    other.hash = "abcdefabcdef"
    p = Page(make_report(cache, other, tmp_path/"r.html").read_text(encoding="utf-8"))
    assert "audio" not in p.tags and "feedc0ffee00" in p.words and "abcdefabcdef" in p.words

def test_mistakes(cache, tmp_path):
    with pytest.raises(ValueError, match="no codes in"): make_report(tmp_path/"none", Toy())
    with pytest.raises(ValueError, match="can't be written"): make_report(cache, Toy(), cache/"card.json"/"r.html")

@pytest.mark.parametrize("values", [[1.], [2.,2.,2.], np.r_[np.ones(999), 1e9], np.arange(5)])
def test_any_histogram(values):
    s = bars(np.asarray(values, float), "x<y")
    assert "nan" not in s and "x&lt;y" in s and 1 <= s.count("<rect") <= 30

def test_why_is_short_and_shared():
    assert why("can't read 'a/b 1.wav' (No such file)") == why("can't read 'c.wav' (No such file)")
    assert len(why("x"*500)) <= 80

# --- to others and back

@pytest.fixture
def hub(tmp_path, monkeypatch):
    "A folder where the hub would be"
    import datasets, huggingface_hub
    d = tmp_path/"hub"
    d.mkdir()
    asked = []
    def push(self, repo, num_shards=2, **kw):
        asked.append((repo, kw))
        for i in range(num_shards):
            self.shard(num_shards, i, contiguous=True).to_parquet(str(d/f"train-{i:05d}.parquet"))
    class Api:
        def __init__(self, token=None): pass
        def upload_file(self, path_or_fileobj, path_in_repo, repo_id, repo_type):
            assert repo_type == "dataset"
            (d/path_in_repo).write_bytes(path_or_fileobj)
    monkeypatch.setattr(datasets.Dataset, "push_to_hub", push)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return d, asked

def test_what_comes_back_is_what_went(cache, hub, tmp_path):
    d, asked = hub
    assert publish(cache, "me/codes", num_shards=3) == "me/codes"
    assert asked == [("me/codes", dict(private=True, token=None))] and len(list(d.glob("*.parquet"))) == 3
    back, ds = CodesDataset(receive(d, tmp_path/"back", Toy()), None, Toy()), CodesDataset(cache, None)
    assert len(back) == len(ds) and back.card == ds.card
    for i in (0, 7, 19):
        a, b = back[i], ds[i]
        assert a["id"] == b["id"] and a["text"] == b["text"] and torch.equal(a["codes"], b["codes"])
    assert not list(tmp_path.glob(".back*"))
    more = [Utterance(tone(1.5), "one more", "s", id="new")]
    assert prepare(more, Toy(), tmp_path/"back", progress=False)["made"] == 1 # a cache like any other

def test_receiving_mistakes(cache, hub, tmp_path):
    d, _ = hub
    publish(cache, "me/codes")
    other = Toy()
    other.hash = "abcdefabcdef"
    with pytest.raises(ValueError, match="made by codec toy .feedc0ffee00., asked for toy .abcdefabcdef."):
        receive(d, tmp_path/"x", other)
    assert not (tmp_path/"x").exists()
    with pytest.raises(ValueError, match="holds codes already"): receive(d, cache)
