"""Writes patterns_python.json: random regular expressions, and what Python's re.fullmatch (3.11) says of each.

Each row is [pattern, answers]: one digit for each text, or null where Python refuses the pattern.
Run: python3.11 tests/data/make_patterns.py
"""

import json
import pathlib
import random
import re
import sys
import warnings

assert sys.version_info[:2] == (3, 11), "re changes between versions"
warnings.simplefilter("ignore")
random.seed(20261123)

ATOMS = (
    r"a b . 1 _ - é \. \d \w \W \S \s \b \B ^ $ \Z \A [ab] [^a] [\d.] [a-c1] []a] [[a] [&&a] [\w-] \1 \2 (?=a) (?!b) (?<=a) (?<!b) (?<=ab) "
    r"{ } {2} {1,} {,2} * + ? *? +? ?? *+ ++ ?+ | ( ) (?: (?> (?i: (?-i: (?P<x> (?P=x) (?#c) A \x61 \141 \n"
).split(" ")
GROUPS = ["(", "(?:", "(?>", "(?=", "(?!", "(?i:", "(?<=", "(?<!", "(?P<x>"]
REPEATS = ["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{,2}", "{2,}", "*+", "++", "?+"]
TEXTS = ["", "a", "b", "ab", "aab", "a.b", "layers.1.a", "aaa", "a1_-", "É", "é", "a\n", "abab", "A", "aA.b1", "..", "[a", "&", "-", "²", " a"]
WANTED = {True: 1500, False: 500}


def expression(depth=0):
    text = ""
    for _ in range(random.randint(1, 4)):
        if random.random() < 0.3 and depth < 3:
            branches = [expression(depth + 1) for _ in range(random.choice([1, 1, 2]))]
            text += random.choice(GROUPS) + "|".join(branches) + ")"
        else:
            text += random.choice(ATOMS)
        if random.random() < 0.35:
            text += random.choice(REPEATS)
    return text


def answers(pattern):
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError):
        return None
    return "".join(str(int(compiled.fullmatch(text) is not None)) for text in TEXTS)


rows = {}
while len(rows) < sum(WANTED.values()):
    pattern = expression()
    row = answers(pattern) if len(pattern) < 40 else ""
    if row == "" or pattern in rows or sum((other is None) == (row is None) for other in rows.values()) >= WANTED[row is not None]:
        continue
    rows[pattern] = row

lines = ",\n  ".join(json.dumps(row) for row in rows.items())
text = f'{{\n "texts": {json.dumps(TEXTS)},\n "rows": [\n  {lines}\n ]\n}}\n'
pathlib.Path(__file__).with_name("patterns_python.json").write_text(text)
