"harmonica.corpora: published layouts, and downloads under bad weather"
import errno, hashlib, http.server, io, json, os, signal, stat, subprocess, sys, tarfile, threading, zipfile
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from harmonica import download as D, scale
from harmonica.codec import Clip
from harmonica.corpora import (commonvoice, corpus, folder, held_out, hf, librispeech, libritts, ljspeech, manifest,
    sentence, speed_perturb, split_disjoint, vctk)
from harmonica.download import archives, download, fetch, need_room, unpack
from harmonica.scale import temporary
from harmonica.data import Utterance

def sound(path, seconds=.3, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    Clip(.3*np.sin(np.arange(int(seconds*rate))*.1), rate).save(path)
    return path
def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path

# --- readers

def test_manifest_forms(tmp_path):
    rows = [dict(audio="clips/a.ogg", text="Grüß “Gott”", speaker="x", source="s", seconds=1.5, split="valid", extra=1),
        dict(audio="clips/b.ogg", text="", speaker=7)]
    write(tmp_path/"manifest.jsonl", "\n".join(map(json.dumps, rows))+"\n\n")
    a, b = manifest(tmp_path)
    assert (a.audio, a.text, a.speaker, a.source, a.seconds, a.split, a.id) == (tmp_path/"clips/a.ogg", "Grüß “Gott”",
        "x", "s", 1.5, "valid", "clips/a")
    assert (b.text, b.speaker, b.split, b.seconds) == ("", "7", "train", None)
    write(tmp_path/"m.csv", '\ufeffaudio,text,seconds\na.wav,"Well, then",\n')
    c, = manifest(tmp_path/"m.csv")
    assert (c.text, c.speaker, c.seconds) == ("Well, then", tmp_path.name, None)
    write(tmp_path/"m.tsv", "audio\ttext\na.wav\tHello\n")
    assert [u.text for u in corpus(tmp_path/"m.tsv")] == ["Hello"]

@pytest.mark.parametrize("text,why", [('{"audio":', "line 1 is not JSON"), ("[1]", "line 1 holds list"),
    ('{"file":"a","text":"b"}', "'audio' and 'text'"), ('{"audio":"a","seconds":"long"}', "line 1: seconds is 'long'")])
def test_bad_manifest(tmp_path, text, why):
    with pytest.raises(ValueError, match=why) as e: list(manifest(write(tmp_path/"m.jsonl", text)))
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="can't read"): list(manifest(tmp_path/"none.jsonl"))

def test_ljspeech(tmp_path):
    lines = ['LJ001-0001|Printing, in the "only" sense|Printing, in the "only" sense',
        'LJ001-0002|"He began" in 1495.|"He began" in fourteen ninety-five.',
        'LJ001-0003|"an unclosed quote|"an unclosed quote', "LJ001-0004|naïve façade — £5|naïve façade — five pounds",
        "LJ001-0005|only two columns", "LJ001-0006|empty third|"]
    write(tmp_path/"LJSpeech-1.1"/"metadata.csv", "\n".join(lines)+"\n")
    us = list(ljspeech(tmp_path))
    assert [u.id for u in us] == [f"LJ001-000{i}" for i in range(1,7)]
    assert [u.text for u in us][1:] == ['"He began" in fourteen ninety-five.', '"an unclosed quote',
        "naïve façade — five pounds", "only two columns", "empty third"]
    assert us[0].audio == tmp_path/"LJSpeech-1.1"/"wavs"/"LJ001-0001.wav" and {u.speaker for u in us} == {"ljspeech"}
    assert [u.id for u in ljspeech(tmp_path/"LJSpeech-1.1")] == [u.id for u in us]
    assert .01 < np.mean([held_out(f"LJ{i:03d}-{j:04d}", .02)=="valid" for i in range(1,51)
        for j in range(1,101)]) < .03

def test_vctk(tmp_path):
    root = tmp_path/"VCTK-Corpus-0.92"
    w = root/"wav48_silence_trimmed"
    for f in ["p225/p225_001_mic1","p225/p225_001_mic2","p225/p225_002_mic1","p225/p225_002_mic2","p280/p280_001_mic1",
        "p315/p315_001_mic1","p315/p315_001_mic2","s5/s5_001_mic1","s5/s5_001_mic2"]:
        write(w/f"{f}.flac", "")
    write(w/"log.txt", "not a speaker")
    write(root/"txt"/"p225"/"p225_001.txt", "Please call Stella.\n")
    write(root/"txt"/"p225"/"p225_002.txt", '"Ask" her.  \n')
    write(root/"txt"/"p280"/"p280_001.txt", "Please call Stella.")
    write(root/"txt"/"s5"/"s5_001.txt", "Please call Stella.")
    with pytest.warns(UserWarning, match="1 recordings have no transcript"): us = list(vctk(tmp_path))
    assert [(u.id, u.audio.name, u.split, u.text)
        for u in us] == [("vctk-p225_001","p225_001_mic2.flac","valid","Please call Stella."),
        ("vctk-p225_002","p225_002_mic2.flac","valid",'"Ask" her.'),
        ("vctk-p280_001","p280_001_mic1.flac","train","Please call Stella."),
        ("vctk-s5_001","s5_001_mic2.flac","train","Please call Stella.")]
    with pytest.warns(UserWarning): assert [u.audio.name for u in vctk(root, mic="mic1")][0] == "p225_001_mic1.flac"
    with pytest.raises(ValueError, match="mic1 or mic2"): list(vctk(root, mic="both"))

