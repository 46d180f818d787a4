"The server: what OpenAI's client asks for, what it refuses, and that one listener does not starve another"
import asyncio, base64, json, socket, subprocess, sys, threading, time
import numpy as np, pytest
from harmonica.codec import Clip, packaged_voice, packaged_voices
from harmonica.serve import NAMESAKES, Busy, Limits, Worker, Voices, make_app, serve

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")
from starlette.testclient import TestClient

class Mouth:
    "A stand-in for Voice: says a tenth of a second a word, and remembers; behind the first it waits for its gate"
    notes, rate = ["resampled"], 24000
    def __init__(self):
        self.said, self.closed, self.slow, self.gate = [], 0, 0, threading.Event()
        self.gate.set()
    def like(self, sound, text=None, adapt=True):
        if str(sound).endswith(".voice"): assert sound.read_bytes() == b"kept"
        else: Clip.load(sound)
        return self
    def save(self, path, consent):
        path.write_bytes(b"kept")
        return path
    def stream(self, text, **how):
        if how.get("speed", 1) > 2:
            raise ValueError(f"speed was {how['speed']}; it must lie between 0.5 and 2: try speed=1.2")
        self.said.append((text, how))
        def pieces():
            try:
                for i,w in enumerate(text.split()):
                    if i: self.gate.wait(60)
                    time.sleep(self.slow)
                    yield Clip(.1*np.sin(np.arange(2400)/9), 24000)
            finally: self.closed += 1
        return pieces()

@pytest.fixture
def mouth(): return Mouth()
def client(mouth, base="http://127.0.0.1", **kw):
    return TestClient(make_app(mouth, **kw), base_url=base, raise_server_exceptions=False)
ask = lambda c, **kw: c.post("/v1/audio/speech",
    json=dict(dict(model="harmonica", input="one two three", voice="ruth"), **kw))
def refused(r, status, *words):
    assert r.status_code == status, (r.status_code, r.text)
    e = r.json()["error"]
    assert {"message", "type", "param", "code"} <= set(e) and "\n" not in e["message"]
    for w in words: assert w in e["message"], e

