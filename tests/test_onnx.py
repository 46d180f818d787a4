"The voice as graphs says what torch says: step by step, part by part, and aloud"
import importlib.util, json, re, subprocess, sys
from functools import lru_cache
from pathlib import Path
import numpy as np, pytest, torch
from harmonica import Clip, Voice
from harmonica.batch import Batch
from harmonica.checkpoint import packaged_weights
from harmonica.cli import export
from harmonica.export import draw_graph, export_onnx, fewest_bytes
from harmonica.infer import LEAD, TAIL, Sampling, sound_fault
from harmonica.sample import probabilities, sample
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

EXAMPLE = Path(__file__).resolve().parents[1]/"examples/speak_onnx.py"
spec = importlib.util.spec_from_file_location("speak_onnx", EXAMPLE)
speak = importlib.util.module_from_spec(spec)
spec.loader.exec_module(speak)
SENTENCES = "Good morning.", "She put down her book, and listened to the wind outside."

class Dice:
    "numpy's interface, torch's numbers"
    def __init__(self, seed): self.g = torch.Generator().manual_seed(seed)
    def random(self): return float(torch.rand(1, 1, generator=self.g))

@pytest.fixture(scope="module")
def voice():
    v = Voice.load(device="cpu").ready()
    v.int8 = v.half = False
    return v

@pytest.fixture(scope="module")
def folder(voice, tmp_path_factory): return export_onnx(voice, tmp_path_factory.mktemp("onnx")/"voice")

@pytest.fixture(scope="module")
def speaker(folder): return speak.Speaker(folder)

def ids(voice, text):
    sentence, = voice.pieces(text)
    return sentence, voice.request(sentence)

@pytest.mark.parametrize("text", ["Chapter One", "Hello. Really? And on", "and so he went on without a stop "*24,
    "One\n\nIt was late. Nobody spoke", "It was late. "*200])
def test_the_example_cuts_and_ends_sentences_as_a_voice_does(text):
    v = Voice.load(device="cpu")
    about = dict(v.tokenizer.to_dict(), most_chars=max(map(len, v.pieces("on and on "*99))))
    said = speak.tokens(text, about)
    assert [s["text"] for s in said] == v.pieces(text)
    assert [s["ids"] for s in said] == [v.tokenizer.encode(s, normalized=True, edges=True) for s in v.pieces(text)]

# -- the graphs, each at two lengths

@pytest.mark.parametrize("text,frames", [(SENTENCES[0], 101), (SENTENCES[1], 250)])
@torch.no_grad()
def test_scores_of_every_step(voice, speaker, text, frames):
    "Within 2e-4 of torch's, the memory growing; prompts of whole steps and of half a step more"
    request = Batch.of([ids(voice, text)[1].text[0]], [voice.prompt.codes[:,:frames]])
    context = voice.ar.encode(request, 1.1)
    low, high = voice.ar.frame_bounds(context)
    scores, encoded, durations, bounds, *past = speaker.run("ar_read", request.text.numpy(), request.prompt.numpy(),
        np.float32(1.1))
    assert bounds.tolist() == [int(low), int(high)]
    assert np.abs(durations-context.durations.numpy()).max() < 1e-3
    g, steps = torch.Generator().manual_seed(0), 12
    ask = voice.ar.output_steps(context, steps)
    off = [np.abs(scores-next(ask).numpy()).max()]
    for t in range(steps-1):
        codes = torch.randint(1024, (1, voice.ar.group), generator=g)
        scores, *past = speaker.run("ar_step", codes.numpy(), np.int64(t), encoded, durations, *past)
        off.append(np.abs(scores-ask.send(codes).numpy()).max())
    assert max(off) < 2e-4, off

@pytest.mark.parametrize("T,P,L", [(33, 47, 9), (120, 250, 41)])
@torch.no_grad()
def test_a_look_of_the_flow(voice, speaker, T, P, L):
    "One Euler step as the voice takes it, within 2e-3 of torch's"
    guidance = voice.painting["guidance"]
    g = torch.Generator().manual_seed(T)
    c = voice.nar.cfg
    text, durations = torch.randint(1, c.vocab_size, (1, L), generator=g), torch.rand(1, L, generator=g)*2*T/L
    book0, prompt = torch.rand(1, T, c.n_bins, generator=g).softmax(-1), voice.prompt.latents[None,:P]
    x = torch.randn(1, T, c.latent_dim, generator=g)
    batch = Batch.of(text, None, book0.mT, durations)
    want = x + .3*voice.nar.guided(batch, guidance, [voice.nar.hear(prompt[0])])(x, torch.tensor([.4]))
    read = [v.numpy() for v in (text, durations, book0, prompt)]
    frames, who, *past = speaker.run("flow_read", *read)
    how = np.float32([.4]), np.float32([.3]), *[np.float32(guidance)]*(guidance != 1)   # time, step, guidance
    got, = speaker.run("flow_step", x.numpy(), *how, frames, who, *past)
    assert np.abs(got-want.numpy()).max() < 2e-3