def test_libritts(tmp_path):
    for part in ("train-clean-100","dev-clean","test-clean"):
        stem = tmp_path/"LibriTTS"/part/"1034"/"121119"/"1034_121119_000005_000001"
        write(Path(f"{stem}.wav"), "")
        write(Path(f"{stem}.normalized.txt"), f"Words of {part}, “said” she.\n")
        write(Path(f"{stem}.original.txt"), "no")
        write(stem.with_name("1034_121119.trans.tsv"), "no")
    us = list(libritts(tmp_path))
    assert [(u.split, u.speaker) for u in us] == [("valid","libri-1034"),("test","libri-1034"),("train","libri-1034")]
    assert us[2].text == "Words of train-clean-100, “said” she." and us[2].id == "libritts-1034_121119_000005_000001"
    assert len(list(libritts(tmp_path/"LibriTTS", parts=["dev-clean"]))) == 1
    with pytest.raises(ValueError, match="no part train-clean-360"): list(libritts(tmp_path, parts=["train-clean-360"]))

def test_libritts_r_words_from_the_table(tmp_path):
    "LibriTTS-R, and copies of LibriTTS without a text file a recording"
    c = tmp_path/"LibriTTS_R"/"train-clean-360"/"14"/"208"
    for n in range(3): write(c/f"14_208_000001_00000{n}.wav", "")
    write(c/"14_208.trans.tsv",
        '14_208_000001_000000\tIt cost "£5".\tIt cost "five pounds".\n14_208_000001_000001\t“Said\t“Said\n')
    write(c/"14_208.book.tsv", "14_208_000001_000002\tnot this\t0\t1\n")
    with pytest.warns(UserWarning, match="1 recordings have neither"): us = list(libritts(tmp_path))
    assert [(u.text, u.speaker, u.audio.name[-10:]) for u in us] == [('It cost "five pounds".',"libri-14","000000.wav"),
        ("“Said","libri-14","000001.wav")]
    write(c/"14_208_000001_000001.normalized.txt", "The file beside wins.\n")
    with pytest.warns(UserWarning): assert [u.text for u in libritts(tmp_path)][1] == "The file beside wins."

def test_librispeech(tmp_path):
    c = tmp_path/"LibriSpeech"/"dev-clean-2"/"84"/"121123"
    write(c/"84-121123.trans.txt", "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 IT'S NIGHT\n")
    write(c/"84-121123-0000.flac", "")
    us = list(librispeech(tmp_path))
    assert [(u.id, u.text, u.audio.name, u.split)
        for u in us] == [("librispeech-84-121123-0000","go do you hear","84-121123-0000.flac","valid"),
        ("librispeech-84-121123-0001","it's night","84-121123-0001.flac","valid")]

def test_commonvoice(tmp_path):
    head = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment\n"
    for t in ("train","dev","test"):
        write(tmp_path/f"{t}.tsv",
            head+f'{"ab"*32}\tcommon_voice_en_{len(t)}{t[0]}.mp3\t"Quoted at the start only\t2\t0\t\t\t\ten\t\n'
            +f'{"cd"*32}\tcommon_voice_en_{len(t)}{t[1]}\tPlain.\t2\t0\t\t\t\ten\t\n')
    us = list(commonvoice(tmp_path))
    assert [u.split for u in us] == ["train"]*2+["valid"]*2+["test"]*2
    assert us[0].text == '"Quoted at the start only' and us[0].speaker == "cv-"+"ab"*8
    assert us[1].audio == tmp_path/"clips"/"common_voice_en_5r.mp3"

def test_folder(tmp_path):
    for f in ("ann/one.wav","ann/deep/two.FLAC","bob/three.mp3","bob/silent.wav"): write(tmp_path/f, "")
    for f in ("ann/one.txt","ann/deep/two.lab","bob/three.normalized.txt"): write(tmp_path/f, f"\ufeffText of {f}\n")
    with pytest.warns(UserWarning, match="1 recordings have no text"): us = list(folder(tmp_path))
    assert {u.id: u.speaker for u in us} == {"ann/deep/two":"ann","ann/one":"ann","bob/three":"bob"}
    assert us[1].text == "Text of ann/one.txt"
    write(tmp_path/"flat"/"a.wav", "")
    write(tmp_path/"flat"/"a.txt", "x")
    assert [u.speaker for u in folder(tmp_path/"flat")] == ["flat"]
    assert [u.speaker for u in folder(tmp_path/"flat", speaker="me")] == ["me"]
    (tmp_path/"empty").mkdir()
    with pytest.raises(ValueError, match="no sound files"): list(folder(tmp_path/"empty"))

