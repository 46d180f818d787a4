"Preparing at scale: shards, processes, crashes, windows of a stream, large caches"
import json, subprocess, sys, time, tracemalloc
import numpy as np, pytest, torch
from itertools import islice
from harmonica.codec import load_codec
from harmonica.scale import RollingCache, prepare_many
from harmonica.data import CodesDataset, write_shard, cached_ids, make_card, CodesLoader, prepare, rejected

# the same made corpus and codec in this process and in others
COMMON = '''
import hashlib, time
import numpy as np, torch
from harmonica.codec import Clip
from harmonica.data import Utterance
class Toy:
    name,sample_rate,frame_rate,n_q,codebook_size,hash = 'toy',24000,50,2,64,'feedc0ffee00'
    def __init__(self, nap=0.): self.nap, self.n = nap, 0
    def encode(self, clip): return self.encode_batch([clip])[0]
    def encode_batch(self, clips):
        time.sleep(self.nap*len(clips))
        self.n += len(clips)
        loud = [64*np.abs(c.samples[:len(c)//480*480]).reshape(-1,480).max(1) for c in clips]
        return [torch.tensor(np.stack([l.clip(0, 63)]*2).astype(np.int64)) for l in loud]
def made(n):
    for i in range(n):
        rng = np.random.default_rng(i)
        N = int(24000*rng.uniform(.6, 1.))
        clip = Clip(.3*np.sin(np.arange(N)*rng.uniform(.02,.06))*np.repeat(rng.uniform(.3,1,N//1200+1),1200)[:N], 24000)
        yield Utterance(clip if i%10 else Clip(np.zeros(2400)), f'sentence {i} of them', f's{i%7}', 'made',
            id=f'u{i:03d}', split='valid' if i%7 == 3 else 'train')
'''
exec(COMMON, here := {})
Toy, made = here["Toy"], here["made"]

def rows_of(path):
    "All that a cache says of an utterance, by its id"
    ds = CodesDataset(path, None)
    rows = zip(*(ds.ds.data.column(k).to_pylist() for k in ("id","text","speaker","split","codes")))
    return {i: rest for i,*rest in rows}

def start(body, *args):
    return subprocess.Popen([sys.executable, "-c", COMMON+body, *map(str, args)], stdout=subprocess.PIPE, text=True)

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")/"codes"
    prepare(made(120), Toy(), out, progress=False)
    return out

# --- shards

def test_two_processes_at_once_make_what_one_makes(whole, tmp_path):
    body = '''
import sys, os
from harmonica.data import prepare
i = int(os.fork() == 0)
print(prepare(made(120), Toy(.002), sys.argv[1], shard=(i,2), shard_size=10, progress=False)['made'], flush=True)
if not i: os.wait()
'''
    p = start(body, tmp_path/"c")
    n = [int(x) for x in p.communicate()[0].split()]
    assert p.returncode == 0 and len(n) == 2 and min(n) > 30 and sum(n) == 108
    assert rows_of(tmp_path/"c") == rows_of(whole) and rejected(tmp_path/"c") == rejected(whole)
    assert len(rejected(whole)) == 12

@pytest.mark.parametrize("n", [2, 3, 7])
def test_any_number_of_shards(whole, tmp_path, n):
    for i in np.random.default_rng(n).permutation(n).tolist():
        prepare(made(120), Toy(), tmp_path/"c", shard=(i,n), progress=False)
    assert rows_of(tmp_path/"c") == rows_of(whole) and rejected(tmp_path/"c") == rejected(whole)

def test_another_number_of_shards_goes_on_with_what_is_there(whole, tmp_path):
    prepare(made(120), Toy(), tmp_path/"c", shard=(1,3), progress=False)
    had = len(cached_ids(tmp_path/"c"))
    toy = Toy()
    [prepare(made(120), toy, tmp_path/"c", shard=(i,2), progress=False) for i in range(2)]
    assert toy.n == 108-had and rows_of(tmp_path/"c") == rows_of(whole)

# --- crashes

