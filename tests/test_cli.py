"Every mistake of a user is one line on stderr and exit code 2; the commands do what the functions do"
import json, subprocess, sys
import numpy as np, pytest, torch
from harmonica import cli, recipes, script
from harmonica.ar import AR, ARConfig
from harmonica.checkpoint import load_model, model_meta, packaged_weights, save_model
from harmonica.codec import Clip, packaged_voice
from harmonica.data import CodesDataset
from harmonica.microcodec import MicroCodec, MicroCodecConfig
from harmonica.nar import NAR, NARConfig
from harmonica.text import Tokenizer

COMMANDS = ("download", "preprocess", "flatten", "train", "synthesize", "evaluate", "compare", "doctor", "detect")

def ask(capsys, f, *args):
    "exit code, stdout, stderr of a command"
    code = getattr(cli, f)([str(a) for a in args])
    r = capsys.readouterr()
    return code, r.out, r.err

def refused(capsys, words, f, *args):
    code, out, err = ask(capsys, f, *args)
    assert code == 2 and err.count("\n") == 1 and err.startswith(f"harmonica-{f}: "), (code, err)
    for w in words.split("|"): assert w in err, err

@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A manifest of made speech, a tiny codec, AR and NAR"
    h = tmp_path_factory.mktemp("home")
    (h/"clips").mkdir()
    rng = np.random.default_rng(0)
    with open(h/"m.jsonl", "w") as f:
        for i in range(8):
            N = 24000+3000*i
            Clip((.2*np.interp(np.arange(N), np.linspace(0, N, 20),
                rng.uniform(.2, 1, 20))*np.sin(np.arange(N)*(.02+.01*(i%2)))).astype(np.float32)).save(
                h/f"clips/{i}.wav")
            f.write(json.dumps(dict(audio=f"clips/{i}.wav", text="the sea is calm", speaker=f"s{i%2}",
                split="valid" if i>5 else "train"))+"\n")
    torch.manual_seed(0)
    codec = MicroCodec(MicroCodecConfig(n_q=2, n_bins=16, code_dim=8, enc_dim=16, enc_layers=1, dec_dim=16,
        dec_layers=1))
    save_model(h/"codec.safetensors", codec)
    tok = Tokenizer("letters")
    from harmonica import load_codec
    info = dict(codec="micro", codec_hash=load_codec(str(h/"codec.safetensors")).hash, tokenizer=tok.to_dict())
    small = dict(vocab_size=tok.vocab_size, n_q=2, n_bins=16, d_model=32, n_heads=2, n_layers=1, d_ff=64, code_dim=8,
        speaker_dim=16)
    save_model(h/"ar.safetensors", AR(ARConfig(**small, frame_rate=50, duration_hidden_dim=16)), **info)
    save_model(h/"nar.safetensors", NAR(NARConfig(**small, cond_dim=16)), **info)
    save_model(h/"ar-other.safetensors", AR(ARConfig(**small, frame_rate=50, duration_hidden_dim=16)),
        **dict(info, codec_hash="ffffffffffff"))
    save_model(h/"nar-wide.safetensors", NAR(NARConfig(**dict(small, n_q=8), cond_dim=16)), tokenizer=tok.to_dict())
    return h

def models(h, ar="ar", nar="nar"):
    return ["--ar-checkpoint", h/f"{ar}.safetensors", "--nar-checkpoint", h/f"{nar}.safetensors", "--codec",
        h/"codec.safetensors", "--device", "cpu", "--max-seconds", 1]

@pytest.mark.parametrize("f", COMMANDS+("finetune", "page", "export", "keep"))
def test_help_shows_commands_that_work(capsys, f):
    import shlex
    from harmonica.command import parser
    code, out, err = ask(capsys, f, "--help")
    lines = [l.strip() for l in out.partition("\nexamples:\n")[2].splitlines()]
    assert code == 0 and lines, out
    for l in lines:
        words = shlex.split(l, comments=False)
        words = words[words.index(f"harmonica-{f}")+1:]
        parser(getattr(cli, f).__wrapped__).parse_intermixed_args(words[:words.index("|")] if "|" in words else words)

@pytest.mark.parametrize("f", COMMANDS)
def test_help(capsys, f):
    code, out, err = ask(capsys, f, "--help")
    assert code == 0 and not err and f"harmonica-{f}" in out
    assert {"download": "--root", "preprocess": "--shard", "train": "--resume", "synthesize": "--reference-text",
        "evaluate": "--enable-gibberish", "flatten": "--stage", "compare": "--folder", "doctor": "reference",
        "detect": "sound"}[f] in out
    assert f == "synthesize" or out.count("\n  --") < 20 # one job; saying is one, with many manners

def test_console_script_exits_with_the_code():
    r = run("train", "--config", "mikro", text=True)
    assert r.returncode == 2 and r.stderr.count("\n") == 1 and not r.stdout and "no config 'mikro'" in r.stderr

def test_bad_options(capsys):
    given = dict(download=["ljspeech"], compare=["a", "b"], doctor=["a.wav"], detect=["a.wav"])
    for f in COMMANDS: refused(capsys, "--tekst|--help", f, *given.get(f, []), "--tekst", "x")
    refused(capsys, "--seed", "synthesize", "--text", "Hi there.", "--seed", "many")

def test_download(capsys, tmp_path):
    refused(capsys, "ljspeach|ljspeech", "download", "ljspeach", "--root", tmp_path)
    refused(capsys, "name", "download")