@pytest.mark.parametrize("name", ["ljspeech","vctk","libritts","librispeech","commonvoice","folder","manifest"])
def test_not_there(tmp_path, name):
    with pytest.raises(ValueError) as e: list(corpus(name, tmp_path/"no"))
    assert "\n" not in str(e.value) and "no" in str(e.value)
    if name in archives: assert f"harmonica-download {name}" in str(e.value)

def test_unknown():
    with pytest.raises(ValueError, match="unknown data set .vctkk.*ljspeech, vctk, libritts"): corpus("vctkk")
    with pytest.raises(ValueError, match="unknown data set.*ljspeech"): download("vctkk")

# --- splits

def overlap(us, of):
    sides = {s: {of(u) for u in us if u.split == s} for s in ("train","valid","test")}
    return sides["train"] & sides["valid"] | sides["train"] & sides["test"] | sides["valid"] & sides["test"]

def school(speakers, lines, shared, seed=0):
    "Everybody reads some lines of their own and some of a common page"
    rng = np.random.default_rng(seed)
    return [Utterance(b"", f"Common line {rng.integers(40)}, read by many!" if i < shared else f"line {i} of {s}",
        f"s{s}", "school", id=f"{s}-{i}") for s in range(speakers) for i in range(lines)]

@settings(max_examples=15, deadline=None)
@given(speakers=st.integers(1,60), shared=st.integers(0,6), valid=st.sampled_from([0.,.05,.3]),
    test=st.sampled_from([0.,.1]), seed=st.integers(0,99))
def test_apart_no_sentence_and_no_voice_on_two_sides(speakers, shared, valid, test, seed):
    us = school(speakers, 8, shared, seed)
    out = list(split_disjoint(lambda: iter(us), valid, test))
    assert [u.id for u in out] == [u.id for u in us] and not overlap(out, lambda u: sentence(u.text))
    if speakers >= 20: assert not overlap(out, lambda u: u.speaker)
    if not valid+test: assert {u.split for u in out} == {"train"}
    turned = {u.id: u.split for u in split_disjoint(lambda: us[::-1], valid, test)}
    assert turned == {u.id: u.split for u in out} # the order of reading decides nothing
    if not shared: assert "spare" not in turned.values()

def test_apart_shares_and_costs():
    us = school(400, 10, 3)
    out = list(split_disjoint(lambda: us, .1, .1))
    n = {s: sum(u.split == s for u in out)/len(out) for s in ("train","valid","test","spare")}
    assert .04 < n["valid"] < .12 and .04 < n["test"] < .12 and n["spare"] < .1 and n["train"] > .65
    mine = [u for u in out if u.speaker == "s7" and u.split != "spare"]
    assert len({u.split for u in mine}) == 1
    more = school(500, 10, 3)
    later = {u.id: u.split for u in split_disjoint(lambda: more, .1, .1)}
    same = [later[u.id] == u.split for u in out if u.text.startswith("line")]
    assert all(same) # new speakers move nobody to the other side

def test_few_speakers_are_dealt_by_sentence():
    us = school(3, 400, 200)
    out = list(split_disjoint(lambda: us, .05, .05))
    assert not overlap(out, lambda u: sentence(u.text)) and {u.split for u in out} == {"train","valid","test"}
    assert all(any(u.split == "train" and u.speaker == f"s{s}" for u in out) for s in range(3))

def test_publishers_splits_are_kept_but_for_shared_sentences(tmp_path):
    root = tmp_path/"VCTK-Corpus-0.92"
    for p in ("p225","p226","p227","p228","p229"):
        for i,t in enumerate(("When the sunlight strikes raindrops in the air,", f"Only {p} says this.")):
            write(root/"wav48_silence_trimmed"/p/f"{p}_00{i}_mic2.flac", "")
            write(root/"txt"/p/f"{p}_00{i}.txt", t+"\n"*(p == "p226"))
    assert overlap(list(vctk(tmp_path)), lambda u: u.text) # as published
    us = list(corpus("vctk", tmp_path))
    assert not overlap(us, lambda u: u.text) and not overlap(us, lambda u: u.speaker)
    assert {u.speaker for u in us if u.split == "valid"} <= {"vctk-p225","vctk-p226"}
    assert sum(u.split != "spare" for u in us) >= 7
    assert {u.id: u.split for u in us if u.text.startswith("Only")} == {u.id: u.split
        for u in vctk(tmp_path) if u.text.startswith("Only")}
    for bad in (1., -.1, 3): 
        with pytest.raises(ValueError, match="0 to 1"): corpus("vctk", tmp_path, valid=bad)

def test_a_manifest_decides_for_itself_unless_asked(tmp_path):
    write(tmp_path/"m.jsonl", "\n".join(json.dumps(dict(audio=f"{i}.wav", text="Same." if i < 2 else f"Line {i}.",
        speaker=f"s{i}", split="valid" if i == 0 else "train")) for i in range(40)))
    assert [u.split for u in corpus(tmp_path/"m.jsonl")] == ["valid"]+["train"]*39
    us = list(corpus(tmp_path/"m.jsonl", valid=.2, test=.2))
    assert {"train","valid","test"} <= {u.split for u in us} and not overlap(us, lambda u: u.text)

