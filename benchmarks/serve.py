#!/usr/bin/env python3
"""harmonica-serve under load, on loopback: the server is started, clients ask for sentence after sentence, and what
they met is told.

    serve.py [--clients 50] [--seconds 120]      requests lost, first-byte p50 / p95 (s), seconds of speech a second

A table on the screen, and serve.json in the folder --out. Wants a machine that does nothing else.
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

async def load(url, clients, seconds):
    import httpx
    met = []
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=clients)) as http:
        until = time.monotonic()+seconds
        await asyncio.gather(*(client(http, i, until, met) for i in range(clients)))
    return met

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--clients", type=int, default=50)
    p.add_argument("--seconds", type=float, default=120.)
    p.add_argument("--out", default=".")
    a = p.parse_args()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", f"import sys; from harmonica.serve import serve; "
        f"sys.exit(serve(['--port', '{port}', '--max-queue', '{a.clients+10}']))"], stdout=subprocess.PIPE, text=True)
    try:
        if "is open" not in (server.stdout.readline() or ""): sys.exit("the server did not start")
        time.sleep(2)
        begun = time.monotonic()
        met = asyncio.run(load(f"http://127.0.0.1:{port}", a.clients, a.seconds))
        took = time.monotonic()-begun
    finally:
        server.terminate()
        server.wait(30)
    good = [m for m in met if m["status"] == 200]
    first = [m["first"] for m in good]
    found = dict(clients=a.clients, seconds=round(took, 1), answered=len(good), lost=len(met)-len(good),
        others=sorted({str(m["status"]) for m in met if m["status"] != 200}),
        first_byte_p50=round(float(np.percentile(first, 50)), 3),
        first_byte_p95=round(float(np.percentile(first, 95)), 3),
        speech_a_second=round(sum(m["seconds"] for m in good)/took, 2))
    for k,v in found.items(): print(f"{k:18} {v}")
    Path(a.out, "serve.json").write_text(json.dumps(found, indent=1)+"\n")

if __name__ == "__main__": main()
