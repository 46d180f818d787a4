"Configs are checked to the last key; a run can be stopped, resumed, exported and used again"
import dataclasses, json, shutil
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from harmonica.ar import AR, ARConfig
from harmonica.codec import Clip, Codec, register_codec
from harmonica.checkpoint import model_meta, packaged_weights
from harmonica.data import Utterance, prepare
from harmonica.flow import FlowNAR
from harmonica.nar import NAR
from harmonica.config import STAGES, configs, load_config, save_config
from harmonica.scale import OWNER
from harmonica.recipes import (
    ensure_codes, load_trained, start_from, supply, train, train_ar, train_codec, train_nar)

class Hum(Codec):
    "Two books: loudness of a frame, and what the first book missed"
    hash = "00000000hum0"
    def __init__(self, name="hum"): super().__init__(name, 24000, 50, 2, 16)
    def to_codes(self, x):
        e = x[:,:x.shape[1]//480*480].unflatten(1, (-1, 480)).pow(2).mean(-1).sqrt().clamp(0, .499)*2*16
        return torch.stack([e, e%1*16], 1).long()

def hums(n=24, speakers=3):
    rng = np.random.default_rng(0)
    for i in range(n):
        text = " ".join(rng.choice("the sea is calm tonight".split(), 4))
        N = len(text)*1200
        swell = np.interp(np.arange(N), np.linspace(0, N, 2*len(text)), rng.uniform(.2, 1, 2*len(text)))
        yield Utterance(Clip((.2*swell*np.sin(np.arange(N)*(.02+.01*(i%speakers)))).astype(np.float32)), text,
            f"s{i%speakers}", split="valid" if i%8==7 else "train", id=f"u{i}")

@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    out = tmp_path_factory.mktemp("c")/"codes"
    prepare(hums(), Hum(), out, progress=False)
    return out

def smoke(codes, *over):
    return load_config("smoke", [f"data.cache_dir={codes}", "training.max_steps=6", "training.valid_every=3", *over])
def same(a, b): return all(torch.equal(x, y) for x,y in zip(a.state_dict().values(), b.state_dict().values()))

# -- configs

def test_seed_keys_and_defaults():
    c = load_config("config")
    assert (c.model.ar.d_model, c.model.ar.n_heads, c.model.ar.n_layers, c.model.ar.length_control_mode,
        c.model.ar.duration_hidden_dim) == (512, 8, 12, "duration_predictor", 256)
    t = c.training
    assert (t.batch_size, t.grad_accum_steps, t.lr, t.max_steps, t.scheduled_sampling) == (8, 4, 1e-4, 100000, True)
    assert (t.teacher_forcing_schedule, t.teacher_forcing_start, t.teacher_forcing_end,
        t.duration_loss_weight) == ("linear", 1., .3, .1)
    assert (c.inference.temperature, c.inference.top_k, c.inference.top_p) == (.8, 50, .95)
    assert {"dataset", "hf_dataset", "cache_dir"} <= {f.name for f in dataclasses.fields(c.data)}
    # the AR's own was overruled by it, always; configs of older runs still name it
    with pytest.warns(UserWarning, match="set training.duration_loss_weight"):
        older = load_config("config", ["model.ar.duration_loss_weight=.5"])
    assert older == c and "duration_loss_weight" not in dataclasses.asdict(older.model.ar)

def test_every_packaged_config_loads_for_every_stage():
    assert {"config", "baseline", "vctk_stream", "libritts", "micro", "smoke"} <= set(configs())
    for n in configs():
        for s in STAGES: load_config(n).for_stage(s)

def test_one_dial(tmp_path):
    "A word sets AR, NAR and flow; what is named beside it counts, and a saved config means the same again"
    count = lambda size: [sum(p.numel() for p in M(c).parameters()) for M,c in zip((AR, NAR, FlowNAR), parts(size))]
    def parts(size):
        m = load_config("config", [f"model.size={size}"]).model
        return m.ar, m.nar, m.flow
    with torch.device("meta"): sizes = [count(s) for s in ("tiny", "micro", "small", "base")]
    assert all(np.all(np.diff(kind) > 0) for kind in zip(*sizes))
    for kind,c in zip(("ar", "nar", "flow"), parts("micro")):
        made = model_meta(packaged_weights(kind))["config"]
        assert {k: made[k] for k in c.sizes["tiny"]} == {k: getattr(c, k) for k in c.sizes["tiny"]}, kind
    c = load_config("micro", ["model.size=small", "model.ar.n_layers=3"])
    assert (c.model.ar.d_model, c.model.ar.n_layers, c.model.nar.n_layers) == (384, 3, 6)
    save_config(c, tmp_path/"c.yaml")
    assert load_config(tmp_path/"c.yaml").model == c.model
    with pytest.raises(ValueError, match="'model.size' is 'huge': give one of 'tiny'"):
        load_config("config", ["model.size=huge"])
    with pytest.raises(ValueError, match="size 'huge' is unknown: choose one of tiny"): ARConfig.sized("huge")
    assert ARConfig.sized("micro", n_layers=2) == ARConfig(d_model=256, n_heads=4, n_layers=2, d_ff=768,
        speaker_dim=128)

def test_full_size():
    m = load_config("baseline").model
    with torch.device("meta"): ar, nar = AR(m.ar), NAR(m.nar)
    count = lambda m: sum(p.numel() for p in m.parameters())/1e6
    assert 47.5 < count(ar) < 52.5 and 28.5 < count(nar) < 31.5

@pytest.mark.parametrize("over,words", [("training.lrr=1",
    "unknown config key 'training.lrr' .did you mean 'lr'.*batch_size"),
    ("trainin.lr=1", "unknown config key 'trainin'.*'training'.*model, training"),
    ("model.ar.width=3", "'model.ar.width'.*valid keys of model.ar are vocab_size"),
    ("model.ar.n_layers=many", "'model.ar.n_layers' is 'many': give an int"), ("model.ar.n_layers=2.5", "give an int"),
    ("training.lr=nan", "give a float"), ("training.lr=[1]", "give a float"),
    ("training.scheduled_sampling=3", "give a bool"), ("training.lr=", "give a float"),
    ("data.dataset=true", "give a str"), ("training=3", "section 'training.*mapping"), ("model=x", "mapping"),
    ("training.lr", "write section.key=value"), ("=3", "write section.key=value"), ("training.lr={", "not YAML"),
    ("stages.vocoder.lr=1", "stages.vocoder"), ("stages.ar.lrr=1", "stages.ar.lrr.*did you mean 'lr'"),
    ("stages.ar.lr=x", "'stages.ar.lr' is 'x': give a float"),])
def test_bad_overrides(over, words):
    with pytest.raises(ValueError, match=words) as e: load_config("baseline", [over])
    assert "\n" not in str(e.value)

def test_values_are_typed():
    c = load_config("baseline", ["training.lr=3e-4", "training.max_steps=1e3", "training.clip=1",
        "data.cache_dir=[a, b]", "data.cache_dir=a", "data.prompt_seconds=[1, 2]", "data.codec=null",
        "training.scheduled_sampling=off"])
    assert (c.training.lr, c.training.max_steps, c.training.clip, c.data.cache_dir, c.data.prompt_seconds,
        c.data.codec) == (3e-4, 1000, 1., "a", (1, 2), None)
    assert type(c.training.max_steps) is int and type(c.training.clip) is float
    assert c.training.scheduled_sampling is False

def test_stage_lays_over_training_and_an_override_beats_it(tmp_path):
    (tmp_path/"a.yaml").write_text("base: config\nstages:\n  nar: {lr: 5e-4, max_steps: 7}\n")
    c = load_config(tmp_path/"a.yaml")
    assert c.for_stage("nar").training.max_steps == 7 and c.for_stage("nar").training.lr == 5e-4
    assert c.for_stage("ar").training.max_steps == 100000
    assert load_config(tmp_path/"a.yaml", ["training.max_steps=9"]).for_stage("nar").training.max_steps == 9
    assert load_config(tmp_path/"a.yaml", ["stages.nar.max_steps=8"]).for_stage("nar").training.max_steps == 8
    with pytest.raises(ValueError, match="unknown stage 'x'"): c.for_stage("x")

def test_bases_and_bad_files(tmp_path):
    (tmp_path/"a.yaml").write_text("base: micro\ntraining: {lr: 0.5}\n")
    (tmp_path/"b.yaml").write_text("base: a\n")
    (tmp_path/"c.yaml").write_text("base: c\n")
    (tmp_path/"d.yaml").write_text("a: [1\n")
    (tmp_path/"e.yaml").write_text("- 1\n")
    (tmp_path/"f.yaml").write_text("base: nothing\n")
    (tmp_path/"g.yaml").write_text("")
    assert load_config(tmp_path/"b.yaml").training.lr == .5 and load_config(tmp_path/"b.yaml").model.ar.group == 2
    assert load_config(tmp_path/"g.yaml").training.lr == 1e-4
    for n,words in dict(c="own base", d="not YAML", e="mapping", f="no config 'nothing'", h="no config").items():
        with pytest.raises(ValueError, match=words) as e: load_config(tmp_path/f"{n}.yaml")
        assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="no config 'mikro': give one of baseline"): load_config("mikro")

