#!/usr/bin/env python3
"""harmonica-serve under load, on loopback: the server is started, clients ask for sentence after sentence, and what
they met is told.

    serve.py [--clients 50] [--seconds 120]      requests lost, first-byte p50 / p95 (s), seconds of speech a second

A table on the screen, and serve.json in the folder --out; a line every ten seconds, and Ctrl-C ends it with what was
met so far. Wants a machine that does nothing else.
"""
import argparse, asyncio, json, socket, subprocess, sys, time
from pathlib import Path
import numpy as np
from harmonica.codec import packaged_voices

SENTENCES = ("He had slept badly, and it was raining.", "The train leaves at ten from the other platform.",
    "Who was that?", "Nine small boats came back before the storm reached the bay.",
    "She put down her book, and listened. Then she went on.")

async def client(http, i, until, met):
    voices, n = list(packaged_voices()), 0
    while time.monotonic() < until:
        body = dict(model="harmonica", input=SENTENCES[(i+n) % len(SENTENCES)], voice=voices[i % len(voices)],
            response_format="pcm", seed=n)
        begun, first, got = time.monotonic(), None, 0
        try:
            async with http.stream("POST", "/v1/audio/speech", json=body) as r:
                async for piece in r.aiter_bytes():
                    first = first or time.monotonic()-begun
                    got += len(piece)
                met.append(dict(status=r.status_code, first=first, seconds=got/48000, took=time.monotonic()-begun))
        except Exception as e: met.append(dict(status=type(e).__name__))
        n += 1

async def load(url, clients, seconds, met):
    import httpx
    until = time.monotonic()+seconds
    async def tell():
        while True:
            await asyncio.sleep(10)
            print(f"{until-time.monotonic():6.0f} s left, {len(met)} answers", file=sys.stderr, flush=True)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=clients)) as http:
        teller = asyncio.create_task(tell())
        await asyncio.gather(*(client(http, i, until, met) for i in range(clients)))   # each hears out its last
        teller.cancel()

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--clients", type=int, default=50)
    p.add_argument("--seconds", type=float, default=120.)
    p.add_argument("--out", default=".")
    a, met = p.parse_args(), []
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    serve = f"from harmonica.serve import serve; serve(['--port', '{port}', '--max-queue', '{a.clients+10}'])"
    server = subprocess.Popen([sys.executable, "-c", serve], stdout=subprocess.PIPE, text=True)
    try:
        if "is open" not in (server.stdout.readline() or ""): sys.exit("the server did not start")
        time.sleep(2)
        begun = time.monotonic()
        try: asyncio.run(load(f"http://127.0.0.1:{port}", a.clients, a.seconds, met))
        except KeyboardInterrupt: print("stopped", file=sys.stderr)
        took = time.monotonic()-begun
    finally:
        server.terminate()
        server.wait(30)
    found = dict(clients=a.clients, seconds=round(took, 1), **summary(met, took))
    for k,v in found.items(): print(f"{k:18} {v}")
    Path(a.out, "serve.json").write_text(json.dumps(found, indent=1)+"\n")

def summary(met, took):
    "What clients met: answers that were whole, what else they got, and how long the first byte took"
    good = [m for m in met if m["status"] == 200 and m["first"]]
    other = sorted({str(m["status"]) for m in met if m["status"] != 200})
    if not good: return dict(answered=0, lost=len(met), others=other)
    p50, p95 = (round(float(np.percentile([m["first"] for m in good], q)), 3) for q in (50, 95))
    return dict(answered=len(good), lost=len(met)-len(good), others=other, first_byte_p50=p50, first_byte_p95=p95,
        speech_a_second=round(sum(m["seconds"] for m in good)/took, 2))

if __name__ == "__main__": main()