@pytest.mark.parametrize("kind,mime", [("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("opus", "audio/ogg"),
    ("flac", "audio/flac"), ("pcm", "audio/pcm")])
def test_formats(mouth, kind, mime):
    r = ask(client(mouth), response_format=kind)
    assert r.status_code == 200 and r.headers["content-type"] == mime
    clip = Clip(np.frombuffer(r.content, "<i2"), 24000) if kind == "pcm" else Clip.load(r.content)
    assert abs(clip.seconds-.3) < .1

def test_events(mouth):
    r = ask(client(mouth), stream_format="sse", response_format="wav")
    events = [json.loads(l[6:]) for l in r.text.split("\n") if l.startswith("data: ")]
    assert [e["type"] for e in events] == ["speech.audio.delta"]*3 + ["speech.audio.done"]
    assert abs(Clip.load(b"".join(base64.b64decode(e["audio"]) for e in events[:-1])).seconds-.3) < .01
    assert events[-1]["usage"] == dict(input_tokens=len("one two three"), output_tokens=300, total_tokens=313)

def test_options_reach_the_voice(mouth):
    assert ask(client(mouth), speed=1.5, seed=3, voice={"id": "ruth"}).status_code == 200
    assert mouth.said == [("one two three", dict(speed=1.5, seed=3))]

def test_refusals(mouth):
    c = client(mouth, limits=Limits(text=100))
    refused(ask(c, voice="nobody"), 404, "nobody", "ruth")
    refused(ask(c, input=""), 400, "input")
    refused(ask(c, input="?!"), 400, "spoken")
    refused(ask(c, input=7), 400, "input")
    refused(ask(c, input="x "*60), 413, "120", "100")
    refused(ask(c, response_format="doc"), 400, "mp3")
    refused(ask(c, speed=9), 400, "0.5 and 2")
    refused(ask(c, text="hi"), 400, "unknown field")
    refused(c.post("/v1/audio/speech", content=b"{"), 400, "JSON")
    refused(c.post("/v1/audio/speech", content=b"["*20_000), 413, "bytes")
    refused(c.post("/v1/audio/speech", content=iter([b"{}"])), 411, "Content-Length")
    refused(c.get("/v1/audio/speech"), 405, "GET /v1/audio/speech", "POST")
    refused(c.post("/v1/chat/completions", json={}), 404, "/v1/chat/completions", "/v1/audio/speech")

def test_the_names_of_openais_voices_are_answered(mouth):
    "A program written for their server speaks at once; each name has a voice of its own"
    c = client(mouth)
    assert all(ask(c, voice=name).status_code == 200 for name in ("alloy", "nova", "onyx"))
    assert len(set(NAMESAKES.values())) == len(NAMESAKES) and set(NAMESAKES.values()) <= set(packaged_voices())
    assert not set(NAMESAKES) & {v["name"] for v in c.get("/v1/voices").json()["voices"]}

def test_a_port_that_is_taken_is_told_before_models_are_loaded(capsys, monkeypatch):
    monkeypatch.setattr("harmonica.infer.Voice.load", lambda **kw: pytest.fail("models were loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert serve(["--port", str(taken.getsockname()[1])]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "Give another --port" in err, err

def test_whose_request(mouth):
    c = client(mouth)
    refused(c.post("/v1/audio/speech", json=dict(input="hi"), headers={"Origin": "http://evil.example"}), 403,
        "evil.example")
    # another name for this machine
    assert client(mouth, "http://evil.example").get("/v1/voices").status_code == 400
    guarded = client(mouth, "http://anywhere.example", token="secret")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer é".encode("latin-1")}):
        refused(guarded.get("/v1/voices", headers=headers), 401, "token")
        refused(guarded.post("/v1/audio/speech", json=dict(input="hi"), headers=headers), 401, "token")
        refused(guarded.get("/metrics", headers=headers), 401, "token")
    assert guarded.get("/v1/voices", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert guarded.get("/health").status_code == 200

def test_voices(mouth, tmp_path):
    c = client(mouth, folder=tmp_path, limits=Limits(voices=1))
    sound = dict(file=packaged_voice().read_bytes())
    there = c.get("/v1/voices").json()["voices"]
    assert {v["name"] for v in there} == set(packaged_voices())
    add = lambda name="me", consent="My own voice, for tests.", files=sound: c.post("/v1/voices",
        data=dict(name=name, consent=consent), files=files)
    refused(add(consent=" "), 400, "consent is missing")
    refused(add(consent="x"*2001), 400, "consent has 2001 letters")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(c.post("/v1/voices", content=b"no form", headers=form), 400, "multipart")
    refused(add("../me"), 400, "name")
    refused(c.post("/v1/voices", data=dict(consent="My own voice, yes."), files=sound), 400, "name is missing")
    refused(add("ruth"), 400, "ruth", "already")
    refused(c.post("/v1/voices", data=dict(name="me", consent="My own voice, yes."), files=dict(other=b"x")), 400,
        "file")
    refused(add(files=dict(file=b"no sound")), 400, "not a sound file")
    assert not list(tmp_path.iterdir())
    assert add().status_code == 201 and ask(c, voice="me").status_code == 200
    kept = json.loads((tmp_path/"me.json").read_text())
    assert kept["consent"] == "My own voice, for tests." and kept["agreed"].startswith("20")
    refused(add("more"), 400, "voices were added")
    # it is there after a new start
    assert ask(client(mouth, folder=tmp_path), voice="me").status_code == 200
    assert "me" in Voices(mouth, tmp_path).facts
    refused(c.delete("/v1/voices/ruth"), 400, "stays")
    assert c.delete("/v1/voices/me").status_code == 200
    refused(c.delete("/v1/voices/me"), 404, "me")
    assert not list(tmp_path.iterdir())

def test_a_damaged_file_of_a_voice_is_named(mouth, tmp_path):
    for text in ("{", "[1]"):
        (tmp_path/"me.json").write_text(text)
        (tmp_path/"me.voice").write_bytes(b"")
        with pytest.raises(ValueError, match="me.json can't be read.*remove it"): Voices(mouth, tmp_path)

def test_uploads_are_bounded(mouth):
    c = client(mouth, limits=Limits(upload=1000))
    refused(c.post("/v1/voices", data=dict(name="me", consent="My own voice, yes."), files=dict(file=b"x"*20_000)), 413,
        "bytes")

def test_metrics_and_health(mouth):
    c = client(mouth)
    ask(c)
    ask(c, voice="nobody")
    text = c.get("/metrics").text
    assert 'harmonica_requests_total{status="200"} 1.0' in text and 'status="404"} 1.0' in text
    assert "harmonica_speech_seconds_total 0.3" in text
    assert c.get("/health").json()["status"] == "ok" and c.get("/v1/models").json()["data"][0]["id"] == "harmonica"

def test_page(mouth):
    r = client(mouth).get("/")
    assert "<textarea" in r.text and "http" not in r.text.replace("http-equiv", "")
    assert "default-src 'self'" in r.headers["content-security-policy"]

# -- the queue

def run(f): return asyncio.run(asyncio.wait_for(f, 30))

def test_who_waits_longest_comes_first_and_nobody_starves():
    async def main():
        w, order = Worker(), []
        def pieces(name, n):
            for _ in range(n):
                time.sleep(.01)
                order.append(name)
                yield Clip([0.]*2400)
        async def all(j): return [c async for c in j]
        long = asyncio.create_task(all(w.ask(pieces("long", 50))))
        await asyncio.sleep(.1)
        assert len(await all(w.ask(pieces("short", 2)))) == 2
        at = max(i for i,n in enumerate(order) if n == "short")
        assert at < 40
        assert len(await long) == 50
        w.close()
    run(main())

def test_a_full_queue_says_so():
    async def main():
        w = Worker(Limits(queue=2))
        stop = threading.Event()
        def wait():
            stop.wait(10)
            yield Clip([0.])
        jobs = [w.ask(wait()), w.ask(wait())]
        with pytest.raises(Busy, match="queue for 2 is full"): w.ask(wait())
        stop.set()
        for j in jobs: assert len([c async for c in j]) == 1
        w.close()
    run(main())

def test_a_listener_who_leaves_frees_the_work():
    async def main():
        w, made, closed = Worker(), [], []
        def pieces():
            try:
                for i in range(1000):
                    made.append(i)
                    time.sleep(.005)
                    yield Clip([0.]*2400)
            finally: closed.append(True)
        job = aiter(w.ask(pieces()))
        await anext(job)
        await job.aclose()
        async def after():
            async for c in w.ask(iter([Clip([0.])])): return c
        await after()
        await asyncio.sleep(.3)
        assert closed and len(made) < 100
        w.close()
    run(main())

def test_nothing_is_made_far_ahead_of_a_slow_listener():
    async def main():
        w, made = Worker(Limits(ahead=1.)), []
        def pieces():
            for i in range(100):
                made.append(i)
                yield Clip([0.]*2400)
        job = aiter(w.ask(pieces()))
        await anext(job)
        await asyncio.sleep(.5)
        assert len(made) <= 13
        rest = [c async for c in job]
        assert len(rest) == 99
        w.close()
    run(main())

def test_time_runs_out():
    async def main():
        w = Worker(Limits(seconds=.05))
        def pieces():
            while True:
                time.sleep(.03)
                yield Clip([0.]*24)
        with pytest.raises(TimeoutError, match="shorter text"): [c async for c in w.ask(pieces())]
        w.close()
    run(main())

def test_an_error_in_the_middle_reaches_its_listener_alone():
    async def main():
        w = Worker()
        def bad():
            yield Clip([0.])
            raise ValueError("broken")
        with pytest.raises(ValueError, match="broken"): [c async for c in w.ask(bad())]
        assert len([c async for c in w.ask(iter([Clip([0.])]*3))]) == 3
        w.close()
    run(main())

# -- in chorus

def test_requests_at_once_are_spoken_together(monkeypatch):
    "Six listeners, two voices, one model: fewer batches than sentences, and to everybody his own"
    from concurrent.futures import ThreadPoolExecutor
    from harmonica.infer import Voice
    from harmonica.text import Tokenizer
    from test_infer import tiny_codec, tiny_models
    tok = Tokenizer("letters")
    v = Voice(tiny_codec(), *tiny_models(tok), tok)
    rows, inner = [], v.ar.generate
    monkeypatch.setattr(v.ar, "generate", lambda b, *a,
        **k: (rows.append(len(b)), time.sleep(.2), inner(b, *a, **k))[-1])
    c = client(v)
    for name in ("ruth", "otto"): ask(c, voice=name)
    rows.clear()
    texts = ["One two.", "Three four five six seven.", "Eight."]*2
    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda i: ask(c, input=texts[i], voice=["ruth", "otto"][i//3], response_format="wav",
            seed=i).content, range(6)))
    assert sum(rows) >= 6 and len(rows) < 6
    for i,data in enumerate(said):
        alone = v.like(["ruth", "otto"][i//3]).say(texts[i], seed=i)
        assert abs(Clip.load(data).seconds-alone.seconds) < .3

def test_a_chorus_blames_only_who_is_to_blame():
    from harmonica.serve import Chorus
    def speak(lines):
        if "bad" in lines: raise ValueError("bad")
        time.sleep(.05)
        return [l.upper() for l in lines]
    chorus, heard = Chorus(speak), {}
    def sing(word):
        try: heard[word] = chorus([word])
        except ValueError as e: heard[word] = str(e)
    threads = [threading.Thread(target=sing, args=(w,)) for w in ("a", "bad", "b", "c")]
    for t in threads: t.start()
    for t in threads: t.join(10)
    assert heard == dict(a=["A"], b=["B"], c=["C"], bad="bad")

def test_short_orders_go_first_and_a_batch_is_bounded():
    from harmonica.serve import Chorus
    batches, gate = [], threading.Event()
    def speak(lines):
        gate.wait(10)
        batches.append(len(lines))
        return lines
    chorus = Chorus(speak, most=4)
    threads = [threading.Thread(target=chorus, args=(list(range(n)),)) for n in (1, 4, 2, 9, 1)]
    for t in threads:
        t.start()
        time.sleep(.05)
    gate.set()
    for t in threads: t.join(10)
    assert batches == [1, 3, 4, 9]

def test_the_first_listener_meets_a_server_that_has_spoken(mouth, monkeypatch, capsys):
    "Lexicon, matrices and pitch detector take seconds, once: before the door opens"
    import uvicorn
    from harmonica.infer import Voice
    done = []
    mouth.say = lambda text: done.append("said")
    monkeypatch.setattr(Voice, "load", lambda **kw: mouth)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: done.append("open"))
    assert not serve(["--port", "8765"])
    assert done == ["said", "open"] and "8765 is open" in capsys.readouterr().out

def test_the_next_batch_gathers_while_one_is_spoken():
    "Many listeners, short texts: batches are full, and nobody speaks alone because the others are still on their way"
    from harmonica.serve import Chorus
    sizes = []
    def speak(lines):
        sizes.append(len(lines))
        time.sleep(.2)
        return lines
    async def main():
        w, chorus = Worker(Limits(abreast=8)), Chorus(speak, 8)
        def pieces(i): yield chorus([i])[0]
        async def one(i): return [x async for x in w.ask(pieces(i))]
        assert await asyncio.gather(*map(one, range(64))) == [[i] for i in range(64)]
        w.close()
    run(main())
    assert len(sizes) <= 64//8 + 3, sizes

def test_who_is_served_does_not_wait_for_the_next_batch():
    from harmonica.serve import Chorus
    gates, begun, heard = [threading.Event() for _ in range(3)], [], []
    def speak(lines):
        begun.append(lines)
        gates[len(begun)-1].wait(10)
        return lines
    chorus = Chorus(speak, most=2)
    def sing(word):
        chorus([word])
        heard.append(word)
    threads = [threading.Thread(target=sing, args=(w,)) for w in "abcde"]
    for t in threads:
        t.start()
        time.sleep(.05)
    gates[0].set()
    gates[1].set()
    for _ in range(500):
        if len(heard) < 3: time.sleep(.01)
    assert sorted(heard) == ["a", "b", "c"] and begun[:2] == [["a"], ["b", "c"]]   # while the third batch is spoken
    gates[2].set()
    for t in threads: t.join(10)
    assert sorted(heard) == list("abcde")

def test_a_long_order_has_its_turn_though_newcomers_never_end():
    from harmonica.serve import Chorus
    batches, came, stop = [], threading.Event(), threading.Event()
    def speak(lines):
        batches.append(lines[:])
        time.sleep(.01)
        return lines
    chorus = Chorus(speak)
    def newcomers():
        while not stop.is_set(): chorus(["short"])
    def long():
        chorus(["long"]*8)
        came.set()
    crowd = [threading.Thread(target=newcomers) for _ in range(12)]
    for t in crowd: t.start()
    time.sleep(.1)
    before, last = len(batches), threading.Thread(target=long)
    last.start()
    heard = came.wait(10)
    stop.set()
    for t in [*crowd, last]: t.join(10)
    assert heard and next(i for i,b in enumerate(batches) if "long" in b)-before < 14

def test_a_voice_is_listened_to_once_however_many_ask(mouth):
    listened, got = [], []
    def like(sound, text=None, adapt=True):
        listened.append(sound)
        time.sleep(.05)
        return Mouth()
    mouth.like = like
    voices = Voices(mouth)
    threads = [threading.Thread(target=lambda: got.append(voices.get("ruth"))) for _ in range(8)]
    for t in threads: t.start()
    for t in threads: t.join(10)
    assert len(listened) == 1 and len(set(map(id, got))) == 1 and len(got) == 8

def test_a_long_text_is_read_only_as_far_as_it_is_spoken(monkeypatch):
    import harmonica.text
    from harmonica.infer import Voice
    from harmonica.text import Tokenizer
    from test_infer import tiny_codec, tiny_models
    read, inner, spoken, go = [], harmonica.text.normalize, Voice.spoken, threading.Event()
    monkeypatch.setattr(harmonica.text, "normalize", lambda text, *a: (read.append(len(text)), inner(text, *a))[1])
    def one_at_a_time(*a):
        for clip in spoken(*a):
            yield clip
            go.wait(60)
    monkeypatch.setattr(Voice, "spoken", one_at_a_time)
    v = Voice(tiny_codec(), *tiny_models(Tokenizer("letters")), Tokenizer("letters"))
    async def main():
        app = make_app(v, limits=Limits(text=10**7))
        got = asyncio.Event()
        async def send(m):
            if m.get("body"): got.set()
        body = json.dumps(dict(input="It was a dark night, and 3 owls cried. "*20_000, voice="ruth",
            response_format="pcm")).encode()
        asked = asyncio.Queue()
        await asked.put(dict(type="http.request", body=body, more_body=False))
        scope = dict(type="http", method="POST", path="/v1/audio/speech", raw_path=b"", query_string=b"", scheme="http",
            headers=[(b"host", b"127.0.0.1"), (b"content-length", str(len(body)).encode())], http_version="1.1",
            client=("127.0.0.1", 1), server=("127.0.0.1", 80))
        task = asyncio.create_task(app(scope, asked.get, send))
        await got.wait()
        heard = sum(read)
        go.set()
        await asked.put(dict(type="http.disconnect"))
        await asyncio.wait([task], timeout=20)
        app.state.worker.close()
        return heard
    assert 0 < run(main()) < 5000

# -- as a user meets it

@pytest.fixture(scope="module")
def server(tmp_path_factory):
    "The command itself, packaged models, a port of its own"
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
    s.close()
    code = "import sys; from harmonica.serve import serve; sys.exit(serve(sys.argv[1:]))"
    how = ["--port", str(port), "--voices", str(tmp_path_factory.mktemp("voices"))]
    p = subprocess.Popen([sys.executable, "-c", code, *how],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert f":{port} is open" in p.stdout.readline()
    import httpx
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/health")
            break
        except httpx.TransportError: time.sleep(.1)
    yield f"http://127.0.0.1:{port}"
    p.terminate()
    out, err = p.communicate(timeout=60)
    assert p.returncode in (0, 143) and "Traceback" not in err, err

def test_the_official_client(server):
    from openai import BadRequestError, NotFoundError, OpenAI
    c = OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    assert 0 < Clip.load(c.audio.speech.create(model="harmonica", voice="ruth", input="Hi.",
        response_format="wav").content).seconds < 5
    with c.audio.speech.with_streaming_response.create(model="harmonica", voice="reader", input="One. And two more.",
        response_format="pcm") as r:
        assert sum(len(b) for b in r.iter_bytes()) > 10_000
    with pytest.raises(NotFoundError, match="nobody"):
        c.audio.speech.create(model="harmonica", voice="nobody", input="Hi.")
    with pytest.raises(BadRequestError, match="speed"):
        c.audio.speech.create(model="harmonica", voice="ruth", input="Hi.", speed=4)
    assert [m.id for m in c.models.list()] == ["harmonica"]

def test_an_uploaded_voice_speaks(server):
    import httpx
    with httpx.Client(base_url=server, timeout=120) as c:
        r = c.post("/v1/voices", data=dict(name="mine", consent="A packaged voice, for this test."),
            files=dict(file=packaged_voice("otto").read_bytes()))
        assert r.status_code == 201, r.text
        assert Clip.load(c.post("/v1/audio/speech", json=dict(input="Hi.", voice="mine")).content).seconds > .1

def test_ctrl_c_ends_the_server_though_somebody_listens(tmp_path):
    import signal
    import httpx
    code = "import sys; from harmonica.serve import serve; sys.exit(serve(sys.argv[1:]))"
    p = subprocess.Popen([sys.executable, "-c", code, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True)
    address = p.stdout.readline().split()[0]
    long = dict(input="It was late, and nobody came. "*400, response_format="pcm")
    with pytest.raises(httpx.HTTPError), httpx.stream("POST", f"{address}/v1/audio/speech", json=long, timeout=60) as r:
        for i,_ in enumerate(r.iter_raw()):
            if i == 0:
                p.send_signal(signal.SIGINT)
                asked = time.monotonic()
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130 and "harmonica-serve: stopped" in err and "Traceback" not in err, err
    assert time.monotonic()-asked < 60

def test_the_server_ends_though_a_thread_is_in_the_midst_of_a_sentence():
    "What such a thread computes in C++ would end the process in an abort"
    import httpx, signal
    code = """import sys, torch, harmonica.infer
from harmonica.codec import Clip
from harmonica.serve import serve
class Mouth:
    def like(self, sound, text=None, adapt=True): return self
    def say(self, text): pass
    def stream(self, text, **how):
        yield Clip([0.]*2400)
        x = torch.ones(1500, 1500)
        while True: x = x@x/1500
harmonica.infer.Voice.load = lambda **how: Mouth()
sys.exit(serve(["--port", "0"]))"""
    p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = p.stdout.readline().split()[0]
    say = dict(input="Hi.", response_format="pcm")
    with pytest.raises(httpx.HTTPError), httpx.stream("POST", f"{address}/v1/audio/speech", json=say, timeout=60) as r:
        for i,_ in enumerate(r.iter_raw()):
            if i == 0: p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=90)
    assert p.returncode == 130 and "stopped" in err and "Traceback" not in err, (p.returncode, err)

def test_doors_stay_closed(capsys, tmp_path):
    from harmonica.serve import serve
    for args,words in ((["--host", "0.0.0.0"], "HARMONICA_TOKEN"), (["--port", "99999"], "--port"),
        (["--max-queue", "0"], "--max-queue 0"), (["--max-seconds", "-1"], "--max-seconds -1"),
        (["--max-text", "0"], "--max-text 0"),
        (["--voices", str(tmp_path/"f"/"x")], "can't be written")):
        (tmp_path/"f").write_text("")
        assert serve(args) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