def test_one_sentence_read_twice_stays_on_one_side(tmp_path):
    write(tmp_path/"LJSpeech-1.1"/"metadata.csv", "".join(f"LJ001-{i:04d}|x|Line {i//2}.\n" for i in range(400)))
    us = list(ljspeech(tmp_path, valid=.2))
    assert not overlap(us, lambda u: u.text) and 20 < sum(u.split == "valid" for u in us) < 140

# --- Hugging Face, from local Parquet

def parquet(path, **cols):
    import pyarrow as pa, pyarrow.parquet as pq
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(cols), path)
    return path

def test_hf_local(tmp_path):
    b = sound(tmp_path/"a.flac").read_bytes()
    mp3 = sound(tmp_path/"b.mp3", rate=24000).read_bytes()
    f = parquet(tmp_path/"v.parquet", audio=[dict(bytes=b, path="p225_001.flac"), dict(bytes=mp3, path="p226_001.mp3")],
        text=["One.","Two."], speaker_id=["p225","p226"])
    us = list(hf(f, source="vctk"))
    assert [(u.text, u.speaker, u.id, u.split, u.clip().rate)
        for u in us] == [("One.","vctk-p225","vctk-p225_001","train",16000),
        ("Two.","vctk-p226","vctk-p226_001","train",24000)]
    assert [u.id for u in hf(f, source="vctk")] == [u.id for u in us]

def test_hf_other_columns_and_no_speaker(tmp_path):
    b = sound(tmp_path/"a.wav").read_bytes()
    f = parquet(tmp_path/"d"/"x.parquet", flac=[dict(bytes=b, path=None)]*3, sentence=["a","b","c"],
        words=["q","r","s"])
    us = list(hf(tmp_path/"d"))
    assert len({u.id for u in us}) == 3 and {u.speaker for u in us} == {"d"} and [u.text for u in us] == ["a","b","c"]
    assert [u.text for u in hf(f, text="words")] == ["q","r","s"]
    with pytest.raises(ValueError, match="no column wrong for the text"): list(hf(f, text="wrong"))
    with pytest.raises(ValueError, match="no column audio or .* for the audio"):
        list(hf(parquet(tmp_path/"y.parquet", text=["a"])))
    with pytest.raises(ValueError, match="no Parquet"): list(hf(tmp_path/"none.parquet"))

def test_hf_both_microphones_get_two_ids(tmp_path):
    b = sound(tmp_path/"a.wav").read_bytes()
    f = parquet(tmp_path/"v.parquet", audio=[dict(bytes=b, path="x.flac")]*2, text=["Same."]*2, speaker_id=["p1"]*2,
        text_id=["001"]*2)
    assert [u.id for u in hf(f)] == ["v-p1-001","v-p1-001-2"]

@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    "Two Parquet files, 60 speakers, some names twice"
    d = tmp_path_factory.mktemp("hub")
    b = sound(d/"a.flac").read_bytes()
    us = school(60, 6, 3)
    for k in range(2):
        part = us[k*180:(k+1)*180]
        parquet(d/"data"/f"train-{k}.parquet", audio=[dict(bytes=b, path=f"{i%170}.flac") for i in range(180)],
            text=[u.text for u in part], speaker_id=[u.speaker for u in part])
    return d/"data"

@pytest.mark.parametrize("stop", [1, 179, 180, 181, 300])
def test_stream_goes_on_through_its_own_state(shards, stop):
    whole = [(u.id, u.text) for u in hf(shards)]
    assert len(whole) == len({i for i,_ in whole}) == 360
    s = hf(shards)
    it = iter(s)
    first = [(u.id, u.text) for _,u in zip(range(stop), it)]
    state = json.loads(json.dumps(s.state_dict())) # it can be written down
    again = hf(shards)
    again.load_state_dict(state)
    assert again.state_dict() == state and first+[(u.id, u.text) for u in again] == whole
    assert [(u.id, u.text) for u in s] == whole # and one that was not told anything starts anew

def test_resumed_stream_does_not_read_what_is_done(shards, monkeypatch):
    s = hf(shards)
    it = iter(s)
    [next(it) for _ in range(200)]
    state = s.state_dict()
    import pyarrow.parquet as pq
    opened = []
    real = pq.ParquetFile.__init__
    monkeypatch.setattr(pq.ParquetFile, "__init__", lambda self, f, *a,
        **k: (opened.append(str(getattr(f, "name", f))), real(self, f, *a, **k))[1])
    again = hf(shards)
    opened.clear()
    again.load_state_dict(state)
    assert len(list(again)) == 160
    assert not [f for f in opened if "train-0" in f]

def test_stream_splits_share_nothing(shards):
    us = list(hf(shards, valid=.2, test=.2))
    assert {"train","valid","test","spare"} >= {u.split for u in us} >= {"train"}
    assert not overlap(us, lambda u: u.speaker) and not overlap(us, lambda u: sentence(u.text))
    assert {u.split for u in hf(shards)} == {"train"} and sum(u.split == "train" for u in us) > 150

# --- folders that go with their process

