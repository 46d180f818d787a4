"From recordings to codes nothing is lost, mixed up or learned by mistake: faults that people report, by the commands"
import json, subprocess, sys, threading
from pathlib import Path
import numpy as np
import pytest
from filelock import FileLock
from harmonica import cli
from harmonica.codec import Clip, Codec
from harmonica.corpora import commonvoice, corpus, folder, hf, ljspeech, manifest, recognise, split_of
from harmonica.data import CodesDataset, cached_ids, prepare, rejected
from harmonica.files import locked, writable
from harmonica.finetune import own_speech
from harmonica.scale import part_of


class Loud(Codec):
    "One book: loudness of a frame"
    hash = "loud00000000"
    def __init__(self): super().__init__("loud", sample_rate=24000, frame_rate=50, n_q=1, codebook_size=64)
    def to_codes(self, x): return (128*x.unfold(1, 480, 480).square().mean(-1).sqrt()).clamp(0, 63).long()[:, None]


def tone(path, seconds=1.2, pitch=.03, rate=24000):
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(seconds*rate))
    return Clip((.2*np.sin(t*pitch)*(1+.5*np.sin(t*.0007))).astype(np.float32), rate).save(path)


def ask(capsys, *args, f="preprocess"):
    code = getattr(cli, f)([str(a) for a in args])
    r = capsys.readouterr()
    return code, r.out, r.err


def listed(tmp_path, n=6, **more):
    "A manifest of n recordings by two speakers"
    rows = [dict(audio=f"{i}.wav", text=f"sentence number {i} here", speaker=f"s{i%2}", id=f"u{i}", **more)
        for i in range(n)]
    for i in range(n): tone(tmp_path/f"{i}.wav", 1.2+.1*i, .02+.005*i)
    return write_list(tmp_path/"m.jsonl", rows), rows


def write_list(path, rows):
    path.write_text("".join(json.dumps(r)+"\n" for r in rows))
    return path


def make(us, out, **kw): return prepare(us, Loud(), out, progress=False, **kw)


# 1. manifests never lose words in silence

@pytest.mark.parametrize("name,text,why", [("m.csv", 'audio,text\na.wav,"Well, then\nb.wav,Good night.\n',
    "line 2: a line break inside quotes|line 2: unexpected end of data"),
    ("m.csv", 'audio,text\na.wav,"Well" then\n', "line 2"),
    ("m.csv", "audio,text\na.wav,Well, then\n", "line 2 has 3 fields, the header 2"),
    ("m.csv", "audio,text,speaker\na.wav,Well\n", "line 2 has 2 fields"),
    ("m.csv", "audio,transcript\na.wav,Well\n", "no 'text' but 'transcript'"),
    ("m.csv", "audio,speaker\na.wav,me\n", "one must be called 'text'"),
    ("m.tsv", "audio\ttext\na.wav\tWell\tthen\n", "line 2 has 3 fields"),
    ("m.tsv", "audio\ttext\ttext\na.wav\tx\ty\n", "column 'text' stands twice"),
    ("m.jsonl", '{"audio":"a.wav","text":"x","text":"y"}\n', "a key stands twice"),
    ("m.jsonl", '{"audio":"a.wav","sentence":"x"}\n', "no 'text' but 'sentence'"),
    ("m.jsonl", '{"audio":"a.wav","text":"x","split":"holdout"}\n', "split is 'holdout', give train, valid or test"),
    ("m.jsonl", '{"audio":"a.wav","text":"x","seconds":"nan"}\n', "seconds is 'nan'")])
def test_a_list_that_would_lose_words_is_refused_with_its_line(tmp_path, name, text, why):
    (tmp_path/name).write_text(text)
    with pytest.raises(ValueError, match=why) as e: list(manifest(tmp_path/name))
    assert name in str(e.value) and "\n" not in str(e.value)


def test_quotes_in_tsv_are_speech_unless_they_are_a_pair(tmp_path):
    (tmp_path/"m.tsv").write_text(
        '\ufeff Audio \tTEXT\na.wav\t"Well, then\nb.wav\t"He said ""no""."\nc.wav\tsay "hi" now\n')
    assert [u.text for u in manifest(tmp_path/"m.tsv")] == ['"Well, then', 'He said "no".', 'say "hi" now']


# 2. a second run sees what changed