def test_a_saved_config_is_the_same_config(tmp_path):
    c = load_config("micro", ["training.lr=1e-5"])
    save_config(c, tmp_path/"c.yaml")
    assert load_config(tmp_path/"c.yaml") == c

# -- runs

def test_ar_stops_resumes_and_exports(codes, tmp_path):
    whole = train_ar(smoke(codes), tmp_path/"whole", "cpu", progress=False)
    class Stop:
        def after_step(self, t):
            if t.step==4: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train_ar(smoke(codes), tmp_path/"cut", "cpu", callbacks=[Stop()], progress=False)
    cut = train_ar(load_config(tmp_path/"cut/config.yaml"), tmp_path/"cut", "cpu", resume=True, progress=False)
    assert cut.step == 6 and same(cut.model, whole.model) and same(cut.ema, whole.ema)
    info = model_meta(tmp_path/"cut/ar.safetensors")["info"]
    assert info["codec"]=="hum" and info["codec_hash"]==Hum.hash and info["steps"]==6
    assert info["tokenizer"]["kind"]=="letters" and info["seed"]==0
    assert info["audio_seconds"] > 0 and "wall_seconds" in info and "valid_loss" in info
    ar = load_trained(tmp_path/"cut", "ar")
    assert ar.cfg.vocab_size==supply(smoke(codes)).tokenizer.vocab_size and ar.cfg.n_bins==16 and ar.cfg.n_q==2
    assert ar.cfg.frame_rate==50
    pt = load_trained(tmp_path/"cut/last.pt", "ar")
    assert pt.info==ar.info
    assert all(torch.allclose(a, b, atol=2e-3) for a,b in zip(pt.state_dict().values(), ar.state_dict().values()))
    with pytest.raises(ValueError, match="kind 'ar', wanted 'nar or flow'"): load_trained(tmp_path/"cut/last.pt", "nar")
    with pytest.raises(ValueError, match="holds a run already.*--resume"): train_ar(smoke(codes), tmp_path/"cut", "cpu")
    # and its weights can start another run
    more = train_ar(smoke(codes, "training.lr=0.0", "training.weight_decay=0.0", "training.max_steps=1"),
        tmp_path/"more", "cpu", init=str(tmp_path/"cut/ar.safetensors"), progress=False)
    assert same(more.model, ar)
    with pytest.raises(ValueError, match="another size"):
        train_ar(smoke(codes, "model.ar.n_layers=1"), tmp_path/"other", "cpu", init=str(tmp_path/"cut/ar.safetensors"))
    rows = [json.loads(l) for l in (tmp_path/"whole/log.jsonl").read_text().splitlines()]
    assert any("alignment" in r for r in rows) and any("grad/block 0" in r for r in rows)
    assert (tmp_path/"whole/page.html").exists()