LIVES = """
import os, signal, sys, time
from harmonica.scale import temporary
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.stderr = open(os.devnull, 'w')
for how in sys.argv[2:]:
    if os.fork(): continue
    t = temporary(f'{sys.argv[1]}/{how}')
    (t/'codes').mkdir()
    (t/'codes'/'a').write_bytes(bytes(1000))
    os.write(1, f'{how} {os.getpid()}\\n'.encode())
    if how == 'raise': raise RuntimeError
    if how != 'end': time.sleep(60)
    sys.exit()
for _ in sys.argv[2:]: os.wait()
"""

def test_temporary_folder_goes_however_its_process_ends(tmp_path):
    hows = dict(end=None, SIGINT=signal.SIGINT, SIGTERM=signal.SIGTERM, SIGKILL=signal.SIGKILL)
    hows["raise"] = None
    p = subprocess.Popen([sys.executable, "-c", LIVES, str(tmp_path), *hows], stdout=subprocess.PIPE, text=True)
    for line in p.stdout:
        how, pid = line.split()
        if how == "SIGINT":
            with pytest.raises(ValueError, match=f"in use by process {pid}"): temporary(tmp_path/how)
        if hows[how]: os.kill(int(pid), hows[how])
    assert p.wait() == 0
    # nobody could
    assert [f.name for f in tmp_path.iterdir()] == ["SIGKILL"] and (tmp_path/"SIGKILL"/"codes"/"a").exists()
    t = temporary(tmp_path/"SIGKILL")
    assert not (t/"codes").exists() # the next one sweeps
    scale.sweep(t)
    assert not t.exists()

def test_temporary_never_takes_what_is_not_its_own(tmp_path):
    write(tmp_path/"mine"/"thesis.txt", "years of work")
    with pytest.raises(ValueError, match="not temporary"): temporary(tmp_path/"mine")
    scale.sweep(tmp_path/"mine")
    scale.sweep(tmp_path/"none")
    assert (tmp_path/"mine"/"thesis.txt").exists()
    write(tmp_path/"far"/scale.OWNER, json.dumps(dict(pid=1, host="elsewhere")))
    with pytest.raises(ValueError, match="in use by process 1 on elsewhere"): temporary(tmp_path/"far")

# --- downloads