def test_preprocess_mistakes(capsys, tmp_path, home):
    (tmp_path/"file").write_text("")
    refused(capsys, "ljspeach|ljspeech, vctk", "preprocess", "--dataset", "ljspeach", "--root", tmp_path, "--out",
        tmp_path/"o", "--codec", home/"codec.safetensors")
    refused(capsys, "unknown codec|encodec_24khz", "preprocess", "--dataset", home/"m.jsonl", "--codec", "opus",
        "--out", tmp_path/"o")
    refused(capsys, "can't be written", "preprocess", "--dataset", home/"m.jsonl", "--codec", home/"codec.safetensors",
        "--out", tmp_path/"file"/"o")
    refused(capsys, "tpu|auto, cpu", "preprocess", "--dataset", home/"m.jsonl", "--device", "tpu", "--out",
        tmp_path/"o")
    refused(capsys, "no-such.jsonl", "preprocess", "--dataset", tmp_path/"no-such.jsonl", "--codec",
        home/"codec.safetensors", "--out", tmp_path/"o")
    for s in ("3/3", "a", "1", "-1/2"):
        refused(capsys, "--shard|i/n", "preprocess", "--dataset", home/"m.jsonl", f"--shard={s}", "--out", tmp_path/"o")

    for p,why in (("fast", "give numbers"), ("1", "0.5 to 2"), ("9", "0.5 to 2")):
        refused(capsys, f"{why}", "preprocess", "--dataset", home/"m.jsonl", "--codec", home/"codec.safetensors",
            "--speed-perturb", p, "--out", tmp_path/"o")
    refused(capsys, "'ar'|codec, decoder, mel or flow", "flatten", home/"m.jsonl", "--stage", "ar")
    refused(capsys, "--aligner none", "flatten", home/"m.jsonl", "--stage", "decoder", "--aligner", "none", "--out",
        tmp_path/"o")

def test_wordless_speech_is_for_the_nar(capsys, tmp_path, home):
    rows = [json.loads(l) for l in open(home/"m.jsonl")]
    (tmp_path/"m.jsonl").write_text("".join(json.dumps(dict(r, audio=str((home/r["audio"]).resolve()), id=f"w{i}",
        text="" if i < 2 else r["text"], split="train"))+"\n" for i,r in enumerate(rows)))
    make = ["preprocess", "--dataset", tmp_path/"m.jsonl", "--codec", home/"codec.safetensors", "--device", "cpu"]
    assert "2 rejected" in ask(capsys, *make, "--out", tmp_path/"o")[1]
    code, out, err = ask(capsys, *make, "--wordless", "--out", tmp_path/"w")
    assert code == 0 and "0 rejected" in out, err
    with_text, whole = CodesDataset(tmp_path/"w"), CodesDataset(tmp_path/"w", wordless=True)
    assert len(whole) == len(with_text)+2 == len(rows)
    for stage,n,how in (("ar", len(rows)-2, []), ("nar", len(rows), ["model.nar.stroke=.5", "model.nar.code_dim=8"])):
        code, out, err = ask(capsys, "train", "--config", "smoke", "--stage", stage,
            f"data.codec={home}/codec.safetensors", f"data.cache_dir={tmp_path}/w", "training.max_steps=2", *how,
            "--out", tmp_path/stage, "--device", "cpu")
        assert code == 0 and f"{n} utterances" in out, (out, err)
    # in one stroke: the books above the first are not asked for
    assert model_meta(tmp_path/"nar/nar.safetensors")["info"]["n_books"] == 1

def test_every_pace_makes_a_sibling(capsys, tmp_path, home):
    make = ["preprocess", "--dataset", home/"m.jsonl", "--codec", home/"codec.safetensors", "--aligner", "none",
        "--out", tmp_path/"o", "--device", "cpu"]
    n = int(ask(capsys, *make)[1].split(": ")[1].split()[0])
    code, out, err = ask(capsys, *make, "--speed-perturb", ".8,1.2", "--num-proc", 2)
    assert code == 0 and "made" in out and f"{n} kept" in out, err
    ds = CodesDataset(tmp_path/"o")
    names = {s.split("@")[0] for s in ds.by_speaker}
    assert set(ds.by_speaker) == {s+k for s in names for k in ("", "@0.8", "@1.2")}
    losses = {}
    for share in (0, 1):                                           # the NAR hears book 0 of those siblings
        how = [f"data.codec={home}/codec.safetensors", f"data.cache_dir={tmp_path}/o", f"data.p_other_voice={share}",
            "model.nar.stroke=1", "model.nar.code_dim=8", "training.max_steps=2"]
        code, out, err = ask(capsys, "train", "--config", "smoke", "--stage", "nar", *how, "--out",
            tmp_path/f"nar{share}", "--device", "cpu")
        assert code == 0, err
        losses[share] = [json.loads(l).get("loss") for l in (tmp_path/f"nar{share}/log.jsonl").open()]
    assert losses[0] != losses[1]

def test_train_mistakes(capsys, tmp_path, home):
    refused(capsys, "training.learning_rate|valid keys|lr", "train", "training.learning_rate=1", "--out", tmp_path/"r")
    refused(capsys, "no config 'mikro'|baseline", "train", "--config", "mikro", "--out", tmp_path/"r")
    refused(capsys, "vocoder|aligner, codec, decoder, mel, ar, nar, flow", "train", "--stage", "vocoder", "--out",
        tmp_path/"r")
    refused(capsys, "tpu|auto", "train", "--config", "smoke", "--device", "tpu", "--out", tmp_path/"r")
    refused(capsys, "no codes|harmonica-preprocess", "train", "--config", "smoke", f"data.cache_dir={tmp_path}/none",
        "--device", "cpu", "--out", tmp_path/"r")
    refused(capsys, "data.cache_dir is not set", "train", "--config", "smoke", "--resume", "--device", "cpu", "--out",
        tmp_path/"r")
    (tmp_path/"file").write_text("")
    refused(capsys, "can't be written", "train", "--config", "smoke", "--device", "cpu", "--out", tmp_path/"file/run")

