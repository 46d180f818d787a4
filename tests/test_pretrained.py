"EnCodec and DAC: absent, offline, with weights of one's own"
import importlib.util, sys, types
from urllib.error import URLError
import pytest, torch
from torch import nn
from harmonica.codec import Clip, load_codec, packaged_voice
from harmonica.pretrained import import_torchaudio

@pytest.fixture(scope="module")
def voice(): return Clip.load(packaged_voice())

def one_line(e, *words):
    s = str(e.value)
    assert "\n" not in s and all(w in s for w in words), s

@pytest.mark.parametrize("name,extra", [("encodec_24khz","encodec"), ("dac_24khz","dac")])
def test_absent_extra(monkeypatch, name, extra):
    for m in ("torchaudio", "encodec", "dac"): monkeypatch.setitem(sys.modules, m, None)
    with pytest.raises(ValueError) as e: load_codec(name)
    one_line(e, f'pip install "harmonica-tts[{extra}]"')

@pytest.fixture
def no_network(monkeypatch):
    "The packages, installed; their servers, unreachable"
    def refuse(*a, **k):
        if k.get("pretrained", True): raise URLError("Name or service not known")
        return nn.Linear(2, 2)
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    monkeypatch.setitem(sys.modules, "encodec",
        types.SimpleNamespace(EncodecModel=types.SimpleNamespace(encodec_model_24khz=refuse)))
    monkeypatch.setitem(sys.modules, "dac", types.SimpleNamespace(utils=types.SimpleNamespace(download=refuse),
        DAC=lambda **k: nn.Linear(2, 2)))

@pytest.mark.parametrize("name", ["encodec_24khz", "dac_24khz"])
def test_offline(no_network, name, tmp_path):
    with pytest.raises(ValueError) as e: load_codec(name)
    s = str(e.value)
    assert "\n" not in s and "weights='" in s and "https://" in s and "could not be downloaded" in s
    (tmp_path/"junk.th").write_text("junk")
    torch.save({"a":torch.zeros(1)}, tmp_path/"other.th")
    for f, word in [("gone.th","does not exist"), ("junk.th","not a file of"), ("other.th","another model")]:
        with pytest.raises(ValueError) as e: load_codec(name, weights=tmp_path/f)
        one_line(e, f, word)

def test_encodec_bandwidth():
    with pytest.raises(ValueError) as e: load_codec("encodec_24khz", bandwidth=7)
    one_line(e, "1.5, 3, 6, 12 and 24")

def test_import_torchaudio_without_its_compiled_part(monkeypatch, tmp_path):
    "A stand-in that fails and leaves its modules behind as torchaudio does"
    d = tmp_path/"torchaudio"
    (d/"_extension").mkdir(parents=True)
    (d/"__init__.py").write_text("from . import _extension\nok = True\n")
    (d/"_extension"/"utils.py").write_text("def _load_lib(lib): raise OSError('libcudart.so.13: cannot open')\n")
    (d/"_extension"/"__init__.py").write_text("from .utils import _load_lib\navailable = _load_lib('x')\n")
    old = {m: sys.modules.pop(m) for m in list(sys.modules) if m.split(".")[0] == "torchaudio"}
    monkeypatch.syspath_prepend(tmp_path)
    try:
        ta = import_torchaudio()
        assert ta.ok and ta._extension.available is False
    finally:
        for m in [m for m in sys.modules if m.split(".")[0] == "torchaudio"]: del sys.modules[m]
        sys.modules.update(old)

@pytest.fixture(scope="module")
def encodec_file(tmp_path_factory):
    "EnCodec with random weights, where the extra is installed"
    if importlib.util.find_spec("encodec") is None: pytest.skip("needs harmonica-tts[encodec]")
    import_torchaudio()
    from encodec import EncodecModel
    torch.manual_seed(0)
    m = EncodecModel.encodec_model_24khz(pretrained=False)
    for l in m.quantizer.vq.layers: l._codebook.embed.normal_()
    p = tmp_path_factory.mktemp("w")/"encodec.th"
    torch.save(m.state_dict(), p)
    return p

@pytest.mark.filterwarnings("ignore")
def test_encodec(encodec_file, voice):
    codec = load_codec("encodec_24khz", weights=encodec_file)
    assert (codec.sample_rate, codec.frame_rate, codec.n_q, codec.codebook_size) == (24000, 75, 8, 1024)
    assert codec.books.shape == (8, 1024, 128)
    for n in (1, 319, 320, 321, 24001):
        codes = codec.encode(Clip(voice.to(24000).samples[5000:5000+n]))
        assert codes.shape == (8, codec.frames(n/24000))
        assert len(codec.decode(codes)) == codes.shape[1]*320 == len(codec.decode(codes[:2]))
    assert load_codec(f"encodec_24khz={encodec_file}").hash == codec.hash != load_codec("encodec_24khz",
        weights=encodec_file, bandwidth=3.).hash

@pytest.mark.filterwarnings("ignore")
def test_dac(tmp_path, voice):
    if importlib.util.find_spec("dac") is None: pytest.skip("needs harmonica-tts[dac]")
    import_torchaudio()
    import dac
    d = dac.DAC(encoder_dim=8, encoder_rates=[2,4,5,8], decoder_dim=32, decoder_rates=[8,5,4,2], n_codebooks=32,
        sample_rate=24000)
    d.metadata = {}
    d.save(tmp_path/"dac.pth", package=False)
    codec = load_codec("dac_24khz", weights=tmp_path/"dac.pth")
    for n in (400, 24000, 24001):
        codes = codec.encode(Clip(voice.to(24000).samples[5000:5000+n]))
        assert codes.shape == (8, codec.frames(n/24000))
        assert len(codec.decode(codes)) == codes.shape[1]*320 == len(codec.decode(codes[:2]))
    with pytest.raises(ValueError): load_codec("dac_24khz", weights=tmp_path/"dac.pth", n_q=40)