@pytest.mark.parametrize("T", [41, 133])
@torch.no_grad()
def test_the_sound_of_latents(voice, speaker, T):
    "Within a hundredth of the loudest sample: only the phase is summed in another way"
    z = voice.prompt.latents[None,:T]
    want, (got,) = voice.vocoder.vocode(z)[0].numpy(), speaker.run("vocoder", z.numpy())
    assert got.shape == (1, T*480) and np.abs(got[0]-want).max() < .01*np.abs(want).max()
    assert np.corrcoef(got[0], want)[0,1] > .9999

# -- sampling

HOW = [dict(temperature=0), dict(temperature=.2), dict(temperature=.8, top_k=0, top_p=1),
    dict(temperature=1., top_k=5, top_p=1), dict(temperature=1.3, top_k=0, top_p=.6), dict(temperature=.8, top_p=0.)]

@pytest.mark.parametrize("how", HOW, ids=str)
def test_numpy_draws_from_the_same_distribution(how):
    s = torch.randn(20, 300, generator=torch.Generator().manual_seed(1))*3
    s[:,7] = float("-inf")
    how = {"top_k": 50, "top_p": .95, **how}
    for row in s:
        assert np.allclose(speak.probabilities(row.numpy(), **how), probabilities(row[None], **how)[0].numpy(),
            atol=1e-6)

@pytest.mark.parametrize("ras", [0, 4])
def test_the_same_dice_choose_the_same(ras):
    s = torch.randn(60, 20, generator=torch.Generator().manual_seed(2))*2
    s[:,3] += 4
    ours, theirs, numpys, history = [], [], Dice(5), []
    g = torch.Generator().manual_seed(5)
    for row in s:
        h = torch.tensor([history[-ras:]], dtype=torch.long) if ras else None
        theirs.append(int(sample(row[None], history=h, ras_window=ras or 10, generator=g)))
        ours.append(speak.sample(row.numpy(), history, numpys, ras_window=ras))
        history.append(ours[-1])
    assert ours == theirs and len(set(ours)) > 3

# -- speech

@pytest.mark.parametrize("text", SENTENCES)
def test_greedy_speech_is_torchs(voice, speaker, text):
    "The same codes, all of them, and the same sound from the same noise"
    _, request = ids(voice, text)
    book0, durations = voice.predict_coarse(request, Sampling(temperature=0.), torch.Generator(), soft=True)
    want = voice.decode(voice.predict_fine(request, book0, durations, seed=3)[1]).samples
    row, n = request.text[0].tolist(), voice.codec.frames(voice.max_seconds)+LEAD+TAIL
    ours, soft, _ = speaker.coarse(row, None, temperature=0.)
    assert ours.tolist() == book0.argmax(-1).tolist() and np.abs(soft-book0.numpy()).max() < 1e-3
    noise = torch.randn(n, voice.nar.cfg.latent_dim, generator=torch.Generator().manual_seed(3)).numpy()
    got = speaker.sentence(row, None, noise, temperature=0.)
    assert got.shape == want.shape and np.corrcoef(got, want)[0,1] > .999

def test_drawn_speech_is_torchs_with_the_same_dice(voice, speaker):
    _, request = ids(voice, SENTENCES[1])
    codes, _ = voice.predict_coarse(request, Sampling(), torch.Generator().manual_seed(4))
    ours, *_ = speaker.coarse(request.text[0].tolist(), Dice(4), temperature=voice.temperature)
    assert ours.tolist() == codes.tolist()