def test_a_second_run_makes_anew_what_changed(tmp_path):
    path, rows = listed(tmp_path)
    first = make(manifest(path), tmp_path/"c", shard_size=2)
    assert (first["made"], first["splits"]) == (6, dict(train=6))
    rows[0]["text"], rows[1]["split"] = "another sentence now", "valid"
    tone(tmp_path/"2.wav", 2., .05)
    write_list(path, rows)
    again = make(manifest(path), tmp_path/"c", shard_size=2)
    assert (again["made"], again["kept"], again["changed"]) == (0, 3, 3) and again["splits"] == dict(train=5, valid=1)
    ds = CodesDataset(tmp_path/"c", None)
    new = {ds.id(i): ds[i] for i in range(len(ds))}
    assert len(new) == 6 and new["u0"]["text"] == "another sentence now"
    assert new["u2"]["seconds"] == pytest.approx(2., abs=.3)
    assert make(manifest(path), tmp_path/"c")["kept"] == 6


def test_limits_that_changed_count(tmp_path):
    path, rows = listed(tmp_path)
    make(manifest(path), tmp_path/"c")
    shorter = make(manifest(path), tmp_path/"c", limits=(.5, 1.45))
    assert shorter["rejected"] > 0 and shorter["kept"]+shorter["rejected"] == 6
    assert cached_ids(tmp_path/"c").isdisjoint(rejected(tmp_path/"c"))
    longer = make(manifest(path), tmp_path/"c")
    assert longer["kept"]+longer["made"] == 6 and not rejected(tmp_path/"c")


def test_two_lists_that_name_another_recording_alike_are_not_mixed(tmp_path):
    for who,pitch in (("ann", .03), ("bob", .05)):
        tone(tmp_path/who/"001.wav", 1.3, pitch)
        write_list(tmp_path/who/"m.jsonl", [dict(audio="001.wav", text=f"this is what {who} said")])
    make(manifest(tmp_path/"ann/m.jsonl"), tmp_path/"c")
    with pytest.raises(ValueError, match="'001' is one recording .* another one here"):
        make(manifest(tmp_path/"bob/m.jsonl"), tmp_path/"c")
    assert [CodesDataset(tmp_path/"c")[0]["speaker"]] == ["ann"]


def test_a_corpus_that_moved_is_still_known(tmp_path):
    path, _ = listed(tmp_path/"a")
    make(manifest(path), tmp_path/"c")
    (tmp_path/"a").rename(tmp_path/"b")
    assert make(manifest(tmp_path/"b/m.jsonl"), tmp_path/"c")["kept"] == 6


# 4. held out is held out

def test_names_of_splits(tmp_path):
    assert [split_of(n) for n in ("validation", "dev-clean", "val", "Train", "test_other", "VALID", "x")] == ["valid",
        "valid", "valid", "train", "test", "valid", None]
    write_list(tmp_path/"m.jsonl", [dict(audio="a.wav", text="x", split=s)
        for s in ("validation", "dev", "val", "Train")])
    assert [u.split for u in manifest(tmp_path/"m.jsonl")] == ["valid"]*3+["train"]


