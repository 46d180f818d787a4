"What people write, kind by kind: each with what once went wrong and with its siblings"
import re, time, warnings
import pytest
from hypothesis import given, settings, strategies as st
from harmonica.text import Tokenizer, load_lexicon, normalize, sentences

KINDS = """
# Code
If a != b then stop. | If a is not b then stop.
a !== b, ≠0 | a is not b, is not zero
a == b and c===d | a equals b and c equals d
x >= 3 and y <= 4, >=2 of them | x at least three and y at most four, at least two of them
if (a && b || !c) | if, a and b or not c
== Title == | Title
Really?! =) Yes :D and x = 3 | Really? Yes and x equals three
foo->bar() returns std::vector<int> | foo bar, returns std vector int
x**2 + 3*x | x squared plus three times x
error 0x80070057 | error zero x eight zero zero seven zero zero five seven
the colour #FF00FF | the colour hash F F zero zero F F
our .NET app, ASP.NET and Node.js 18.x | our dot net app, A S P dot net and Node dot J S eighteen point x
I use .NET. It is fine. | I use dot net. It is fine.
put it in .gitignore or .env | put it in dot gitignore or dot E N V
the .com bubble | the dot com bubble
He came .Then he left .and slept | He came. Then he left. and slept
tl;dr: no | T L D R: no
2.13.0-rc1 | two point thirteen point zero-R C one
an i7-12700K with 4 GiB | an i seven twelve thousand seven hundred K with four gibibytes
in 1080p or 720p | in ten eighty p or seven twenty p
#100daysofcode #1 #covid19 | hashtag one hundred daysofcode number one hashtag covid nineteen
# Money of elsewhere
PLN 50,00 and 12,50 EUR | fifty zlotys and twelve euros and fifty cents
CHF 25.- or SEK 300 | twenty-five Swiss francs or three hundred Swedish kronor
up to 1.299,00 € | up to one thousand two hundred and ninety-nine euros
¥151.35 per $1 | one hundred and fifty-one point three five yen per one dollar
100-150 EUR, 10-20 € | one hundred to one hundred and fifty euros, ten to twenty euros
eggs are 2/$5 | eggs are two for five dollars
£11,400 p.a. | eleven thousand four hundred pounds per annum
5 mln people | five million people
# Sums with letters
x² - 4x + 4 = 0 | x squared minus four x plus four equals zero
f(x) = 3x | f of x equals three x
3x faster and 10x | three times faster and ten times
3 x 4 = 12 | three times four equals twelve
3×10⁸ m/s | three times ten to the power of eight meters per second
H₂SO₄, H₂O and ¹⁴C | H two S O four, H two O and fourteen C
# Sizes
10x20x30 cm | ten by twenty by thirty centimeters
1,024 × 768 px | one thousand and twenty-four by seven hundred and sixty-eight pixels
a 2x4 and a 4x4 | a two by four and a four by four
a 12" vinyl | a twelve inch vinyl
he weighs 12st 4lb, or 11st, in the 21st | he weighs twelve stone four pounds, or eleven stone, in the twenty-first
98.6F in seat 14C | ninety-eight point six degrees Fahrenheit in seat fourteen C
3 cu. ft of sand | three cubic feet of sand
# Marks and ranks
I got a B- in math, and an A-. | I got a B minus in math, and an A minus.
vitamin C- and D-rich | vitamin C and D-rich
a 50-50 chance, a 4-4-2. | a fifty fifty chance, a four four two.
Act II, scene iii | Act two, scene three
Sc. 2, Pp. 3-4, eq. (5), Apt. #3B | scene two, pages three to four, equation, five, apartment number three B
Est. 1887 | established eighteen eighty-seven
Cpl. Jones | Corporal Jones
Sat 10am-2pm, Wed 9:30 | Saturday ten A M to two P M, Wednesday nine thirty
I sat 10 minutes | I sat ten minutes
0800-123-456 or 1-800 | zero eight zero zero, one two three, four five six or one, eight hundred
# Roman numerals leave words alone
The part I love most is the book I read | The part I love most is the book I read
Robert C. Martin | Robert C Martin
Malcolm X | Malcolm X
Type C cables | Type C cables
Class C | Class C
When I met George I was ten | When I met George I was ten
Henry VIII's wives | Henry the eighth's wives
World War II's end | World War two's end
WWII | World War two
the XIX century | the nineteenth century
Vol. II | volume two
MMXXIV | twenty twenty-four
Vitamin C and D | Vitamin C and D
the chapter I wrote | the chapter I wrote
See Part I. | See Part one.
Act I of the play | Act one of the play
King George I was German | King George the first was German
David C. Lee | David C Lee
pages iv-xii | pages four to twelve
World War I's end | World War one's end
George V's reign | George the fifth's reign
a MIX of both | a mix of both
my CD and CV | my C D and C V
Leo X | Leo the tenth
The class I took | The class I took
Spider-Man III | Spider-Man three
# Capitals
LINK | link
FORM | form
CODE | code
TEAM | team
AI IS HERE, SAYS IBM | A I is here, says I B M
THE CIA ASKED THE UN | the C I A asked the U N
READ THE FAQ AT THIS URL | read the F A Q at this U R L
THE 24TH OF MAY | the twenty-fourth of May
MR SMITH WEIGHS 10KG | Mister smith weighs ten kilograms
ON MONDAY AT 5PM WE MEET | on Monday at five P M we meet
WORLD WAR II WAS LONG | world war two was long
THE HTML AND THE XML FILES | the H T M L and the X M L files
LET US GO DOWN TO THE NEXT TOWN, IT IS A FACT | let us go down to the next town, it is a fact
THY WOE IS NIGH, YE HAWKS AND OXEN | thy woe is nigh, ye hawks and oxen
GO ON, TELL THEM OF THE API AND THE SSD | go on, tell them of the A P I and the S S D
the IT of the US | the I T of the U S
PCs | P Cs
URLs | U R Ls
DVDs | D V Ds
the FBI's | the F B I's
I said NO to the EU | I said no to the E U
ISBN and ASAP | I S B N and A S A P
# HTML and Markdown
AT&amp;T | A T and T
it&#39;s | it's
&pound;5 | five pounds
a&nbsp;b&nbsp;c | a b c
&quot;Yes&quot; | Yes
caf&eacute; | cafe
5 &lt; 6 | five less than six
<p>One</p><p>Two</p> | One. Two
<b>Bold</b> and <i>italic</i> | Bold and italic
<a href="http://x.com/y">the link</a> | the link
<script>var a = 1;</script>Hello | Hello
one<br>two<br/>three | one two three
10<sup>8</sup> | ten to the power of eight
Dear <your name>, | Dear your name,
[the site](https://x.com/a_(b)) | the site
![a cat](cat.png) sits | a cat sits
**bold**, *this*, `that` and ~~gone~~ | bold, this, that and gone
# Title\\nText | Title. Text
## Two ##\\n\\nText | Two. Text
> quote\\n\\nAnswer | quote. Answer
- one\\n- two\\n- three | one. two. three
* one\\n* two | one. two
1. Wash\\n2. Dry | one, Wash. two, Dry
- [ ] milk\\n- [x] bread | milk. bread
| a | b |\\n|---|---|\\n| 1 | 2 | | a, b. one, two
```python\\nx = 1\\n``` | x equals one
One\\n\\n---\\n\\nTwo | One. Two
# Numbers that only name something
555 123 4567 | five five five, one two three, four five six seven
+44 20 7946 0958 | plus four four, two zero, seven nine four six, zero nine five eight
(123)-123-5678 | one two three, one two three, five six seven eight
1-800-FLOWERS | one, eight hundred, Flowers
911 | nine one one
Call 911! | Call nine one one!
ZIP 90210 | zip nine zero two one zero
ZIP 90210-1234 | zip nine zero two one zero, one two three four
123-45-6789 | one two three, four five, six seven eight nine
10.0.0.1 | one zero dot zero dot zero dot one
192.168.1.0/24 | one nine two dot one six eight dot one dot zero slash twenty-four
code AB9453 | code A B nine four five three
Flight BA2490 | Flight B A two four nine zero
PIN: 0042 | Pin: zero zero four two
4111 1111 1111 1111 | four one one one, one one one one, one one one one, one one one one
978-3-16-148410-0 | nine seven eight, three, one six, one four eight four one zero, zero
911 people | nine hundred and eleven people
555-1234 ext. 56 | five five five, one two three four extension five six
# Dates
The 24th of May | The twenty-fourth of May
my 5 May meeting | my fifth of May meeting
2024/10/01 | October first, twenty twenty-four
01.02.2023 | the first of February, twenty twenty-three
2024-10-01T12:30:00 | October first, twenty twenty-four, twelve thirty
2024-10-01T12:30:00Z | October first, twenty twenty-four, twelve thirty U T C
july 25 2012 | July twenty-fifth, twenty twelve
12/25 | December twenty-fifth
on 3/4 | on March fourth
Jan. | January.
It was 1 Jan. He left. | It was the first of January. He left.
in Jan. and Feb. | in January and February.
Mon. | Monday.
1980s | nineteen eighties
'80s | eighties
the 1980's | the nineteen eighties
in the mid-90s | in the mid-nineties
this 3 June | this third of June
Dec-25-2020 | December twenty-fifth, twenty twenty
11/2023 | November twenty twenty-three
You may 5 times | You may five times
# Ranges
9am-5pm | nine A M to five P M
9:00-17:00 | nine o'clock to seventeen hundred
Mon-Fri | Monday to Friday
January 5-10 | January fifth to tenth
5-10 January | the fifth to tenth of January
5%-10% | five to ten percent
$5M-$10M | five to ten million dollars
$250-$300 | two hundred and fifty to three hundred dollars
5kg-10kg | five to ten kilograms
Jan-Mar | January to March
10-15 people | ten to fifteen people
1990-1995 | nineteen ninety to nineteen ninety-five
10 – 20 | ten to twenty
A-Z | A to Z
# Lines: see test_lines
a list:\\n- tea\\n- milk | a list: tea. milk
Shopping\\n\\ntea | Shopping. tea
It was a dark\\nand stormy night. | It was a dark and stormy night.
He lives in New\\nYork now. | He lives in New York now.
First.\\nSecond. | First. Second.
Chapter One\\nIt rained. | Chapter One. It rained.
Apples\\nPears\\nPlums | Apples. Pears. Plums
a) tea\\nb) milk | A, tea. B, milk
one,\\n\\ntwo | one. two
well-\\nknown | well-known
# Stops
He lived in the U.S. It was cold. | He lived in the U S. It was cold.
the U.S. Army | the U S Army
readme.txt | readme dot T X T
youtu.be | youtu dot be
example.com.au | example dot com dot A U
Open config.yaml now. | Open config dot yaml now.
Use os.path here. | Use os dot path here.
a .pdf file | a dot P D F file
It ended.Then it began. | It ended. Then it began.
Visit x.org. Then go. | Visit x dot org. Then go.
at 5 p.m. He left | at five P M. He left
in Washington D.C. There | in Washington D C. There
node.js is fine | node dot J S is fine
# Maths and units
10^8 | ten to the power of eight
10⁸ | ten to the power of eight
10⁻³ | ten to the power of minus three
2^32 | two to the power of thirty-two
√16 | square root of sixteen
5*3 | five times three
10/2 | ten divided by two
5-3=2 | five minus three equals two
2 + 3 - 1 | two plus three minus one
a² + b² = c² | a squared plus b squared equals c squared
1920x1080 | nineteen twenty by ten eighty
2 tbsp | two tablespoons
90 mg/dL | ninety milligrams per deciliter
180C | one hundred and eighty degrees Celsius
350F | three hundred and fifty degrees Fahrenheit
a 40cm gap | a forty centimeter gap
an 8 km walk | an eight kilometer walk
40 cm | forty centimeters
1h 20m | one hour twenty minutes
2h30 | two hours thirty minutes
litres/day | litres per day
and/or | and or
$5/hr | five dollars per hour
1 mbps | one megabit per second
3 1/2 | three and a half
1/3 tsp | one third teaspoon
2 1/2 lbs | two and a half pounds
3-1/2 cups | three and a half cups
1.5e-3 | one point five times ten to the power of minus three
40°N | forty degrees north
# Money
R$50 | fifty reais
HK$20 | twenty Hong Kong dollars
5$ | five dollars
$-5 | minus five dollars
-$5 | minus five dollars
€5,50 | five euros and fifty cents
5,50 € | five euros and fifty cents
₿2 | two bitcoins
₽100 | one hundred rubles
US$76.3 trillion | seventy-six point three trillion U S dollars
$0.50 | fifty cents
NZ$3.20 | three New Zealand dollars and twenty cents
₾5 | lari five
a $5 bill | a five dollar bill
the $5 for tea | the five dollars for tea
# Small
➀ | one
① and ② | one and two
٣ | three
Ⅷ | eight
Genesis 1:1-3 | Genesis one one to three
John 3:16 | John three sixteen
10.5.2 | ten point five point two
v2.10 | version two point ten
\x1b[31mred\x1b[0m text | red text
\ud800half | half
half\udc00 | half
a\x00b | a b
a \u03a2 b | a b
x\u202e y | x y
# News, mail, recipes, code, sports, finance, chat, addresses, medicine, timetables
Python 3.11 is out. | Python three point eleven is out.
Python>=3.10 or Ubuntu 22.04 | Python at least three point ten or Ubuntu twenty-two point zero four
A Python 3.5 meters long | A Python three point five meters long
We meet at 18:00. | We meet at eighteen hundred.
15:00-16:30 CET | fifteen hundred to sixteen thirty C E T
24:00 | midnight
He finished in 2:00:35. | He finished in two hours thirty-five seconds.
At 7:30:15 the bell rang. | At seven thirty and fifteen seconds the bell rang.
from 07:30:15 on | from seven thirty and fifteen seconds on
in 38:42 | in thirty-eight forty-two
120/80 mmHg | one hundred and twenty over eighty millimeters of mercury
118 / 76 mm Hg | one hundred and eighteen over seventy-six millimeters of mercury
500mg q12h | five hundred milligrams every twelve hours
54 y/o | fifty-four years old
Sales grew 5% y/y. | Sales grew five percent year over year.
Continue? Y/N | Continue? yes or no
rates rose 25 bps | rates rose twenty-five basis points
EUR/USD and P/E | E U R U S D and P E
Pass --flag and -v. | Pass dash dash flag and dash V.
git commit -m "fix" | git commit dash M fix
ls -la | ls dash L A
He came --or so it seemed-- too late. | He came – or so it seemed – too late.
I <3 you | I love you
I ❤️ NY | I love N Y
x <3 | x less than three
love you <3 | love you
u r gr8, see u 2nite | you are great, see you tonight
how r u? | how are you?
the vectors u and v | the vectors u and v
the u in cup | the u in cup
c u at 7ish | see you at seven ish
Mon-Fri 9am-5:30pm | Monday to Friday nine A M to five thirty P M
dep. 09:05, plat. 3 | departs nine oh five, platform three
Thurs 12/5 | Thursday December fifth
Invoice #INV-2024 | Invoice number I N V two zero two four
HTTP 404 on port 8080 | H T T P four oh four on port eighty eighty
localhost:3000/users | localhost colon three zero zero zero slash users
room 101 | room one oh one
RTX 4090 | R T X forty ninety
ISO 9001 | I S O nine thousand and one
1.000.000 | one million
12 V DC | twelve volts D C
500 BCE – 200 CE | five hundred B C E to two hundred C E
180°C/350°F | one hundred and eighty degrees Celsius or three hundred and fifty degrees Fahrenheit
1.5m people | one point five million people
1.5m of rope | one point five meters of rope
Rm 4B, 3rd fl. | room four B, third floor
200g/7oz flour | two hundred grams or seven ounces flour
5 mg/5 ml | five milligrams per five milliliters
1½-2 hrs | one and a half to two hours
take 2 x 200mg | take two times two hundred milligrams
$1.49 est. | one dollar and forty-nine cents estimated
est. 1895 | established eighteen ninety-five
Hwy 101 N | Highway one oh one N
100 °C (373 K) | one hundred degrees Celsius, three hundred and seventy-three kelvin
O(n log n) | O of n log n
a 27" 4K monitor | a twenty-seven inch four K monitor
y = -x | y equals minus x
"""
KINDS = [(w.replace("\\n", "\n").encode("utf8", "surrogatepass").decode("utf8", "surrogatepass"), s)
    for l in KINDS.strip().split("\n") if l.count(" | ") for w,s in [l.rsplit(" | ", 1)]]