def alone(folder, *argv, without=("torch",)):
    "The example in a process of its own, where some packages can't be imported"
    code = f"""
import runpy, sys
class Nothing:
    def find_spec(self, name, *more):
        if name.split(".")[0] in {without!r}: raise ImportError(f"{{name}} was wanted")
sys.meta_path.insert(0, Nothing())
sys.argv = {["speak_onnx.py", str(folder), *map(str, argv)]!r}
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

def test_it_speaks_where_there_is_no_torch(folder, tmp_path):
    "By text without torch; by ids with neither torch nor Harmonica, soundfile, scipy: the same file"
    text = "Good morning. It was late."
    r = alone(folder, tmp_path/"a.wav", "--text", text, "--save-tokens", tmp_path/"t.json", "--seed", 3)
    assert r.returncode == 0, r.stderr
    clip = Clip.load(tmp_path/"a.wav")
    assert clip.rate == 24000 and sound_fault(clip, text) is None and 1 < clip.seconds < 5
    assert [s["text"].strip() for s in json.loads((tmp_path/"t.json").read_text())] == ["Good morning.", "It was late."]
    r = alone(folder, tmp_path/"b.wav", "--tokens", tmp_path/"t.json", "--seed", 3,
        without=("torch", "harmonica", "soundfile", "scipy", "fastcore"))
    assert r.returncode == 0, r.stderr
    assert (tmp_path/"b.wav").read_bytes() == (tmp_path/"a.wav").read_bytes()

def test_another_voice_by_its_file(voice, folder, tmp_path):
    "A voice saved by torch is heard; one of other models is refused, in one line"
    ruth = voice.like("ruth")
    ruth.save(tmp_path/"ruth.voice")
    got = speak.Speaker(folder, tmp_path/"ruth.voice")
    assert got.prompt[0].tolist() == ruth.prompt.codes.tolist()
    assert np.abs(got.latents[0]-ruth.prompt.latents.numpy()).max() < 1e-6
    strange = (tmp_path/"ruth.voice").read_bytes().replace(voice.codec.hash.encode(), b"0"*len(voice.codec.hash))
    (tmp_path/"strange.voice").write_bytes(strange)
    (tmp_path/"none.voice").write_bytes(b"nothing of the kind")
    for name,why in (("strange", "other models"), ("none", "Voice.save")):
        r = alone(folder, tmp_path/"o.wav", "--text", "Hi.", "--voice", tmp_path/f"{name}.voice")
        assert r.returncode == 1 and why in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr
    r = alone(tmp_path, tmp_path/"o.wav", "--text", "Hi.")
    assert r.returncode == 1 and "harmonica-export" in r.stderr and not (tmp_path/"o.wav").exists()

# -- the folder, and how it is made

def test_nothing_is_lost_and_nothing_stands_twice(folder):
    "Valid graphs, hardly larger than the packaged weights of the same models"
    for p in folder.glob("*.onnx"): onnx.checker.check_model(str(p))
    packaged = sum(packaged_weights(k).stat().st_size for k in ("ar", "flow", "mel"))
    assert sum(p.stat().st_size for p in folder.iterdir()) < 1.12*packaged

@pytest.mark.parametrize("shape", [(7, 33), (33, 7), (3, 5, 9), (40,)])
def test_fewest_bytes_give_back_every_bit(shape):
    g = torch.Generator().manual_seed(0)
    for w in (torch.randn(shape, generator=g), torch.randn(shape, generator=g).half().float(), torch.zeros(shape)):
        parts, turned = fewest_bytes(w)
        made = parts[0].float() if len(parts) == 1 else parts[0].float()*parts[1].float()
        assert torch.equal(made.mT if turned else made, w)

@lru_cache
def table(): return torch.from_numpy(np.arange(3, dtype=np.float32))

class Tabled(torch.nn.Module):
    def forward(self, x): return x*table()

def test_tables_are_not_left_without_numbers():
    "What is made at first use and kept must be usable after drawing"
    draw_graph(Tabled(), dict(x=(torch.ones(4, 3), 0)), ["y"])
    assert table().numpy().tolist() == [0, 1, 2]

def test_torch_speaks_as_before(voice, folder):
    assert sound_fault(voice.say("Good morning.", watermark=False), "Good morning.") is None

def test_refusals(voice, capsys, tmp_path, monkeypatch):
    from harmonica.checkpoint import load_model
    with pytest.raises(ValueError, match="NAR over books"):
        export_onnx(Voice(voice.codec, voice.ar, load_model(packaged_weights("nar")), prompt=voice.prompt), tmp_path)
    (tmp_path/"file").write_text("")
    for argv,why in (([tmp_path/"x", "--voice", "nobody"], "nobody"),
        ([tmp_path/"x", "--voice", "ruth", "--reference", "a.wav"], "--voice and --reference"),
        ([tmp_path/"file"/"x"], "can't be written"), ([], "folder")):
        assert export([str(a) for a in argv]) == 2
        err = capsys.readouterr().err
        assert why in err and len(err.strip().splitlines()) == 1, err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=re.escape("harmonica-tts[onnx]")): export_onnx(voice, tmp_path/"x")
    assert not (tmp_path/"x").exists()