def test_synthesize_mistakes(capsys, tmp_path, home):
    out = ["--output", tmp_path/"o.wav"]
    refused(capsys, "--text", "synthesize", *out)
    for t in ("", " ", "?!", "🙂"): refused(capsys, "harmonica-synthesize", "synthesize", "--text", t, *out)
    say = ["--text", "Hi there.", *out, *models(home)]
    (tmp_path/"empty.wav").write_bytes(b"")
    (tmp_path/"text.wav").write_text("not a sound")
    (tmp_path/"file").write_text("")
    Clip(np.zeros(48000, np.float32)).save(tmp_path/"silent.wav")
    Clip(np.ones(2400, np.float32)*.1).save(tmp_path/"short.wav")
    for r in ("none", "empty", "text", "silent", "short"):
        refused(capsys, "harmonica-synthesize", "synthesize", *say, "--reference", tmp_path/f"{r}.wav")
    refused(capsys, "--reference-text|--reference", "synthesize", *say, "--reference-text", "Hello.")
    refused(capsys, "--text and --input are both given", "synthesize", *say, "--input", tmp_path/"o.txt")
    refused(capsys, "unknown codec", "synthesize", "--text", "Hi.", *out, "--codec", "opus", "--device", "cpu")
    refused(capsys, "another codec|ffffffffffff", "synthesize", "--text", "Hi.", *out, *models(home, ar="ar-other"))
    refused(capsys, "8 books", "synthesize", "--text", "Hi.", *out, *models(home, nar="nar-wide"))
    refused(capsys, "kind 'nar', wanted 'ar'", "synthesize", "--text", "Hi.", *out, *models(home, ar="nar"))
    refused(capsys, "is not there", "synthesize", "--text", "Hi.", *out, *models(home, ar="nothing"))
    refused(capsys, "tpu", "synthesize", "--text", "Hi.", *out, "--device", "tpu")
    refused(capsys, ".wav, .flac", "synthesize", "--text", "Hi.", "--output", tmp_path/"o.doc")
    refused(capsys, "can't be written", "synthesize", "--text", "Hi.", "--output", tmp_path/"file"/"o.wav")
    refused(capsys, "temperature", "synthesize", *say, "--temperature", "-1")

    refused(capsys, "--txt|did you mean --text", "synthesize", "--txt", "Hi.", *out)
    refused(capsys, "Hello there|in quotes", "synthesize", "Hello there", *out)
    refused(capsys, "--seed '1.5': give a whole number", "synthesize", "--text", "Hi.", "--seed", 1.5, *out)
    refused(capsys, "--speed 'fast': give a number", "synthesize", "--text", "Hi.", "--speed", "fast", *out)
    for option,value in (("--speed", 3), ("--best-of", 0), ("--max-seconds", 0), ("--top-p", 2)):
        refused(capsys, f"{option} was {value}", "synthesize", "--text", "Hi.", option, value, *out)
    refused(capsys, "me.wav|--reference", "synthesize", "--text", "Hi.", "--voice", "me.wav", *out)
    refused(capsys, "-hello|--text=-hello", "synthesize", "--text", "-hello", *out)
    refused(capsys, "nobody|ruth", "synthesize", "--text", "Hi.", "--voice", "nobody", *out)
    refused(capsys, "--voice|--reference", "synthesize", "--text", "Hi.", "--voice", "ruth", "--reference",
        packaged_voice(), *out)
    refused(capsys, "--text|--input", "synthesize", "--text", "Hi.", "--input", tmp_path/"a.txt", *out)
    refused(capsys, "a.txt", "synthesize", "--input", tmp_path/"a.txt", *out)
    refused(capsys, ".txt or .md", "synthesize", "--input", tmp_path/"a.pdf", *out)
    refused(capsys, "--split|--output", "synthesize", "--text", "Hi.", "--split", "paragraph", "--output", "-")
    refused(capsys, "--split|chapter", "synthesize", "--text", "Hi.", "--split", "page", *out)
    refused(capsys, ".srt", "synthesize", "--text", "Hi.", "--subtitles", tmp_path/"a.txt", *out)
    refused(capsys, "--split", "synthesize", "--text", "Hi.", "--subtitles", tmp_path/"a.srt", "--split", "paragraph",
        *out)
    missing = tmp_path/"latin.txt"/"o.srt"
    (tmp_path/"latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    refused(capsys, "latin.txt|UTF-8", "synthesize", "--input", tmp_path/"latin.txt", *out)
    before = sorted(tmp_path.rglob("*"))
    # known before anything is said
    refused(capsys, "--subtitles|can't be written", "synthesize", "--text", "Hi.", "--subtitles", missing, *out,
        *models(home))
    refused(capsys, "harmonica-synthesize", "synthesize", *say[:2], "--output", tmp_path/"new/folder/o.wav",
        *models(home), "--reference", tmp_path/"none.wav")
    assert sorted(tmp_path.rglob("*")) == before                            # nothing is left behind

def run(*args, stdin=None, **kw):
    "A command as a process of its own"
    command = args[0]
    code = (f"import sys; sys.argv=['harmonica-{command}', *sys.argv[1:]]\n"
        f"from harmonica.cli import {command}; sys.exit({command}())")
    return subprocess.run([sys.executable, "-c", code, *map(str, args[1:])], input=stdin, capture_output=True, **kw)

def test_pipes(home, tmp_path):
    r = run("synthesize", "--text", "-", "--output", "-", *models(home), stdin="Hi there.\n\nAnd more.".encode())
    assert r.returncode == 0 and r.stdout[:4] == b"RIFF" and not r.stderr, r.stderr
    assert 0 < Clip.load(r.stdout).seconds <= 1
    assert b"UTF-8" in run("synthesize", "--text", "-", "--output", tmp_path/"o.wav", *models(home),
        stdin=b"caf\xe9").stderr
    say = [str(a) for a in ("--text", "Hi there.", "--output", tmp_path/"o.wav", *models(home))]
    code = "import sys; from harmonica.cli import synthesize; sys.exit(synthesize(sys.argv[1:]))"
    full = subprocess.run([sys.executable, "-c", code, *say],
        stdout=open("/dev/full", "w") if sys.platform == "linux" else subprocess.DEVNULL, stderr=subprocess.PIPE)
    # nobody listens, and the sound is whole
    assert full.returncode == 0 and not full.stderr and Clip.load(tmp_path/"o.wav").seconds > 0

def test_a_terminal_is_no_place_for_sound(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    refused(capsys, "--output -|a terminal|out.wav", "synthesize", "--text", "Hi.", "--output", "-")

def test_a_warning_is_one_line_too(capsys, tmp_path, home):
    code, out, err = ask(capsys, "synthesize", "--text", "Hi there 世界.", "--output", tmp_path/"o.wav", *models(home))
    assert code == 0 and err.splitlines()[0] == "harmonica-synthesize: left out letters Harmonica cannot read: 世界"
    assert all(line.startswith("harmonica-synthesize: ") for line in err.splitlines()), err

def test_lines_may_end_as_on_windows():
    text = ("---\ntitle: no\n---\n# One\n\nIt was late.\nVery late.\n\n- a\n- b c\n\n"
        "```\nx = 1\n```\n# Two\n\nShe slept.\n")
    windows = text.replace("\n", "\r\n")
    assert script.paragraphs(windows, True) == script.paragraphs(text, True) == [
        "One", "It was late. Very late.", "a. b c.", "Two", "She slept."]
    each = lambda t: [script.paragraphs(c, True) for c in script.chapters(t)]
    assert each(windows) == each(text) and len(each(text)) > 1

def test_text_from_files(capsys, tmp_path, home):
    (tmp_path/"story.md").write_text("# One\n\nIt was *late*.\n\n```\nx = 1\n```\n\nShe [slept](http://x.y).\n")
    code, out, err = ask(capsys, "synthesize", "--input", tmp_path/"story.md", "--output", tmp_path/"s/part.flac",
        "--split", "paragraph", *models(home))
    assert code == 0 and sorted(p.name for p in (tmp_path/"s").iterdir()) == ["part-001.flac", "part-002.flac",
        "part-003.flac"], err
    assert script.paragraphs("---\na: b\n---\n# T\n* one\n* **two**\n\n![x](y.png)\n\n> said `so`\n\n***\n",
        markdown=True) == ["T", "one. two.", "said so"]

def test_a_paragraph_that_cannot_be_said_does_not_stop_the_others(capsys, tmp_path, home):
    (tmp_path/"b.txt").write_text("It was late.\n\nПривет, мир.\n\n* * *\n\n[^1]: A note.\n\nShe slept.\n", "utf-8")
    for i,how in enumerate(([], ["--split", "paragraph"])):
        code, out, err = ask(capsys, "synthesize", "--input", tmp_path/"b.txt", "--output", tmp_path/f"{i}/o.wav", *how,
            *models(home))
        left = [l for l in err.splitlines() if "left out, since nothing" in l]
        assert code == 0 and len(left) == 2 and "Привет" in left[0] and "[^1]" in left[1], err
    assert len(list((tmp_path/"1").iterdir())) == 2
    (tmp_path/"c.txt").write_text("Привет, мир.\n\nпока\n", "utf-8")
    refused(capsys, "nothing that can be spoken", "synthesize", "--input", tmp_path/"c.txt", "--output",
        tmp_path/"o.wav")

def test_a_book_is_written_while_it_is_spoken(capsys, tmp_path, home, monkeypatch):
    "Clip by clip, under another name; and the file is what `say` would have saved, its mark included"
    from harmonica.infer import Voice
    grown, spoken = [], Voice.spoken
    def watched(*a):
        for clip in spoken(*a):
            yield clip
            grown.append([(p.name[0], p.stat().st_size) for p in (tmp_path/"b").iterdir()])
    monkeypatch.setattr(Voice, "spoken", watched)
    text = "One two three. Four five six. Seven eight nine. Ten eleven twelve."
    code, out, err = ask(capsys, "synthesize", "--text", text, "--output", tmp_path/"b/o.wav", "--seed", 3,
        *models(home)[:-2])
    assert code == 0 and len(grown) == 4 and all(len(g) == 1 and g[0][0] == "." for g in grown), (err, grown)
    sizes = [g[0][1] for g in grown]
    assert sizes == sorted(sizes) and 0 < sizes[1] < sizes[-1]
    names = {k: str(home/f"{k}.safetensors") for k in ("ar", "nar", "codec")}
    Voice.load(device="cpu", **names).say(text, seed=3).save(tmp_path/"s.wav")
    assert [p.name for p in (tmp_path/"b").iterdir()] == ["o.wav"]
    assert (tmp_path/"b/o.wav").read_bytes() == (tmp_path/"s.wav").read_bytes()

@pytest.mark.parametrize("between", [" ", "\n\n"], ids=["one paragraph", "paragraphs"])
@pytest.mark.parametrize("how", [[], ["--phonemes"]])
def test_a_book_is_read_only_as_far_as_it_is_spoken(capsys, tmp_path, home, monkeypatch, between, how):
    "What a second of sound needs, though there are 700,000 characters"
    import harmonica.text
    read, inner = [], harmonica.text.normalize
    monkeypatch.setattr(harmonica.text, "normalize", lambda text, *a: (read.append(len(text)), inner(text, *a))[1])
    (tmp_path/"b.txt").write_text(between.join(["It was a dark night, and 3 owls cried. Nobody spoke of it."]*12_000))
    code, out, err = ask(capsys, "synthesize", "--input", tmp_path/"b.txt", "--output", tmp_path/"o.wav", *how,
        *models(home))
    assert code == 0 and Clip.load(tmp_path/"o.wav").seconds == pytest.approx(1, abs=.001), err
    assert 0 < sum(read) < 20_000

class Card:
    "A stand-in for sounddevice, with as many loudspeakers as it is told; breaks after so many clips"
    class PortAudioError(Exception): pass
    def __init__(self, speakers=1, breaks=99): self.speakers, self.breaks, self.heard = speakers, breaks, []
    def query_devices(self, kind):
        if not self.speakers: raise self.PortAudioError("Error querying device -1")
    def OutputStream(self, samplerate, channels, dtype):
        assert (samplerate, channels, dtype) == (24000, 1, "float32")
        return self
    def start(self): pass
    def stop(self): pass
    def close(self): pass
    def write(self, x):
        if len(self.heard) == self.breaks: raise self.PortAudioError("Device unavailable")
        self.heard.append(x[:,0])

def test_stream_asks_for_what_it_needs_before_anything_is_loaded(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "_voice", None)
    say = ["synthesize", "--text", "Hi.", "--stream", "--output", tmp_path/"new/o.wav"]
    for there,words in ((None, "needs sounddevice|pip install \"harmonica-tts[play]\""),
        (Card(0), "no loudspeaker|querying device -1|leave it out")):
        monkeypatch.setitem(sys.modules, "sounddevice", there)
        refused(capsys, words, *say)
    (tmp_path/"lib").mkdir()
    (tmp_path/"lib/sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.syspath_prepend(tmp_path/"lib")
    refused(capsys, "PortAudio library not found|libportaudio2", *say)
    assert not (tmp_path/"new").exists()

@pytest.mark.parametrize("breaks", [99, 1])
def test_what_is_streamed_is_written_and_more_if_the_headset_is_switched_off(capsys, tmp_path, home, monkeypatch,
    breaks):
    card = Card(breaks=breaks)
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    code, out, err = ask(capsys, "synthesize", "--text", "One two three. Four five six. Seven.", "--stream", "--output",
        tmp_path/"o.wav", *models(home)[:-2])
    whole, heard = Clip.load(tmp_path/"o.wav").samples, np.concatenate(card.heard).clip(-1, 1)   # as a file holds it
    assert code == 0 and np.allclose(heard, whole[:len(heard)], atol=1e-4)
    assert (len(heard) == len(whole)) == (breaks == 99) == ("the loudspeaker is gone" not in err)

def test_marks_of_markdown_are_not_read():
    text = """# T

| mile | hour |
|:-----|-----:|
| 1    | ten  |

- [ ] todo
* [x] ***done***

See [one][a], \\*two\\*.[^1]

[a]: http://x.y
[^1]: A note.
"""
    assert script.paragraphs(text, markdown=True) == ["T", "mile, hour. 1, ten.", "todo. done.", "See one, *two*."]
    # numbers of a list are marks, with a full stop behind the line or without; a year is none
    assert script.paragraphs("1. Mix it\n2. Bake it!\n3) Eat", markdown=True) == ["Mix it. Bake it! Eat."]
    assert script.paragraphs("1984. It was cold.", markdown=True) == ["1984. It was cold."]
    assert len(script.chapters("Chapter One\nIt was.\n\nChapter Twelve: late\nIt went.\n\nChapters are long.")) == 2

def test_chapters_and_subtitles(capsys, tmp_path, home):
    (tmp_path/"book.md").write_text("# One\n\nIt was late.\n\nVery late.\n\n# Two\n\nShe slept.\n")
    code, out, err = ask(capsys, "synthesize", "--input", tmp_path/"book.md", "--output", tmp_path/"b/c.wav", "--split",
        "chapter", *models(home))
    assert code == 0 and sorted(p.name for p in (tmp_path/"b").iterdir()) == ["c-001.wav", "c-002.wav"], err
    assert len(script.chapters("Preface here.\nChapter 1\nIt was.\n\nCHAPTER II\nIt went.")) == 3
    for name in ("w.json", "w.srt"):
        code, out, err = ask(capsys, "synthesize", "--text", "It was late, and nobody came.", "--subtitles",
            tmp_path/name, "--output", tmp_path/"o.wav", *models(home))
        assert code == 0, err
    words = json.loads((tmp_path/"w.json").read_text())
    assert [w["word"] for w in words] == "It was late, and nobody came.".split()
    assert words[0]["start"] <= words[-1]["end"]
    assert (tmp_path/"w.srt").read_text().startswith("1\n00:00:0") and "-->" in (tmp_path/"w.srt").read_text()
    assert script.srt([("One", 3599.9994, 3600.5)]) == "1\n00:59:59,999 --> 01:00:00,500\nOne\n\n"

def test_a_voice_is_kept_with_the_consent_of_its_owner(capsys, tmp_path, home, monkeypatch):
    from harmonica import Voice
    mine, agreed = [home/"clips/7.wav", tmp_path/"me.voice"], ["--consent", "My own voice, for tests."]
    with monkeypatch.context() as m: # all of it is told before a model is loaded
        m.setattr(cli, "_voice", None)
        refused(capsys, "--consent is missing|whose voice", "keep", *mine)
        refused(capsys, "--consent has 4 letters", "keep", *mine, "--consent", " yes. ")
        refused(capsys, "me.wav|.voice", "keep", mine[0], tmp_path/"me.wav", *agreed)
        refused(capsys, "write to", "keep", mine[0], home/"m.jsonl"/"me.voice", *agreed)
    named = models(home)[:-2] # without --max-seconds
    refused(capsys, "no-such.wav", "keep", home/"no-such.wav", mine[1], *agreed, *named)
    assert not list(tmp_path.iterdir())
    code, out, err = ask(capsys, "keep", *mine, *agreed, *named)
    assert code == 0 and "me.voice" in out and [p.name for p in tmp_path.iterdir()] == ["me.voice"], err
    me = Voice.load(tmp_path/"me.voice", codec=str(home/"codec.safetensors"), ar=home/"ar.safetensors",
        nar=home/"nar.safetensors")
    assert me.prompt.consent == "My own voice, for tests." and me.prompt.agreed
    code, out, err = ask(capsys, "synthesize", *models(home), "--reference", tmp_path/"me.voice", "--text", "Hi there.",
        "--output", tmp_path/"hi.wav")
    assert code == 0 and "no consent" not in out+err and Clip.load(tmp_path/"hi.wav").seconds > 0

def test_first_day_mistakes(capsys, tmp_path, home, monkeypatch):
    refused(capsys, "--reference-text is empty", "synthesize", "--text", "Hi.", "--reference", home/"clips/1.wav",
        "--reference-text", " ")
    # what is not there can not be judged
    assert ask(capsys, "doctor", tmp_path/"none.wav")[0] == 2
    # why nothing was spoken is told, not only counted
    (tmp_path/"rows.jsonl").write_text('{"text": "Hi there.", "prompt": "none.wav"}\n')
    code, out, err = ask(capsys, "evaluate", "--testset", tmp_path/"rows.jsonl", "--output", tmp_path/"r.json",
        *models(home)[:-2])
    assert "1 of 1 could not be made" in err and "none.wav" in err, (code, out, err)
    # the folder one stands in has a name
    (tmp_path/"clips").mkdir()
    Clip.load(home/"clips/1.wav").save(tmp_path/"clips/1.wav")
    (tmp_path/"clips/1.txt").write_text("the sea is calm")
    monkeypatch.chdir(tmp_path/"clips")
    code, out, err = ask(capsys, "flatten", ".", "--stage", "codec", "--aligner", "none", "--device", "cpu")
    assert code == 0 and (tmp_path/"clips-sound").is_dir(), err

def test_a_chapter_without_words_is_left_out_and_named(capsys, tmp_path, home):
    text = "# One\n\nIt was late.\n\n\u4e00\u4e8c\n\n# \u4e09\n\n\u4e00\n\n# Two\n\nShe slept.\n"
    (tmp_path/"book.md").write_text(text, encoding="utf8")
    code, out, err = ask(capsys, "synthesize", "--input", tmp_path/"book.md", "--output", tmp_path/"c.wav", "--split",
        "chapter", *models(home))
    assert code == 0 and sorted(p.name for p in tmp_path.glob("*.wav")) == ["c-001.wav", "c-002.wav"], err
    assert "\u4e09" in err and "left out" in err

def test_no_watermark(capsys, tmp_path, home):
    from harmonica.watermark import weights_file
    if weights_file() is None: pytest.skip("resemble-perth is not installed")
    for name,how in (("a", []), ("b", ["--no-watermark"]), ("c", [])):
        assert ask(capsys, "synthesize", "--text", "Hi there.", "--output", tmp_path/f"{name}.wav", *how,
            *models(home))[0] == 0
    a, b, c = ((tmp_path/f"{n}.wav").read_bytes() for n in "abc")
    assert a == c != b

def test_packaged_voices_by_name(capsys, tmp_path, home):
    code, out, err = ask(capsys, "synthesize", "--list-voices")
    assert code == 0 and out.startswith("reader") and "ruth" in out and "CC0" in out
    code, out, err = ask(capsys, "synthesize", "--text", "Hi there.", "--voice", "ruth", "--output", tmp_path/"o.opus",
        *models(home))
    assert code == 0 and "real-time factor" in out, err

def test_version(capsys):
    import harmonica
    for f in COMMANDS: assert ask(capsys, f, "--version")[:2] == (0, f"harmonica {harmonica.__version__}\n")

@pytest.mark.parametrize("f", COMMANDS)
def test_help_needs_no_torch(f):
    r = subprocess.run([sys.executable, "-c",
        f"import sys; from harmonica.cli import {f}; {f}(['--help']); sys.exit('torch' in sys.modules)"],
        capture_output=True)
    assert r.returncode == 0

@pytest.mark.parametrize("sig,code", [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("wait", [0, 1.5])
def test_signals_end_with_a_line(tmp_path, home, sig, code, wait):
    import signal, time
    start = ("import sys; from harmonica.cli import synthesize\n"
        "print('up', flush=True); sys.exit(synthesize(sys.argv[1:]))")
    args = ["--text", "Hi there. "*2000, "--output", tmp_path/"o.wav", *models(home)[:-2]]
    p = subprocess.Popen([sys.executable, "-c", start, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True)
    assert p.stdout.readline() == "up\n"
    time.sleep(.2+wait)
    p.send_signal(getattr(signal, sig))
    out, err = p.communicate(timeout=60)
    assert p.returncode == code and err.count("\n") == 1 and "stopped" in err, err
    assert not list(tmp_path.iterdir())

def test_is_it_synthetic(capsys, tmp_path):
    from harmonica.watermark import Watermark, weights_file
    if weights_file() is None: pytest.skip("resemble-perth is not installed")
    Watermark().mark(Clip.load(packaged_voice()).to(24000)).save(tmp_path/"a.mp3")
    code, out, err = ask(capsys, "detect", tmp_path/"a.mp3")
    assert code == 0 and "marked as synthetic" in out and "synthetic speech by Harmonica" in out, err
    code, out, err = ask(capsys, "evaluate", "--is-synthetic", packaged_voice())
    assert code == 1 and "no mark" in out, err
    assert ask(capsys, "detect", packaged_voice())[:2] == (code, out) # what was an option is a command by now
    refused(capsys, "does not exist", "detect", tmp_path/"none.wav")

def test_two_systems_compared(capsys, tmp_path):
    for name,db in (("loud", 0), ("quiet", -30)):
        (tmp_path/name).mkdir()
        c = Clip.load(packaged_voice()).cut(0, 2)
        for i in range(3): Clip(c.samples*10**((db-i)/20), c.rate).save(tmp_path/name/f"{i}.wav")
        (tmp_path/f"{name}.jsonl").write_text("".join(json.dumps(dict(id=str(i), wav=f"{name}/{i}.wav",
            prompt=str(packaged_voice())))+"\n" for i in range(3)))
        assert ask(capsys, "evaluate", "--wavs", tmp_path/f"{name}.jsonl", "--scores", "", "--folder",
            tmp_path/f"{name}-judged", "--output", tmp_path/f"{name}-judged/results.json")[0] == 0
    code, out, err = ask(capsys, "compare", tmp_path/"loud-judged", tmp_path/"quiet-judged", "--folder",
        tmp_path/"both")
    assert code == 0 and "difference" in out, err
    assert {"report.html", "listen.html"} == {p.name for p in (tmp_path/"both").iterdir()}
    refused(capsys, "no results", "compare", tmp_path/"none", tmp_path/"quiet-judged", "--folder", tmp_path/"both")

def test_evaluate_mistakes(capsys, tmp_path):
    refused(capsys, "--testset", "evaluate")
    refused(capsys, "give one of", "evaluate", "--testset", "a.jsonl", "--wavs", "b.jsonl")
    refused(capsys, "is not there", "evaluate", "--testset", tmp_path/"no.jsonl", "--output", tmp_path/"r.json")
    (tmp_path/"x.txt").write_text("wav\n")
    refused(capsys, "is no test set", "evaluate", "--wavs", tmp_path/"x.txt", "--output", tmp_path/"r.json")
    (tmp_path/"list.jsonl").write_text('{"text": ["a"], "wav": "a.wav"}\n')
    refused(capsys, "--limit 0", "evaluate", "--wavs", tmp_path/"list.jsonl", "--limit", 0, "--output",
        tmp_path/"r.json")
    refused(capsys, "row 1: text is", "evaluate", "--wavs", tmp_path/"list.jsonl", "--output", tmp_path/"r.json",
        "--scores", "")
    (tmp_path/"bad.jsonl").write_text("{\n")
    refused(capsys, "harmonica-evaluate", "evaluate", "--testset", tmp_path/"bad.jsonl", "--output", tmp_path/"r.json")

def test_the_pipeline(capsys, tmp_path, home):
    "preprocess (twice, in shards), train, stop, resume, synthesize, evaluate"
    codes = tmp_path/"codes"
    make = ["--dataset", home/"m.jsonl", "--codec", home/"codec.safetensors", "--out", codes, "--device", "cpu"]
    for s in ("0/2", "1/2"): assert ask(capsys, "preprocess", *make, "--shard", s)[0] == 0
    code, out, _ = ask(capsys, "preprocess", *make)
    assert code == 0 and "0 made" in out
    go = ["--config", "smoke", f"data.cache_dir={codes}", "training.max_steps=2", "training.valid_every=0", "--device",
        "cpu", "--quiet"]
    for s in ("ar", "nar"):
        code, out, err = ask(capsys, "train", *go, "--stage", s, "--out", tmp_path/s)
        assert code == 0 and f"{s}.safetensors: 2 updates" in out, err
        # Voice keeps within what was trained
        assert {"prompt_seconds", "max_seconds"} <= set(model_meta(tmp_path/s/f"{s}.safetensors")["info"])
    refused(capsys, "--resume", "train", *go, "--out", tmp_path/"ar")
    code, out, err = ask(capsys, "train", "--resume", "--out", tmp_path/"ar", "training.max_steps=3", "--device", "cpu",
        "--quiet")
    assert code == 0 and "3 updates" in out, err
    wav = tmp_path/"o.wav"
    use = ["--ar-checkpoint", tmp_path/"ar", "--nar-checkpoint", tmp_path/"nar/last.pt", "--codec",
        home/"codec.safetensors", "--device", "cpu"]
    code, out, err = ask(capsys, "synthesize", "--text", "Hi there.", "--reference", packaged_voice(), "--output", wav,
        "--max-seconds", 1, *use)
    assert code == 0 and "real-time factor" in out and 0 < Clip.load(wav).seconds <= 1, err
    (tmp_path/"t.jsonl").write_text(json.dumps(dict(wav=str(wav), text="Hi there."))+"\n")
    code, out, err = ask(capsys, "evaluate", "--wavs", tmp_path/"t.jsonl", "--output", tmp_path/"r.json", "--scores",
        "")
    assert code == 0 and "failure_rates" in json.loads((tmp_path/"r.json").read_text()), err
    code, out, err = ask(capsys, "evaluate", "--wavs", tmp_path/"t.jsonl", "--codec", home/"codec.safetensors",
        "--output", tmp_path/"r.json", "--scores", "")
    assert code == 0 and "book 1:" in out and len(json.loads((tmp_path/"r.json").read_text())["books"]) > 1, err
    (tmp_path/"s.jsonl").write_text(json.dumps(dict(text="Hi.", prompt=str(packaged_voice())))+"\n")
    code, out, err = ask(capsys, "evaluate", "--testset", tmp_path/"s.jsonl", "--output", tmp_path/"r.json", "--scores",
        "", *use)
    assert code == 0 and json.loads((tmp_path/"r.json").read_text())["items"][0]["seconds"] > 0, err

def test_sound_laid_flat(capsys, tmp_path, home):
    code, out, err = ask(capsys, "flatten", home/"m.jsonl", "--stage", "codec", "--out", tmp_path/"sound")
    assert code == 0 and len((tmp_path/"sound/index.jsonl").read_text().splitlines()) == 6, err
    (tmp_path/"f").mkdir()
    Clip.load(home/"clips/0.wav").save(tmp_path/"f/a.wav")
    (tmp_path/"f/a.txt").write_text("the sea")
    code, out, err = ask(capsys, "flatten", "--dataset", "folder", "--root", tmp_path/"f", "--stage", "codec",
        "--out", tmp_path/"sound2")
    assert code == 0 and len((tmp_path/"sound2/index.jsonl").read_text().splitlines()) == 1, err

def test_sound_is_painted_and_a_decoder_learns_from_it(capsys, tmp_path, home):
    from harmonica.crops import AudioCrops
    me = Clip.load(packaged_voice())
    text = json.loads(packaged_voice().with_suffix(".json").read_text())["text"]
    me.save(tmp_path/"a.wav")
    me.save(tmp_path/"b.wav")
    (tmp_path/"m.jsonl").write_text("".join(json.dumps(dict(audio=f"{n}.wav", text=t, speaker="reader"))+"\n"
        for n,t in (("a", text), ("b", text), ("b", "something else"))))
    code, out, err = ask(capsys, "flatten", tmp_path/"m.jsonl", "--stage", "decoder", "--out", tmp_path/"painted")
    assert code == 0 and "3 utterances laid flat" in out, err
    rows = [json.loads(l) for l in open(tmp_path/"painted/index.jsonl")]
    # no prompt for the first, another text for the third
    assert ["painted" in r for r in rows] == [False, True, False]
    crops = AudioCrops(tmp_path/"painted", 6, 1.28)
    b = next(iter(crops))
    whole = b.nar_latents.isnan().all((1,2))
    part = b.nar_latents.isnan().any((1,2))
    assert b.nar_latents.shape == (6, 64, 64) and torch.equal(whole, part) and not whole.all()
    save_model(tmp_path/"bold.safetensors", load_model(packaged_weights("nar"), kind="nar"), bits=8, guidance=2.)
    assert ask(capsys, "flatten", tmp_path/"m.jsonl", "--stage", "decoder", "--nar", tmp_path/"bold.safetensors",
        "--out", tmp_path/"bold")[0] == 0
    # as bold as it will be when it speaks
    assert (tmp_path/"bold/painted.f16").read_bytes() != (tmp_path/"painted/painted.f16").read_bytes()
    code, out, err = ask(capsys, "train", "--config", "micro", "--stage", "decoder", "--init",
        packaged_weights("codec"), f"data.audio_dir={tmp_path}/painted", "training.batch_size=2",
        "training.max_steps=2", "training.log_every=1", "training.precision=bf16", "--out", tmp_path/"run", "--device",
        "cpu", "--quiet")
    assert code == 0, err
    log = [json.loads(l) for l in open(tmp_path/"run/log.jsonl")]
    assert sum("critic_loss" in r for r in log) == 2
    assert all(np.isfinite([r["critic_loss"], r["critic_grad_norm"]]).all() for r in log if "critic_loss" in r)
    refused(capsys, "another codec", "flatten", tmp_path/"m.jsonl", "--stage", "decoder", "--nar",
        home/"nar.safetensors", "--out", tmp_path/"x")

def test_ctrl_c(capsys, monkeypatch, tmp_path):
    def stopped(*a, **k):
        (tmp_path/"r/last.pt").touch()
        raise KeyboardInterrupt
    monkeypatch.setattr(recipes, "train", stopped)
    code, out, err = ask(capsys, "train", "--config", "smoke", "--out", tmp_path/"r", "--device", "cpu")
    assert code == 130 and "--resume" in err and err.count("\n") == 1

def test_doctor(capsys, tmp_path):
    code, out, err = ask(capsys, "doctor", packaged_voice())
    assert code == 0 and out, err
    assert ask(capsys, "evaluate", "--doctor", packaged_voice()) == (code, out, err)
    Clip.load(packaged_voice()).cut(0, .3).save(tmp_path/"short.wav")
    code, out, err = ask(capsys, "doctor", tmp_path/"short.wav")
    assert code == 1 and out.startswith("! "), out
    refused(capsys, "does not exist", "doctor", tmp_path/"none.wav")   # which is no patient
    refused(capsys, "is a folder", "doctor", tmp_path)

def test_words_said_as_the_user_wishes(capsys, tmp_path):
    "In the command, and in a config; a file of words that is wrong says so before anything is spoken"
    (tmp_path/"words.txt").write_text("# names\nSiobhan = ʃəvˈɔn\nSQL\tsequel\n", encoding="utf8")
    (tmp_path/"mine.yaml").write_text(f"base: micro\ninference:\n  lexicon: {tmp_path/'words.txt'}\n")
    say = ["--text", "Siobhan likes SQL.", "--phonemes", "--output", tmp_path/"o.wav", "--max-seconds", .2, "--device",
        "cpu"]
    for how in (["--lexicon", tmp_path/"words.txt"], ["--config", tmp_path/"mine.yaml"]):
        code, out, err = ask(capsys, "synthesize", *say, *how)
        assert code == 0 and "[[ʃəvˈɔn]] likes sequel.\n  ʃəvˈɔn lˈIks sˈikwəl." in out, err
    refused(capsys, "no.txt", "synthesize", *say, "--lexicon", tmp_path/"no.txt")
    (tmp_path/"bad.txt").write_text("Siobhan\n")
    refused(capsys, "line 1", "synthesize", *say, "--lexicon", tmp_path/"bad.txt")
    (tmp_path/"worse.txt").write_text("Siobhan = [[ˈx]]\n")
    refused(capsys, "the signs are", "synthesize", *say, "--lexicon", tmp_path/"worse.txt")