@pytest.mark.parametrize("written,said", KINDS)
def test_a_kind(written, said): assert normalize(written) == said

def test_many(): assert len(KINDS) > 190

# -- lines and stops, where text is cut

@pytest.mark.parametrize("text,n", [("He lived in the U.S. It was cold.", 2), ("the U.S. Army came.", 1),
    ("Open readme.txt. Then go.", 2), ("See youtu.be now.", 1), ("It is at example.com.au. Go.", 2),
    ("She moved to the U.K. She liked it.", 2), ("J. K. Rowling wrote.", 1), ("Dr. Lee of Apple Inc. met us.", 1),
    ("Mix at 3.5 volts. Stop.", 2), ("- one\n- two\n- three", 3), ("Title\n\nText here.", 2), ("a wrapped\nline", 1)])
def test_stops(text, n):
    assert len(sentences(normalize(text))) == n
    if "[" not in text: assert len(sentences(text)) == n

@pytest.mark.parametrize("text,n", [("# Head\nBody.", 2), ("Head\n====\nBody.", 2), ("* a\n* b\n\nEnd.", 3),
    ("1. a\n2. b", 2), ("> said\n\nAnswer.", 2), ("<li>a</li><li>b</li>", 2), ("one\ntwo\nthree.", 1),
    ("<h1>Head</h1>Body.", 2), ("| a | b |\n| c | d |", 2)])