class Server:
    "Files on 127.0.0.1 with a temper: per path, what each successive request meets"
    def __init__(self):
        me = self
        self.files, self.temper, self.asked = {}, {}, []
        class H(http.server.BaseHTTPRequestHandler):
            def log_message(self, *a): pass
            def do_GET(self):
                body, moods = me.files.get(self.path), me.temper.get(self.path, [])
                mood = moods.pop(0) if moods else "fine"
                a = int(self.headers.get("Range", "bytes=0-")[6:-1])
                me.asked.append((self.path, a, mood))
                if body is None: return self.send_error(404)
                if mood == "busy": return self.send_error(503)
                if mood == "no ranges": a = 0
                if mood == "endless": # never says how much is to come, and it is too much
                    self.send_response(200)
                    self.end_headers()
                    try:
                        for _ in range(999): self.wfile.write(body)
                    except OSError: pass
                    return
                if a >= len(body) and mood != "no ranges":
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                self.send_response(200 if mood == "no ranges" else 206)
                if mood != "no ranges": self.send_header("Content-Range", f"bytes {a}-{len(body)-1}/{len(body)}")
                lie = dict(modest=(len(body)-a)//2, boastful=2*len(body))
                self.send_header("Content-Length", str(lie.get(mood, len(body)-a)))
                self.end_headers()
                self.wfile.write(body[a:a+max(1,(len(body)-a)//2)] if mood == "hang up" else body[a:])
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
        threading.Thread(target=self.http.serve_forever, args=(.01,), daemon=True).start()
    def url(self, path): return f"http://127.0.0.1:{self.http.server_port}{path}"

BODY = np.random.default_rng(0).bytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()

@pytest.fixture
def server():
    s = Server()
    s.files["/f.bin"] = BODY
    yield s
    s.http.shutdown()
    s.http.server_close()

@pytest.fixture(autouse=True)
def no_aria(monkeypatch): monkeypatch.setattr(D.shutil, "which", lambda x: None)

def get(server, path, **kw):
    return fetch(server.url("/f.bin"), path, progress=False, pause=.001, **{**dict(size=len(BODY), digest=SHA), **kw})

@pytest.mark.parametrize("moods", [[], ["hang up"], ["hang up","busy","hang up","busy"], ["busy"]*4, ["no ranges"],
    ["hang up","no ranges"], ["modest","modest","hang up"]])
@pytest.mark.parametrize("size", [len(BODY), None])
def test_fetch_in_bad_weather(server, tmp_path, moods, size):
    if size is None and "modest" in moods: return # then nobody knows better than the server
    server.temper["/f.bin"] = list(moods)
    assert get(server, tmp_path/"f.bin", size=size).read_bytes() == BODY and not (tmp_path/"f.bin.part").exists()
    assert len(server.asked) == len(moods)+(moods[-1:] != ["no ranges"])

def test_resumes_where_it_stopped(server, tmp_path):
    (tmp_path/"f.bin.part").write_bytes(BODY[:123_456])
    get(server, tmp_path/"f.bin")
    assert [a for _,a,_ in server.asked] == [123_456]
    get(server, tmp_path/"f.bin")
    assert len(server.asked) == 1 # it is there

@pytest.mark.parametrize("extra", [0, 10])
def test_part_that_is_whole_or_too_long(server, tmp_path, extra):
    (tmp_path/"f.bin.part").write_bytes(BODY+b"x"*extra)
    assert get(server, tmp_path/"f.bin", size=None).read_bytes() == BODY

def test_gives_up_but_keeps_what_came(server, tmp_path):
    server.temper["/f.bin"] = ["hang up"]+["busy"]*9
    with pytest.raises(ValueError, match="503.*run it again") as e: get(server, tmp_path/"f.bin", tries=3)
    assert "\n" not in str(e.value) and (tmp_path/"f.bin.part").stat().st_size == len(BODY)//2
    server.temper.clear()
    assert get(server, tmp_path/"f.bin").read_bytes() == BODY

def test_lies_about_length(server, tmp_path):
    server.temper["/f.bin"] = ["boastful"]
    assert get(server, tmp_path/"f.bin").read_bytes() == BODY
    server.temper["/g.bin"], server.files["/g.bin"] = ["modest"], BODY # size unknown: only the checksum can tell
    with pytest.raises(ValueError, match="checksum"):
        fetch(server.url("/g.bin"), tmp_path/"g.bin", None, SHA, progress=False, pause=.001)
    server.temper["/g.bin"] = ["endless"]
    with pytest.raises(ValueError, match="goes on after 300000 bytes"):
        fetch(server.url("/g.bin"), tmp_path/"g.bin", len(BODY), SHA, progress=False, pause=.001)
    assert not list(tmp_path.glob("g.bin*"))

def test_disk_fills_up(server, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, b): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(D, "open", lambda p, m="r", *a, **k: Full() if "b" in m
        and "r" not in m else open(p, m, *a, **k), raising=False)
    with pytest.raises(ValueError, match="disk full at .*f.bin: make room, then run"):
        get(server, tmp_path/"f.bin")

def test_disk_is_checked_before_anything_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setitem(archives, "ljspeech", {"": (server.url("/f.bin"), 10**18, SHA)})
    with pytest.raises(ValueError, match="GB are free"): download("ljspeech", tmp_path, progress=False)
    assert not server.asked and not [p for p in tmp_path.iterdir() if not p.name.endswith(".lock")]

def test_missing_and_unreachable(server, tmp_path):
    with pytest.raises(ValueError, match="404"): fetch(server.url("/none"), tmp_path/"n", progress=False, pause=.001)
    assert len(server.asked) == 1 # no use asking again
    with pytest.raises(ValueError, match="can't download"):
        fetch("http://127.0.0.1:9/x", tmp_path/"n", progress=False, tries=2, pause=.001)

def test_damage_is_found_and_removed(server, tmp_path):
    (tmp_path/"f.bin.part").write_bytes(b"?"*1000)
    with pytest.raises(ValueError, match="checksum"): get(server, tmp_path/"f.bin")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="bytes"): get(server, tmp_path/"f.bin", size=len(BODY)-1)
    assert get(server, tmp_path/"f.bin", digest=hashlib.md5(BODY).hexdigest()).exists()

def test_holes_of_aria_are_not_appended_to(server, tmp_path):
    (tmp_path/"f.bin.part").write_bytes(b"\0"*200_000)
    (tmp_path/"f.bin.part.aria2").write_bytes(b"map")
    assert get(server, tmp_path/"f.bin").read_bytes() == BODY

def test_aria_is_used_where_it_is(server, tmp_path, monkeypatch):
    exe = tmp_path/"aria2c"
    exe.write_text("#!/bin/sh\nwhile [ $# -gt 1 ]; do case $1 in -d) d=$2;; -o) o=$2;; esac; shift; done\n"
        f'cp {tmp_path}/real "$d/$o"\n')
    exe.chmod(0o755)
    (tmp_path/"real").write_bytes(BODY)
    monkeypatch.setattr(D.shutil, "which", lambda x: str(exe))
    assert get(server, tmp_path/"f.bin").read_bytes() == BODY and not server.asked

def test_no_room(tmp_path):
    with pytest.raises(ValueError, match="GB are free"): need_room(tmp_path, 10**18, "vctk")

# --- archives

def tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as t:
        for name,data,kind in members:
            m = tarfile.TarInfo(name)
            m.type = kind
            if isinstance(data, bytes):
                m.size = len(data)
                t.addfile(m, io.BytesIO(data))
            else:
                m.linkname = data
                t.addfile(m)
    return path

F = tarfile.REGTYPE
@pytest.mark.parametrize("name,data,kind", [("../out", b"x", F), ("/tmp/out", b"x", F), ("a/../../out", b"x", F),
    ("C:\\out", b"x", F), ("..\\out", b"x", F), ("link", "/etc", tarfile.SYMTYPE), ("hard", "ok", tarfile.LNKTYPE),
    ("dev", "", tarfile.CHRTYPE), ("pipe", "", tarfile.FIFOTYPE)])
def test_hostile_tar(tmp_path, name, data, kind):
    root = tmp_path/"root"
    with pytest.raises(ValueError, match="not unpacked"):
        unpack(tar(tmp_path/"a.tar.gz", ("ok", b"fine", F), (name, data, kind)), root)
    assert not list(root.iterdir()) and not (tmp_path/"out").exists() # all or nothing

def test_hostile_zip(tmp_path):
    for name,mode in [("../out",0o100644), ("/out",0o100644), ("C:/out",0o100644), ("a\\..\\..\\out",0o100644),
        ("link", stat.S_IFLNK|0o777)]:
        with zipfile.ZipFile(tmp_path/"a.zip", "w") as z:
            m = zipfile.ZipInfo(name)
            m.filename = name
            m.external_attr = mode << 16
            z.writestr(m, "x")
        with pytest.raises(ValueError, match="not unpacked"): unpack(tmp_path/"a.zip", tmp_path/"root")

def test_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path/"a.zip", "w", zipfile.ZIP_DEFLATED) as z: z.writestr("big", bytes(101*10**6))
    with pytest.raises(ValueError, match="times its size"): unpack(tmp_path/"a.zip", tmp_path/"root", most=1)

@pytest.mark.parametrize("name", ["a.tar.gz","a.zip"])
def test_broken_archive(tmp_path, name):
    (tmp_path/name).write_bytes(b"nothing like it")
    with pytest.raises(ValueError, match="can't unpack"): unpack(tmp_path/name, tmp_path/"root")
    good = tar(tmp_path/"b.tar.gz", ("x", BODY, F))
    good.write_bytes(good.read_bytes()[:200_000])
    with pytest.raises(ValueError, match="can't unpack"): unpack(good, tmp_path/"root")
    assert not list((tmp_path/"root").iterdir())

@pytest.mark.parametrize("kind", ["tar","zip"])
def test_interrupted_unpacking_goes_on(tmp_path, monkeypatch, kind):
    names = [f"L/{i}/f{i}" for i in range(20)]
    root, a = tmp_path/"r", tmp_path/f"a.{kind}"
    if kind == "tar": tar(a, *[(n, BODY[:1000+i], F) for i,n in enumerate(names)], mode="w")
    else:
        with zipfile.ZipFile(a, "w") as z: [z.writestr(n, BODY[:1000+i]) for i,n in enumerate(names)]
    cls = tarfile.TarFile if kind == "tar" else zipfile.ZipFile
    real, written = cls.extract, []
    def extract(self, m, *args, **kw):
        if len(written) == stop: # in the middle of a file
            p = args[0]/(m.name if kind == "tar" else m.filename)
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(m)
        return real(self, m, *args, **kw)
    monkeypatch.setattr(cls, "extract", extract)
    stop = 12
    with pytest.raises(KeyboardInterrupt): unpack(a, root)
    assert not (root/"L").exists() and len(written) == 12
    stop = None
    unpack(a, root)
    assert len(written) == 20 # the eight that were missing
    assert [(root/n).read_bytes() for n in names] == [BODY[:1000+i] for i in range(20)]
    assert [p.name for p in root.iterdir()] == ["L"]
    written.clear()
    stop = 3
    with pytest.raises(KeyboardInterrupt): unpack(a, root)
    os.utime(a, (1, 1))
    written.clear()
    stop = None # another archive of that name: nothing of the old attempt is trusted
    unpack(a, root)
    assert len(written) == 20

def test_no_room_to_unpack_keeps_what_is_there(tmp_path, monkeypatch):
    real, n = tarfile.TarFile.extract, [0]
    def extract(self, *a, **k):
        n[0] += 1
        if n[0] == 2: raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, *a, **k)
    monkeypatch.setattr(tarfile.TarFile, "extract", extract)
    a = tar(tmp_path/"a.tar.gz", ("x", b"1", F), ("y", b"2", F))
    with pytest.raises(ValueError, match="disk full at .*r: make room, then run"): unpack(a, tmp_path/"r")
    unpack(a, tmp_path/"r")
    assert n[0] == 3 and (tmp_path/"r"/"y").read_bytes() == b"2"

def test_parts_are_joined_and_old_attempts_swept(tmp_path):
    (tmp_path/"r"/".b.tar.bz2.unpacking"/"left").mkdir(parents=True)
    unpack(tar(tmp_path/"a.tar.gz", ("L/train/a", b"1", F), ("L/README", b"r", F)), tmp_path/"r")
    unpack(tar(tmp_path/"b.tar.bz2", ("L/dev/b", b"2", F), ("L/README", b"r2", F), mode="w:bz2"), tmp_path/"r")
    assert sorted(p.relative_to(tmp_path/"r").as_posix()
        for p in (tmp_path/"r").rglob("*") if p.is_file()) == ["L/README","L/dev/b","L/train/a"]
    assert (tmp_path/"r"/"L"/"README").read_bytes() == b"r2" and [p.name for p in (tmp_path/"r").iterdir()] == ["L"]

def test_download_to_reader(server, tmp_path, monkeypatch):
    wav = sound(tmp_path/"x.wav").read_bytes()
    lj = tar(tmp_path/"LJSpeech-1.1.tar.bz2", ("LJSpeech-1.1/metadata.csv", b"LJ001-0001|Hi 2|Hi two\n", F),
        ("LJSpeech-1.1/wavs/LJ001-0001.wav", wav, F), mode="w:bz2").read_bytes()
    with zipfile.ZipFile(tmp_path/"v.zip", "w") as z:
        z.writestr("txt/p225/p225_001.txt", "Please.")
        z.writestr("wav48_silence_trimmed/p225/p225_001_mic2.flac", wav)
    vz = (tmp_path/"v.zip").read_bytes()
    libri = {p: tar(tmp_path/f"{p}.tar.gz", (f"LibriTTS/{p}/1/2/1_2_3_4.wav", wav, F),
        (f"LibriTTS/{p}/1/2/1_2_3_4.normalized.txt", p.encode(), F)).read_bytes()
        for p in ("train-clean-100","dev-clean")}
    server.files.update({"/LJ.tar.bz2":lj, "/v.zip":vz, **{f"/{p}.tar.gz":b for p,b in libri.items()}})
    server.temper["/LJ.tar.bz2"] = ["hang up"]
    sha = lambda b: hashlib.sha256(b).hexdigest()
    monkeypatch.setitem(archives, "ljspeech", {"": (server.url("/LJ.tar.bz2"), len(lj), sha(lj))})
    monkeypatch.setitem(archives, "vctk", {"": (server.url("/v.zip"), len(vz), sha(vz))})
    monkeypatch.setitem(archives, "libritts", {p: (server.url(f"/{p}.tar.gz"), None, sha(b)) for p,b in libri.items()})
    monkeypatch.setattr(D.time, "sleep", lambda s: None)
    root = tmp_path/"data"
    for name in ("ljspeech","vctk","libritts"): download(name, root, progress=False)
    assert [u.text for u in ljspeech(root)] == ["Hi two"] and next(ljspeech(root)).clip().rate == 16000
    assert [u.id for u in vctk(root)] == ["vctk-p225_001"] and [u.split for u in libritts(root)] == ["valid","train"]
    n = len(server.asked)
    download("ljspeech", root, progress=False)
    download("libritts", root, parts="dev-clean", progress=False)
    assert len(server.asked) == n
    assert {p.name for p in root.iterdir() if p.name[0] != "."} == {"LJSpeech-1.1","VCTK-Corpus-0.92","LibriTTS"}
    with pytest.raises(ValueError, match="no part 'x'"): download("libritts", root, parts=["x"])
    with pytest.raises(ValueError, match="no part 'x'"): download("libritts:x", root)
    download("libritts:dev-clean", tmp_path/"one", progress=False)
    assert [u.split for u in libritts(tmp_path/"one")] == ["valid"]
    with pytest.raises(ValueError, match="can't be written"): download("ljspeech", tmp_path/"x.wav"/"data")

SPEECH = Path(os.environ.get("HARMONICA_SPEECH", Path(__file__).resolve().parents[2]/"shared"/"speech"))
@pytest.mark.skipif(not (SPEECH/"manifest.jsonl").exists(), reason="no real clips beside the repository")
def test_real_clips():
    us = list(corpus(SPEECH/"manifest.jsonl"))
    assert len(us) > 1000 and len({u.id for u in us}) == len(us)
    assert {"librispeech","commonvoice"} <= {u.source for u in us}
    assert not overlap(us, lambda u: u.speaker)
    for u in us[::len(us)//12]: assert abs(u.clip().seconds-u.seconds) < .1

def test_published_archives_are_well_formed():
    for parts in archives.values():
        for url,size,digest in parts.values():
            assert url.startswith("https://") and len(digest) in (32, 64) and int(digest, 16) and (size is None
                or size > 10**8)

# --- more people than there are

def test_speed_perturb(tmp_path):
    wav = sound(tmp_path/"a.wav", 1.)
    us = [Utterance(wav, "One two.", "ann", seconds=1., id="a"), Utterance(wav, "Three.", "bob", split="valid", id="b")]
    made = list(speed_perturb(us, (.8, 1.25)))
    # who is held out has none
    assert [(u.id, u.speaker, u.split) for u in made] == [("a", "ann", "train"), ("a@0.8", "ann@0.8", "train"),
        ("a@1.25", "ann@1.25", "train"), ("b", "bob", "valid")]
    for u,k in zip(made, (1, .8, 1.25)):
        clip = u.clip()
        assert clip.rate == 16000 and clip.seconds == pytest.approx(1/k, abs=1e-3) and u.seconds == pytest.approx(1/k)
        peak = np.abs(np.fft.rfft(clip.samples)).argmax()/clip.seconds
        assert peak == pytest.approx(254.6*k, rel=.02)         # sin(.1 i) at 16 kHz: the pitch goes along

@pytest.mark.parametrize("pace", [0, 1, .4, 3, float("nan")])
def test_paces_that_make_no_sense(pace):
    with pytest.raises(ValueError, match="0.5 to 2 are allowed"): list(speed_perturb([], (pace,)))
