"When each sound is said: the dynamic programme, phones of IPA, durations for the cache"
import itertools, json
import numpy as np, pytest, torch
from harmonica import Clip
from harmonica.align import Aligner, AlignerConfig, viterbi
from harmonica.checkpoint import load_model, packaged_weights
from harmonica.codec import packaged_voice
from harmonica.microcodec import AudioBatch
from harmonica.phones import frame_phones, phone_class, phone_classes
from harmonica.text import Tokenizer

@pytest.fixture(scope="module")
def aligner(): return load_model(packaged_weights("aligner"), kind="aligner")
@pytest.fixture(scope="module")
def reader(): return Clip.load(packaged_voice()).to(24000)
@pytest.fixture(scope="module")
def words(): return json.loads(packaged_voice().with_suffix(".json").read_text())["text"]

def brute(logp, states, silent):
    "The best of all ways, by trying all of them"
    T, S, best = len(logp), len(states), (-1e9, None)
    for used in itertools.product(*[(0,1) if s else (1,) for s in silent]):
        on = [i for i in range(S) if used[i]]
        for cuts in itertools.combinations(range(1, T), len(on)-1):
            n = np.diff([0, *cuts, T])
            path = np.repeat([states[i] for i in on], n)
            score = logp[np.arange(T), path].sum()
            if score > best[0]:
                full = np.zeros(S, int)
                full[on] = n
                best = score, full
    return best

@pytest.mark.parametrize("seed", range(8))
def test_viterbi_finds_the_best_of_all_ways(seed):
    rng = np.random.default_rng(seed)
    logp = np.log(rng.dirichlet(np.ones(4), 8))
    silent = np.array([seed%2==0, False, True, False, seed%3==0])
    states = np.where(silent, 0, rng.integers(1, 4, 5))
    frames, score = viterbi(logp, states, silent)
    assert score*8 == pytest.approx(brute(logp, states, silent)[0]) and frames.sum() == 8
    assert (frames[~silent] > 0).all()

def test_too_short_is_refused():
    with pytest.raises(ValueError, match="too short"): viterbi(np.zeros((2,3)), np.array([1,2,1]), np.zeros(3, bool))

def test_phones_of_ipa():
    names = lambda p, d: "".join(phone_classes[c] if c >= 0 else "?" for c in frame_phones(p, d, unit=.02))
    assert names("kˈæt", [1,1,1,2,1,1]) == " kæææt "                    # a stress mark's time belongs to what follows
    assert names("aɪ", [1,1,2,1]) == " III "                            # two letters, one sound
    # one length mark, two of the tokenizer's symbols
    assert names("bɜːd", [1,1,2,1,1,1]) == " bɜɜɹd "
    assert names("iː", [1,1,2,1]) == " iii "
    # a short space may or may not be silent
    assert names("a b", [1,1,1,1,1])[2] == "?" and names("a b", [1,1,4,1,1])[2:6] == "    "

def test_every_symbol_of_the_tokenizer_has_a_class():
    for ch in Tokenizer().tokens[1:]:
        assert (phone_class(ch) == 0) == (ch in " .,?!;:–ˈˌ"), ch

def test_durations_cover_the_clip(aligner, reader, words):
    tok = Tokenizer()
    for rate in (50, 75):
        n = int(np.ceil(reader.seconds*rate))
        d = aligner.durations(reader, words, rate, n)
        assert len(d) == len(tok.encode(words, edges=True)) and sum(d) == n and min(d) >= 0
        assert all(k == 0 for k,c in zip(d[1:], tok.symbols(words)) if c in "ˈˌ")

def test_half_the_words_take_half_the_recording(aligner, reader, words):
    "Cut at the time that the alignment names, the halves fit their own words far better than the other's"
    first, second = words.split(" for the present ")
    tok = Tokenizer()
    symbols = tok.symbols(words)
    k = symbols.index(tok.symbols("for the present")[:3])
    t = np.cumsum(aligner.align(reader, symbols)[0])[k]*.02
    a = reader.cut(0, t)
    fit = lambda clip, text: aligner.align(clip, tok.symbols(text))[1]
    assert fit(a, first) > fit(a, "therefore he would crush") + .3

def test_other_words_are_left_without_durations(aligner, reader, words):
    assert aligner.durations(reader.cut(0, .4), words, 50, 20) == []
    assert len(aligner.phones(reader.cut(0, .4), words)) == 0
    other = "A completely different sentence which was never spoken by anybody in this recording, and is about as long."
    assert aligner.durations(reader, other, 50, 337) == []

def test_it_learns():
    torch.manual_seed(0)
    m = Aligner(AlignerConfig(dim=16, n_layers=1))
    opt = torch.optim.AdamW(m.parameters(), 3e-3)
    t = torch.arange(9600)/24000
    wav = torch.cat([torch.sin(6.28*300*t), torch.sin(6.28*2500*t)])[None]
    y = torch.tensor([[1]*20+[2]*20])
    for _ in range(60):
        loss, parts = m.loss(AudioBatch(wav, y))
        loss.backward()
        opt.step()
        opt.zero_grad()
    assert parts["phone_error"] < .1
    assert m.loss(AudioBatch(wav, torch.full_like(y, -1)))[0] == 0      # nothing known, nothing to learn

def test_an_excerpt_is_whole_words(aligner, reader, words):
    "Its words lie in it, and fit it better than what stands beside them"
    piece, said = aligner.excerpt(reader, words, 3.)
    assert 2. < piece.seconds <= 3. and f" {said} " in f" {words} "
    score = lambda text: aligner.align(piece, Tokenizer("phonemes").symbols(text))[1]
    all_words, own = words.split(), said.split()
    i = next(i for i in range(len(all_words)) if all_words[i:i+len(own)] == own)
    assert score(said) > score(" ".join(all_words[max(0, i-1):i+len(own)+1]))
    assert score(said) > score(" ".join(all_words[i+1:i+len(own)+1]))
    assert aligner.excerpt(reader, words, 60)[1] == words
    assert aligner.excerpt(reader,
        "other words that are not spoken here at all but take about the same time to say aloud", 3.) is None
    assert aligner.excerpt(reader.cut(0, .3), words, 3.) is None
