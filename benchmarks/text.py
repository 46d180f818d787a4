"""How text is read: by category, how fast, and whether anything at all makes it stumble

    text.py categories             share of tests/readings.txt that is read as a person would, by category
    text.py speed                  milliseconds for 1,000 characters
    text.py fuzz [--n 200000]      random texts of all Unicode: nothing takes a second, nothing fails but with our own
                                   message
"""
import argparse, collections, random, sys, time, warnings
from pathlib import Path
from harmonica.text import Tokenizer, normalize, sentences

sys.path.insert(0, str(Path(__file__).parents[1]/"tests"))
DENSE = ("On 5 May 2024 Dr. Lee paid $3.50 for 2 kg of rice at 9:30 am; call 555-123-4567 or see www.example.com for "
    "10-12% off. ")

def categories():
    from test_text_readings import CASES, right
    good, all_ = collections.Counter(), collections.Counter()
    for kind,written,said in CASES:
        all_[kind] += 1
        good[kind] += right(written, said)
    for kind,n in all_.items(): print(f"{kind:24}{good[kind]:4} of {n}")
    print(f"{'together':24}{good.total():4} of {all_.total()}: {good.total()/all_.total():.1%}")

def speed():
    for name,text in dict(dense=DENSE, plain="plain words and nothing else at all, said he. ").items():
        took = []
        for i in range(20):
            s = (f"{i} " + text*20)[:1000]
            began = time.process_time()
            normalize(s)
            took.append(time.process_time()-began)
        print(f"{name}: {min(took)*1e3:.1f} ms of CPU for 1,000 characters")

def texts(n, seed):
    "Random texts: any characters, and pieces that look like something"
    dice = random.Random(seed)
    planes = [(32, 127), (32, 127), (0, 0x250), (0x250, 0x3000), (0x3000, 0xd800), (0xd800, 0xe000), (0xe000, 0x10000),
        (0x10000, 0x110000)]
    bits = ("5 10 1984 2024 3.5 1,000 .5 -7 $ € % ° ° kg km/h x ^ = + - – / : . , ; ! ? ( ) [ ] [[ ]] < > & # @ ' \" * "
        "_ ` ~ | \\ \n \n- \t Mr. St. II IV X I A am p.m. Jan May Mon th st s the and to of www. .com http:// &amp; "
            "<b> ![ ]( ˈ é ½ ² Ⅷ ➀ \u202e \u200b \ufeff \x1b[0m").split(" ")
    for _ in range(n):
        kind = dice.random()
        if kind < .4: yield "".join(chr(dice.randrange(*dice.choice(planes))) for _ in range(dice.randrange(1, 80)))
        elif kind < .8: yield "".join(dice.choice(bits) + " "*dice.randrange(2) for _ in range(dice.randrange(1, 40)))
        else:
            yield "".join(dice.choice(bits) if dice.random() < .5 else chr(dice.randrange(*dice.choice(planes)))
                for _ in range(dice.randrange(1, 60)))

def fuzz(n, seed, sound):
    slow, bad, refused, tok = (0, ""), [], 0, Tokenizer()
    tok.encode("warm")
    warnings.simplefilter("ignore")
    for i,s in enumerate(texts(n, seed)):
        began = time.process_time()
        try:
            said = normalize(s)
            sentences(said)
            # the dictionary is slower, and is asked about some
            if i % sound == 0: tok.encode(said, normalized=True)
        except ValueError as e:
            refused += 1
            if "\n" in str(e): bad.append((s, e))
        except Exception as e: bad.append((s, e))
        slow = max(slow, (time.process_time()-began, s))
    print(f"{n} texts, {refused} refused in one line, {len(bad)} failures; the slowest took {slow[0]:.2f} s of CPU: "
        f"{slow[1][:60]!r}")
    for s,e in bad[:10]: print(f"  {type(e).__name__} {e}: {s!r}")
    return not bad and slow[0] < 1

if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=["categories", "speed", "fuzz"])
    ap.add_argument("--n", type=int, default=200_000)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--sound", type=int, default=20, help="phonemes of every so many texts")
    a = ap.parse_args()
    if a.what == "categories": categories()
    elif a.what == "speed": speed()
    elif not fuzz(a.n, a.seed, a.sound): sys.exit(1)