def test_lines(text, n): assert len(sentences(normalize(text))) == n

# -- nothing hangs

@pytest.mark.parametrize("text", ["Dr."*200, "Henry"*200, "a-"*400, "I"*2000, "X"*500, "ab'"*300, "McDonald"*200,
    "é"*1000, "x1"*500, "1-"*500, "1,"*500, "1."*500, "$"*1000, "^2"*500, "<"*5000, "<a "*2000, "&"*5000, "["*5000,
    "[a]("*1000, "[["*1000, "\n- "*2000, "|"*3000, "<!--"*2000, "`"*3000, "http://"*300, "a@"*1000, "a."*2000,
    "1:"*1000, "- "*2000, "M"*1000, "(1)"*500, "+1 "*500, "1/2"*400, "\x1b["*1000, "5x"*500, "Jan "*300, "Mon-"*300,
    "1 000 "*300], ids=lambda t: repr(t[:6]))
def test_nothing_hangs(text):
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try: Tokenizer().encode(text)
        except ValueError: pass
    assert time.process_time()-began < 2

def test_a_glued_word_is_still_said():
    said = Tokenizer().symbols("Henry"*30)
    assert said.count("hˈɛnɹi") + said.count("ˈhɛnɹi") == 30

MESS = st.text(st.one_of(st.sampled_from(list("0123456789"*3 + " "*9 + "-–/:.,$€%°^*+=xX()[]<>&#@'\"\n|`~IVXCamkg")),
    st.characters(), st.characters(codec="utf-8")), max_size=80)