def test_nar_trains_and_exports(codes, tmp_path):
    t = train("nar", smoke(codes), tmp_path/"nar", "cpu", progress=False)
    assert model_meta(tmp_path/"nar/nar.safetensors")["info"]["codec"]=="hum" and t.step==6
    rows = [json.loads(l) for l in (tmp_path/"nar/log.jsonl").read_text().splitlines()]
    assert any("loss_1" in r for r in rows)
    assert all("loss_1" not in k for r in rows for k in r if k.startswith("valid_"))
    with pytest.raises(ValueError, match="unknown stage 'vocoder'"): train("vocoder", smoke(codes), tmp_path/"x")

def test_a_nar_says_how_many_books_to_fill(tmp_path, codes):
    for n,wanted in ((0, None), (2, 2)):
        train_nar(smoke(codes, f"inference.n_books={n}", "training.max_steps=1"), tmp_path/f"{n}", "cpu",
            progress=False)
        assert model_meta(tmp_path/f"{n}/nar.safetensors")["info"].get("n_books") == wanted
    assert load_config("micro").inference.n_books == 4

def test_codec_trains_and_its_books_start_the_embeddings(tmp_path):
    rng = np.random.default_rng(0)
    hum = lambda: Clip((.1*np.sin(np.arange(24000)*rng.uniform(.02, .3))).astype(np.float32))
    rows = [dict(audio=hum(), text="hm", speaker="a", source="made") for i in range(4)]
    from harmonica.crops import prepare_audio
    prepare_audio(rows, tmp_path/"sound", progress=False)
    cfg = load_config("smoke", [f"data.audio_dir={tmp_path}/sound", f"data.audio_valid_dir={tmp_path}/sound",
        "training.max_steps=2", "training.valid_every=2"])
    train_codec(cfg, tmp_path/"codec", "cpu", progress=False)
    path = tmp_path/"codec/codec.safetensors"
    prepare(hums(8), __import__("harmonica").load_codec(str(path)), tmp_path/"codes", progress=False)
    s = smoke(tmp_path/"codes", f"data.codec={path}", "training.max_steps=1")
    t = train_ar(s, tmp_path/"ar", "cpu", progress=False)
    assert start_from(t.model, None, supply(s).codec)=="random weights, 2 code embeddings from the codec's books"
    assert start_from(t.model, None)=="random weights"
    with pytest.raises(ValueError, match="data.audio_dir is not set"):
        train_codec(load_config("smoke"), tmp_path/"y", "cpu")
    with pytest.raises(ValueError, match="hold|made by codec"):
        train_ar(smoke(tmp_path/"codes", "data.codec=encodec_24khz"), tmp_path/"z", "cpu")