def test_killed_at_any_moment_loses_one_shard_at_most(whole, tmp_path):
    "kill -9, again and again, each time a little later"
    body = '''
import sys
from harmonica.data import prepare
print('here', flush=True)
prepare(made(120), Toy(.004), sys.argv[1], shard_size=10, progress=False)
'''
    out = tmp_path/"c"
    kept = 0
    for files in (2, 5):
        p = start(body, out)
        p.stdout.readline()
        until = time.time()+60
        while len(list(out.glob("*.arrow"))) < files and p.poll() is None and time.time() < until: time.sleep(.005)
        p.kill()
        p.wait()
        before, kept = kept, len(cached_ids(out))
        assert kept >= 10*files-10 and kept >= before and kept%10 == 0 # whole files, all readable
    assert kept < 108
    toy = Toy()
    stats = prepare(made(120), toy, out, shard_size=10, progress=False)
    assert toy.n == stats["made"] == 108-kept and rows_of(out) == rows_of(whole) and rejected(out) == rejected(whole)
    assert prepare(made(120), Toy(), out, progress=False)["made"] == 0

# --- processes of `datasets`

@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from harmonica.checkpoint import save_model
    from harmonica.microcodec import MicroCodec, MicroCodecConfig
    torch.manual_seed(0)
    f = tmp_path_factory.mktemp("codec")/"codec.safetensors"
    save_model(f, MicroCodec(MicroCodecConfig(n_q=2, n_bins=16, code_dim=8, enc_dim=16, enc_layers=1, dec_dim=16,
        dec_layers=1)))
    return str(f)

def test_num_proc_makes_what_one_makes(tiny, tmp_path):
    read = lambda: made(40)
    prepare(read(), load_codec(tiny), tmp_path/"one", progress=False)
    stats = prepare_many(read, tiny, tmp_path/"many", num_proc=2)
    assert (stats["made"], stats["rejected"]) == (36, 4) and rows_of(tmp_path/"many") == rows_of(tmp_path/"one")
    assert {f.name[:10] for f in (tmp_path/"many").glob("*.arrow")} == {"000-of-002","001-of-002"}
    assert prepare_many(read, tiny, tmp_path/"many", num_proc=2)["made"] == 0
    # two machines with two processes each
    for m in range(2): prepare_many(read, tiny, tmp_path/"both", num_proc=2, shard=(m,2))
    assert rows_of(tmp_path/"both") == rows_of(tmp_path/"one")

# --- memory and large caches

def test_memory_does_not_grow_with_the_corpus(tmp_path):
    def peak(n):
        tracemalloc.start()
        prepare(made(n), Toy(), tmp_path/f"{n}", shard_size=50, progress=False)
        m = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return m
    peak(60)
    few, many = peak(200), peak(400) # 200 fill what is read ahead
    assert many < few*1.15+200_000 # ids are kept, sound is not: 200 clips more are 15 MB of samples

@pytest.fixture(scope="module")
def large(tmp_path_factory):
    "100,000 utterances of short random codes"
    out, rng = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    for k in range(20):
        T = rng.integers(4, 20, 5000)
        codes = rng.integers(0, 1024, 8*T.sum()).astype(np.int16)
        at = np.r_[0, 8*T.cumsum()]
        write_shard([dict(id=f"r{k}-{i}", text=f"text {i}", speaker=f"s{(k*5000+i)%1000}", source="made", split="train",
            seconds=t/50, n_frames=int(t), codes=codes[a:b]) for i,(t,a,b) in enumerate(zip(T.tolist(), at, at[1:]))],
            out/f"000-of-001-{k:05d}.arrow")
    toy = Toy()
    toy.n_q, toy.codebook_size = 8, 1024
    (out/"card.json").write_text(json.dumps(make_card(toy)))
    return out

class Letters:
    def encode(self, text, edges=False): return [1+ord(c)%50 for c in text]

def test_a_hundred_thousand_open_in_a_second_and_deal_batches_in_5_ms(large):
    CodesDataset(large)
    a = time.process_time()
    ds = CodesDataset(large, tokenizer=Letters())
    opened = time.process_time()-a
    assert len(ds) == 100_000 and opened < 1., opened
    loader = CodesLoader(ds, max_frames=400)
    s = iter(loader)
    next(s)
    took = [] # the first one plans the epoch
    for _ in range(30):
        a = time.process_time()
        next(s)
        took.append(time.process_time()-a)
    assert min(took) < .005, min(took) # what it needs; whoever shares the core only adds to that