@settings(max_examples=600, deadline=1000)
@given(MESS)
def test_any_text(s):
    "No exception but ours, and nothing else than what is heard"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try: said = normalize(s)
        except ValueError as e:
            assert "\n" not in str(e) and len(str(e)) < 400
            return
        assert re.fullmatch(r"[A-Za-z' .,?!;:–\[\]-]+", re.sub(r"\[\[.*?\]\]", "a", said)), said
        sentences(said)

# -- nothing is dropped in silence

@pytest.mark.parametrize("text", ["Call 5 of 17.", "v1.2.3.4.5", "9,99,999 and 3.14.15", "12:99:88", "1/2/3/4/5",
    "99/99/9999", "2024-99-99", "$5$6", "1--2", "10%%", "#5#6", "1e5e5", "5x5x5x5", "12-", "-12-13-14", "(5)6[7]",
    "5°6°7", "1_2_3", "A1B22C333", "٣٤", "10^10^10", "½¾", "5:6:7:8", "0x1F", "1st2nd"])
def test_every_number_is_read(text):
    "At least as many words of numbers as there are groups of digits"
    count = len(re.findall(r"\d+|[½¾]", text))
    small = ("zero oh one two three four five six seven eight nine ten eleven twelve teen twenty thirty forty fifty "
        "sixty seventy eighty ninety hundred thousand million half quarter third fourth fifth first second sixth "
        "seventh eighth ninth january february squared cubed").split()
    assert sum(any(n in w for n in small) for w in re.split(r"[\s-]+",
        normalize(text).lower())) >= count, normalize(text)