def test_a_decoder_learns_alone_and_an_aligner_learns_phones(tmp_path):
    from harmonica import load_codec
    from harmonica.crops import prepare_audio
    train_aligner, train_decoder = (partial(train, stage) for stage in ("aligner", "decoder"))
    rng = np.random.default_rng(0)
    hum = lambda: Clip((.1*np.sin(np.arange(24000)*rng.uniform(.02, .1))).astype(np.float32))
    rows = [dict(audio=hum(), text="hm", speaker="a", phonemes="hm", durations="10 10 10 10") for i in range(3)]
    prepare_audio(rows, tmp_path/"sound", progress=False)
    small = [f"data.audio_dir={tmp_path}/sound", "training.max_steps=2", "training.valid_every=0", "model.codec.n_q=2",
        "model.codec.n_bins=16", "model.codec.code_dim=8", "model.codec.enc_dim=16", "model.codec.enc_layers=1",
        "model.codec.dec_dim=16", "model.codec.dec_layers=1"]
    train_codec(load_config("smoke", small), tmp_path/"codec", "cpu", progress=False)
    first = tmp_path/"codec/codec.safetensors"
    from harmonica.checkpoint import load_model, save_model
    zero = load_model(first, kind="codec")
    zero.in_proj.weight.data[0,0] = -0.
    save_model(first, zero) # not the bytes of 0: the fingerprint sees it
    train_decoder(load_config("smoke", small), tmp_path/"decoder", "cpu", init=first, progress=False)
    a, b = load_codec(str(first)), load_codec(str(tmp_path/"decoder/decoder.safetensors"))
    x = rows[0]["audio"]
    assert a.hash == b.hash and torch.equal(a.encode(x), b.encode(x))
    assert not torch.equal(a.spec_head[1].weight, b.spec_head[1].weight)
    whole = train_decoder(load_config("smoke", [*small, "training.max_steps=4"]), tmp_path/"decoder", "cpu",
        resume=True, progress=False)
    assert whole.step == 4 and any("critic_loss" in l for l in open(tmp_path/"decoder/log.jsonl"))
    with pytest.raises(ValueError, match="--init"): train_decoder(load_config("smoke", small), tmp_path/"x", "cpu")
    play = train_codec(load_config("smoke", [*small, "training.critics=true", "training.lr=1e-6"]), tmp_path/"play",
        "cpu", init=first, progress=False)
    log = [json.loads(l) for l in open(tmp_path/"play/log.jsonl")]
    assert any(np.isfinite(l.get("critic_loss", np.nan)) and "phone" in l for l in log)
    assert not torch.equal(play.model.in_proj.weight, a.in_proj.weight)
    # books that go on from a file go on from what they were
    assert (play.model.rvq.books-a.rvq.books).norm() < .3*a.rvq.books.norm()
    on = train_decoder(load_config("smoke", [*small, f"training.critics={tmp_path}/play/last.pt", "training.lr=1e-9"]),
        tmp_path/"on", "cpu", init=first, progress=False)
    # the critics of that game go on
    for a,b in zip(on.others["critic"].parameters(), play.others["critic"].parameters()):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="holds no critics"):
        train_decoder(load_config("smoke", [*small, f"training.critics={tmp_path}/codec/last.pt"]), tmp_path/"none",
            "cpu", init=first)
    t = train_aligner(load_config("smoke", small), tmp_path/"aligner", "cpu", progress=False)
    # in half precision, as on a GPU; the decoder's turn is in test_cli
    for half,go in (("codec", train_codec), ("aligner", train_aligner)):
        low = go(load_config("smoke", [*small, "training.precision=bf16"]), tmp_path/f"bf16-{half}", "cpu",
            progress=False)
        assert all(p.dtype == torch.float32 and torch.isfinite(p).all()
            for p in [*low.model.parameters(), *low.model.buffers()] if p.is_floating_point())
    from harmonica.checkpoint import load_model
    assert t.step == 2 and load_model(tmp_path/"aligner/aligner.safetensors", kind="aligner").cfg.hop == 480