def test_parquet_files_say_their_split_and_few_speakers_are_dealt_by_sentence(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    sound = tone(tmp_path/"a.flac").read_bytes()
    for name in ("train-00000-of-00001", "validation-00000-of-00001"):
        rows = dict(audio=[dict(bytes=sound, path=f"{name[:3]}{i}.flac") for i in range(40)],
            text=[f"{name} {i}" for i in range(40)], speaker_id=[f"s{i%4}" for i in range(40)])
        (tmp_path/"d").mkdir(exist_ok=True)
        pq.write_table(pa.table(rows), tmp_path/"d"/f"{name}.parquet")
    assert [u.split for u in hf(tmp_path/"d")] == ["train"]*40+["valid"]*40
    dealt = [u.split for u in hf(tmp_path/"d", valid=.3)]
    assert set(dealt) == {"train", "valid"} and 10 < dealt.count("valid") < 40


def test_fine_tuning_learns_no_reading_of_a_held_out_sentence(tmp_path):
    for i in range(20):
        tone(tmp_path/"me"/f"{i}.wav")
        (tmp_path/"me"/f"{i}.txt").write_text(f"Sentence {i%10}.")
    us = own_speech(tmp_path/"me")
    held, learned = ({u.text for u in us if u.split == s} for s in ("valid", "train"))
    assert held and not held & learned


# 6. one writer at a time

def test_a_neighbour_that_looks_is_no_writer(tmp_path):
    path, _ = listed(tmp_path)
    # for an instant, whether anybody writes
    looks = FileLock(writable(tmp_path/"c")/".part-000-of-001.lock", thread_local=False)
    looks.acquire()
    threading.Timer(.5, looks.release).start()
    assert sum(make(manifest(path), tmp_path/"c", shard=(i, 2))["made"] for i in range(2)) == 6

def test_two_writers_of_one_part_are_told(tmp_path):
    path, _ = listed(tmp_path)
    with locked(tmp_path/"c", "part-000-of-001"):
        with pytest.raises(ValueError, match="in use by another process"): make(manifest(path), tmp_path/"c")
        with pytest.raises(ValueError, match="divided otherwise"): make(manifest(path), tmp_path/"c", shard=(0, 2))
    assert make(manifest(path), tmp_path/"c")["made"] == 6


def test_the_same_id_twice_is_refused(tmp_path):
    path, rows = listed(tmp_path)
    write_list(path, [*rows, dict(rows[0], audio="1.wav")])
    with pytest.raises(ValueError, match="two utterances are called 'u0'"): make(manifest(path), tmp_path/"c")


# 7. and 10. one bad file or row is one utterance less, by name

def test_one_bad_text_rejects_one_recording(tmp_path):
    for n in ("good", "latin", "wide", "bom"): tone(tmp_path/"f"/f"{n}.wav")
    (tmp_path/"f/good.TXT").write_text("all is\u2028well here")
    (tmp_path/"f/latin.txt").write_bytes("Grüße an alle".encode("latin-1"))
    (tmp_path/"f/wide.txt").write_bytes("hello there".encode("utf-16"))
    (tmp_path/"f/bom.txt").write_bytes("\ufeffhello there".encode())
    (tmp_path/"f/._good.txt").write_bytes(b"\0\5\x16\7")
    (tmp_path/"f/._good.wav").write_bytes(b"\0\5\x16\7")
    assert make(folder(tmp_path/"f"), tmp_path/"c")["made"] == 2
    why = rejected(tmp_path/"c")
    assert set(why) == {"latin", "wide"} and "latin.txt' is not UTF-8" in why["latin"] and "UTF-16" in why["wide"]


def test_bad_rows_are_rejected_by_name(tmp_path):
    _, rows = listed(tmp_path, 2)
    bad = [dict(rows[0], id="none", audio=None), dict(rows[0], id="number", audio=7),
        dict(rows[0], id="words", text=["a", "b"]), dict(rows[0], id="half", text="\ud83d!"),
        dict(rows[0], id="nul", audio="a\0b.wav")]
    write_list(tmp_path/"m.jsonl", rows+bad)
    assert make(manifest(tmp_path/"m.jsonl"), tmp_path/"c")["made"] == 2
    assert set(rejected(tmp_path/"c")) == {"none", "number", "words", "half", "nul"}


def test_short_rows_and_blank_lines_of_published_tables(tmp_path):
    (tmp_path/"train.tsv").write_text("client_id\tpath\tsentence\nab\ta.mp3\tHello.\nab\tb.mp3\n")
    us = list(commonvoice(tmp_path))
    assert [bool(u.problem) for u in us] == [False, True] and "2 fields" in us[1].problem
    (tmp_path/"mine/wavs").mkdir(parents=True)
    (tmp_path/"mine/metadata.csv").write_text("a.wav|One|One\n\nb|Two|Two\n")
    assert [(u.id, u.speaker, u.audio.name) for u in ljspeech(tmp_path/"mine", valid=0)] == [("a", "mine", "a.wav"),
        ("b", "mine", "b.wav")]


def test_what_lies_in_parquet_is_laid_flat_too(tmp_path, capsys):
    "The sound is in the table and in no file of its own"
    import pyarrow as pa
    import pyarrow.parquet as pq
    sounds = [dict(bytes=tone(tmp_path/f"{i}.wav", 1.+.2*i).read_bytes(), path=f"{i}.wav") for i in range(3)]
    pq.write_table(pa.table(dict(audio=sounds, text=["one"]*3, speaker_id=["a", "b", "a"])), tmp_path/"x.parquet")
    code, out, err = ask(capsys, tmp_path/"x.parquet", "--stage", "codec", "--aligner", "none", "--out",
        tmp_path/"flat", f="flatten")
    assert code == 0, err
    rows = [json.loads(l) for l in (tmp_path/"flat/index.jsonl").read_text().splitlines()]
    assert [r["speaker"] for r in rows] == ["x-a", "x-b", "x-a"] and all(r["frames"] > 40 for r in rows)


def test_a_null_in_parquet_is_one_utterance_less(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    sound = tone(tmp_path/"a.flac").read_bytes()
    pq.write_table(pa.table(dict(audio=[dict(bytes=sound, path="a.flac"), None], text=["hello there", None])),
        tmp_path/"x.parquet")
    us = list(hf(tmp_path/"x.parquet"))
    assert [bool(u.problem) for u in us] == [False, True] and us[1].text == ""
    (tmp_path/"bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="bad"): list(hf(tmp_path/"bad.parquet"))


def test_a_file_that_broke_off_is_not_learned_from(tmp_path):
    _, rows = listed(tmp_path, 2)
    f = tmp_path/"1.wav"
    f.write_bytes(f.read_bytes()[:-30_000])
    rows[0]["seconds"] = 9.
    write_list(tmp_path/"m.jsonl", rows)
    assert make(manifest(tmp_path/"m.jsonl"), tmp_path/"c")["made"] == 0
    why = rejected(tmp_path/"c")
    assert "cut short" in why["u1"] and "9.00 s are listed" in why["u0"]


# 8. stopped at any moment

BODY = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from test_preprocess import Loud, manifest
from harmonica.data import prepare
class Stopped(Loud):
    heard = 0
    def to_codes(self, x):
        self.heard += 1
        if self.heard == 12: os.kill(os.getpid(), signal.SIGINT)
        return super().to_codes(x)
try: prepare(manifest(sys.argv[1]), Stopped(), sys.argv[2], progress=False)
except KeyboardInterrupt: sys.exit(130)
"""

def test_ctrl_c_keeps_what_was_encoded(tmp_path):
    path, _ = listed(tmp_path, 40)
    args = [sys.executable, "-c", BODY, str(path), str(tmp_path/"c"), str(Path(__file__).parent)]
    assert subprocess.run(args).returncode == 130
    kept = len(cached_ids(tmp_path/"c"))
    assert 0 < kept < 40 and not list((tmp_path/"c").glob("*.tmp"))
    again = make(manifest(path), tmp_path/"c")
    assert (again["kept"], again["made"]) == (kept, 40-kept)


# the command

def test_a_folder_is_enough_and_a_dry_run_writes_nothing(tmp_path, capsys):
    for i in range(3): tone(tmp_path/"me"/f"{i}.wav", 1.2+.1*i)
    for i,words in enumerate(("the sea is calm tonight", "the moon lies fair", "")):
        (tmp_path/"me"/f"{i}.txt").write_text(words)
    code, out, err = ask(capsys, tmp_path/"me", "--check")
    assert code == 0 and ": folder" in out and "2: no text" in out and "2 usable" in out and "train 2" in out
    assert [p.name for p in tmp_path.iterdir()] == ["me"]
    code, out, err = ask(capsys, tmp_path/"me", "--device", "cpu")
    assert code == 0 and "2 made" in out and "1 rejected" in out and "train 2" in out and "harmonica-page" in out and (
        tmp_path/"me-codes/card.json").exists(), err


def test_a_dry_run_says_what_is_wrong_with_a_file(tmp_path, capsys):
    tone(tmp_path/"0.wav", 1.2)
    (tmp_path/"odd.wav").write_text("no sound")
    rows = [dict(audio=f"{n}.wav", text="the sea is calm tonight", speaker="a") for n in ("0", "lost", "odd")]
    (tmp_path/"m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, err = ask(capsys, tmp_path/"m.jsonl", "--check")
    assert code == 0 and "lost.wav' does not exist" in out, out
    assert "odd.wav' is not a sound file that can be read" in out, out
    assert "1 usable" in out and "rror" not in out

def test_nothing_usable_is_an_error(tmp_path, capsys):
    tone(tmp_path/"me/0.wav")
    (tmp_path/"me/0.txt").write_text("")
    for how in ([], ["--check"]):
        code, out, err = ask(capsys, tmp_path/"me", *how, "--device", "cpu")
        assert code == 2 and err.strip().splitlines()[-1].startswith("harmonica-preprocess: ")


@pytest.mark.parametrize("files,what", [(["LJSpeech-1.1/metadata.csv", "LJSpeech-1.1/wavs/a.wav"], "ljspeech"),
    (["wav48_silence_trimmed/p1/x"], "vctk"), (["LibriSpeech/dev-clean/1/2/1-2.trans.txt"], "librispeech"),
    (["train-clean-100/1/2/a.normalized.txt"], "libritts"), (["clips/a.mp3", "train.tsv"], "commonvoice"),
    (["manifest.csv"], "manifest"), (["data/train-0.parquet"], "hf"), (["a.wav", "a.txt"], "folder")])
def test_layouts_are_recognised(tmp_path, files, what):
    for f in files:
        (tmp_path/f).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/f).write_text("")
    assert recognise(tmp_path)[0] == what


# many processes

def test_datatrove_runs_two_workers(tmp_path):
    executor = pytest.importorskip("datatrove.executor")
    path, _ = listed(tmp_path, 8)
    step = part_of(lambda: corpus(str(path)), Loud(), tmp_path/"c")
    executor.LocalPipelineExecutor([step], tasks=2, workers=2, logging_dir=str(tmp_path/"log"),
        start_method="forkserver").run()
    assert len(cached_ids(tmp_path/"c")) == 8
    assert {f.name[:10] for f in (tmp_path/"c").glob("*.arrow")} == {"000-of-002", "001-of-002"}
    assert make(corpus(str(path)), tmp_path/"c")["kept"] == 8