@pytest.mark.parametrize("text,lost", [("Now 日本語 there", "語"), ("привет and hello", "п"), ("こんにちは yes", "こ"),
    ("no ไทย", "ไ"), ("a 한국 b", "ᄒ"), ("yes שלום", "ש")])
def test_what_is_left_out_is_told(text, lost):
    with pytest.warns(UserWarning, match=lost): normalize(text)

# -- how words sound

@pytest.mark.parametrize("text,sound", [("a lead pipe", "lˈɛd"), ("lead poisoning", "lˈɛd"),
    ("lead-free paint", "lˈɛd"), ("a pipe of lead", "lˈɛd"), ("a bass guitar", "bˈAs"), ("a bow and arrow", "bˈO"),
    ("live music", "lˈIv"), ("minute details", "mInjˈut"), ("she dove into it", "dˈOv"), ("PCs", "pˈisˌiz"),
    ("URLs", "ˌɛlz"), ("DVDs", "dˌiz"), ("CEOs", "Oz"), ("FAQs", "juz"), ("IDs", "dˌiz")])
def test_sounds(text, sound):
    assert re.sub("[ˈˌ]", "", sound) in re.sub("[ˈˌ]", "", Tokenizer().symbols(text)), Tokenizer().symbols(text)

@pytest.mark.parametrize("text", ["take the lead", "they lead us", "a sea bass", "take a bow", "we live here",
    "wait a minute", "a white dove"])