def test_no_cache_no_run(tmp_path, codes):
    with pytest.raises(ValueError, match="data.cache_dir is not set"):
        train_ar(load_config("smoke"), tmp_path/"a", "cpu")
    with pytest.raises(ValueError, match="no codes in.*harmonica-preprocess"):
        train_ar(load_config("smoke", [f"data.cache_dir={tmp_path}/none"]), tmp_path/"a", "cpu")
    with pytest.raises(ValueError, match="no run to resume"): train_ar(smoke(codes), tmp_path/"a", "cpu", resume=True)
    (tmp_path/"file").write_text("")
    with pytest.raises(ValueError, match="can't be written|harmonica|can.t"):
        train_ar(smoke(codes), tmp_path/"file/run", "cpu")
    with pytest.raises(ValueError, match="device 'tpu'"): train_ar(smoke(codes), tmp_path/"a", "tpu")
    assert not (tmp_path/"a").exists()

def test_several_caches_and_no_valid_split(tmp_path, codes):
    prepare((dataclasses.replace(u, split="train", id="x"+u.id) for u in hums(8)), Hum(), tmp_path/"more",
        progress=False)
    s = supply(load_config("smoke", [f"data.cache_dir=[{codes}, {tmp_path}/more]"]))
    # the eighth sentence is one that the first cache holds out
    assert len(s.dataset)==21+7 and s.valid
    assert supply(load_config("smoke", [f"data.cache_dir={tmp_path}/more"])).valid is None

def test_a_stream_makes_its_cache_and_clears_it(tmp_path, monkeypatch):
    import harmonica.recipes as R
    register_codec("hum")(lambda device, **kw: Hum())
    monkeypatch.setattr(R, "hf", lambda *a, **kw: hums())
    cache = tmp_path/"cache"
    cfg = load_config("smoke", [f"data.cache_dir={cache}", "data.dataset=hf", "data.hf_dataset=x/y",
        "data.clear_cache=true", "data.codec=hum", "training.max_steps=1"])
    train_ar(cfg, tmp_path/"run", "cpu", progress=False)
    assert not cache.exists()
    # a cache that somebody made is never removed
    prepare(hums(), Hum(), cache, progress=False)
    train_ar(cfg, tmp_path/"run2", "cpu", progress=False)
    assert (cache/"card.json").exists() and not (cache/OWNER).exists()
    with pytest.raises(ValueError, match="data.hf_dataset is not set"):
        ensure_codes(load_config("smoke", [f"data.cache_dir={tmp_path}/n", "data.dataset=hf", "data.clear_cache=true",
            "data.codec=hum"]).data)