# --- windows of a stream

class Rows:
    "A stream of the made corpus that counts how much of it was read"
    def __init__(self, n=120): self.n, self.at, self.read = n, 0, 0
    def __iter__(self):
        for u in islice(made(self.n), self.at, None):
            self.at += 1
            self.read += 1
            yield u
    def state_dict(self): return dict(at=self.at)
    def load_state_dict(self, s): self.at = s["at"]

def window(folder, n=120, hours=.004, stream=None):
    def load(path, k): return CodesLoader(CodesDataset(path, tokenizer=Letters()), max_frames=100, seed=3+k)
    return RollingCache(stream or Rows(n), Toy(), folder, load, hours, passes=2, step=10)
def same(a, b):
    return a.ids == b.ids and torch.equal(a.codes, b.codes) and torch.equal(a.prompt, b.prompt) and torch.equal(a.text,
        b.text)

def test_window_is_bounded_and_hears_all_of_the_stream(whole, tmp_path):
    w = window(tmp_path/"w")
    heard, most, n = [], 0, 0
    for b in w:
        if w.n != n:
            n = w.n
            heard.append(None)
        heard.append(set(b.ids))
        ids = cached_ids(next(p for p in (tmp_path/"w").iterdir() if p.is_dir()))
        most = max(most, len(ids))
        assert len([p for p in (tmp_path/"w").iterdir() if p.is_dir()]) == 1
        if n == 7: break
    train = {k for k,v in rows_of(whole).items() if v[2] == "train"}
    assert set().union(*(h for h in heard if h)) == train and most < 40 # of 108
    first = heard[:heard.index(None)]
    names = [i for h in first for i in h]
    assert all(names.count(i) == 2 for i in names) # passes
    w.close()
    assert not (tmp_path/"w").exists()

@pytest.mark.parametrize("stop", [1, 4, "edge", 40])
def test_window_stops_and_goes_on_as_if_it_had_not(tmp_path, stop):
    a = window(tmp_path/"a")
    it = iter(a)
    got = []
    if stop == "edge": # the last batch of a window
        while not (got and a.over): got.append(next(it))
    else: got = [next(it) for _ in range(stop)]
    state = json.loads(json.dumps(a.state_dict()))
    rest = [next(it) for _ in range(25)]
    a.close()
    b = window(tmp_path/"b")
    b.load_state_dict(state)
    assert all(same(x, y) for x,y in zip(rest, b))
    b.close()

def test_a_stream_that_fits_is_read_once(tmp_path):
    s = Rows(30)
    w = window(tmp_path/"w", hours=1., stream=s)
    ids = [i for b in islice(w, 60) for i in b.ids]
    assert s.read == 30 and w.n == 0 and len(ids) > 3*len(set(ids))
    w.close()

def test_window_of_parquet(tmp_path):
    "The same loading code as for the hub"
    import pyarrow as pa, pyarrow.parquet as pq
    from harmonica.corpora import hf
    us = [u for u in made(60) if u.split == "train"]
    sounds = []
    for u in us:
        u.audio.save(tmp_path/"x.flac")
        sounds.append(dict(bytes=(tmp_path/"x.flac").read_bytes(), path=f"{u.id}.flac"))
    (tmp_path/"d").mkdir()
    h = len(us)//2
    for k,sl in enumerate((slice(h), slice(h, None))):
        pq.write_table(pa.table(dict(audio=sounds[sl], text=[u.text for u in us[sl]],
            speaker_id=[u.speaker for u in us[sl]])), tmp_path/"d"/f"{k}.parquet")
    a = window(tmp_path/"a", stream=hf(tmp_path/"d"))
    it = iter(a)
    [next(it) for _ in range(12)]
    state = json.loads(json.dumps(a.state_dict()))
    rest = [next(it) for _ in range(12)]
    assert a.n > 0
    a.close()
    b = window(tmp_path/"b", stream=hf(tmp_path/"d"))
    b.load_state_dict(state)
    assert all(same(x, y) for x,y in zip(rest, b))
    b.close()

def test_nothing_usable_is_said(tmp_path):
    class Mute(Rows):
        def __iter__(self): yield from ()
    with pytest.raises(ValueError): next(iter(window(tmp_path/"w", stream=Mute())))