def test_the_other_sound(text):
    word = next(w for w in text.split() if w in "lead bass bow live minute dove".split())
    assert {"lead": "lid", "bass": "bæs", "bow": "bW", "live": "lɪv", "minute": "mɪnət",
        "dove": "dʌv"}[word] in re.sub("[ˈˌ]", "", Tokenizer().symbols(text)), Tokenizer().symbols(text)

# -- a pronunciation that is given

@pytest.mark.parametrize("text,said", [("The [[hɑɹmˈɑnəkə]].", "The [[hɑɹmˈɑnəkə]]."), ("[[həlˈoʊ]]", "[[həlˈO]]"),
    ("a [[tʃiːz]] b", "a [[ʧiz]] b"), ("[[kˈi]]'s 5", "[[kˈi]]'s five"), ("[[Main Page]]", "Main Page"),
    ("[[ˈtu ˈwɝdz]]", "[[ˈtu_ˈwɜɹdz]]"), ("say [[kˈi]], 3 times", "say [[kˈi]], three times")])
def test_given(text, said): assert normalize(text) == said and normalize(said) == said

@pytest.mark.parametrize("text", ["[[ˈx]]", "[[ˈ]]", "[[ʘˈa]]", "[[ˈa5]]", "[[ˈC]]", "[[привет]]"])
def test_given_wrong(text):
    with pytest.raises(ValueError, match="the signs are|no sound"): normalize(text)

def test_lexicon(tmp_path):
    (tmp_path/"w.txt").write_text("\ufeff# words\nSQL = sequel\n\nSiobhan\tʃəvˈɔn\nnginx=engine X\n"
        "C++ = see plus plus\nNew York = the big apple\n", encoding="utf8")
    words = load_lexicon(tmp_path/"w.txt")
    assert normalize("SQL, Nginx and C++ for Siobhan's New York",
        words) == "sequel, engine X and see plus plus for [[ʃəvˈɔn]]'s the big apple"
    # whole words, and names as they are written
    assert normalize("MySQL and siobhan", words) == normalize("MySQL and siobhan")
    assert load_lexicon(words) == words
    for bad in ({"a": 3}, {"": "b"}, {"a": " "}, {"a": "[[ˈx]]"}, tmp_path/"no.txt", tmp_path):
        with pytest.raises(ValueError) as e: load_lexicon(bad)
        assert "\n" not in str(e.value)
    (tmp_path/"bad.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ValueError, match="UTF-8"): load_lexicon(tmp_path/"bad.txt")

def test_a_page_is_read_at_once():
    "1,000 characters in less than 20 ms of CPU, the best of several: other work on the machine must not fail this test"
    dense = ("On 5 May 2024 Dr. Lee paid $3.50 for 2 kg of rice at 9:30 am; "
        "call 555-123-4567 or see www.example.com for 10-12% off. ")
    took = []
    for i in range(12):
        s = (f"{i} " + dense*9)[:1000]
        began = time.process_time()
        normalize(s)
        took.append(time.process_time()-began)
    assert min(took) < .02, took