def test_a_stroke_wants_the_entries(tmp_path, codes):
    with pytest.raises(ValueError, match="model.nar.stroke=0"):
        train_nar(smoke(codes, "model.nar.stroke=.5", "training.max_steps=1"), tmp_path/"a", "cpu", progress=False)
    assert not (tmp_path/"a").exists()

def test_what_was_tried_can_be_read():
    "Each row says what, how much, measured on what and what was concluded; the chapter shows all rows"
    import yaml
    from html import unescape
    root = Path(__file__).resolve().parents[1]
    rows = yaml.safe_load((root/"benchmarks/tried.yaml").read_text(encoding="utf8"))
    for r in rows:
        assert list(r) == ["part", "tried", "gave", "measured", "then"] and all(isinstance(v, str) and v
            for v in r.values()), r
        assert r["part"] in ("codec", "AR", "NAR", "flow", "voice", "data", "training"), r["part"]
        assert r["then"].split()[0].strip(":,") in ("kept", "dropped", "replaced", "noted"), r["then"]
    cells = json.loads((root/"nbs/55_recipes.ipynb").read_text(encoding="utf8"))["cells"]
    shown = unescape("".join("".join(o["data"].get("text/html", "")) for c in cells
        for o in c.get("outputs", []) if "data" in o))
    missing = [r["tried"] for r in rows if r["tried"].replace("`", "") not in shown.replace("<code>",
        "").replace("</code>", "")]
    assert not missing, f"not in the table of 55_recipes: {missing}: python benchmarks/tried.py"

def test_what_was_tried_can_be_searched():
    "The lists and the box above the table hide what does not fit, in headless Chromium"
    import yaml
    playwright = pytest.importorskip("playwright.sync_api")
    chrome = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chrome is None: pytest.skip("no Chromium here")
    root = Path(__file__).resolve().parents[1]
    rows = yaml.safe_load((root/"benchmarks/tried.yaml").read_text(encoding="utf8"))
    cells = json.loads((root/"nbs/55_recipes.ipynb").read_text(encoding="utf8"))["cells"]
    table = next(h for c in cells for o in c.get("outputs", [])
        if 'class="tried"' in (h := "".join(o.get("data", {}).get("text/html", ""))))
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chrome, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content(table)
        def told():
            shown = page.locator("tbody tr:visible").count()
            assert page.locator("output").text_content() == f"{shown} of {len(rows)}"
            return shown
        assert told() == len(rows)
        page.get_by_label("part").select_option("flow")
        assert told() == sum(r["part"] == "flow" for r in rows)
        page.get_by_label("outcome").select_option("kept")
        assert told() == sum(r["part"] == "flow" and r["then"].startswith("kept") for r in rows)
        page.get_by_label("Search what was tried").fill("SHARPEN likeness")
        assert 0 < told() < 5
        page.get_by_label("Search what was tried").fill("no such word")
        assert told() == 0
        browser.close()

def test_crops_longer_than_every_clip_are_refused(tmp_path):
    "In words, when the folder is opened: nothing could ever be drawn"
    from harmonica.crops import AudioCrops, prepare_audio
    hum = Clip(.1*np.sin(np.arange(24000)/20), 24000)
    flat = tmp_path/"flat"
    assert prepare_audio([dict(audio=hum, speaker="me")], flat, progress=False) == dict(made=1, rejected=0)
    with pytest.raises(ValueError, match="holds 30 s, the longest is of .* s: give longer clips, or shorter crops"):
        AudioCrops(flat, 2, 30.)
    assert next(iter(AudioCrops(flat, 2, .4))).wav.shape == (2, 9600)

def test_laying_flat_anew_and_being_stopped_leaves_what_was_there(tmp_path):
    "The samples of the new with the index of the old would be another recording under every name"
    from harmonica.crops import AudioCrops, prepare_audio
    hum = [Clip((.1*np.sin(np.arange(24000)/k)).astype(np.float32), 24000) for k in (20, 9)]
    prepare_audio([dict(audio=hum[0], speaker="me")], tmp_path, progress=False)
    before, files = AudioCrops(tmp_path, 2, .4)[0].wav, sorted(p.name for p in tmp_path.iterdir())
    def stopped():
        yield dict(audio=hum[1], speaker="you")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): prepare_audio(stopped(), tmp_path, progress=False)
    assert torch.equal(AudioCrops(tmp_path, 2, .4)[0].wav, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == files
