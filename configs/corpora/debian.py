#!/usr/bin/env python3
"""English prose from the documentation of Debian packages, for training without a hub.

    configs/corpora/debian.py corpus/            # downloads 150 MB with apt, as any user
    sterna train --preset tiny-1m --text corpus/train.jsonl --out runs/first

The folder gets train.jsonl, held-out.txt, packages.txt with the versions, and licences/ with the
copyright file of every package. All packages are in Debian's section main, so their texts may be
used, changed and passed on under the licences in these files.

The order is fixed: packages as listed, files by name. A document is held out by the hash of its
name, not of its text, so the same documents are held out when versions differ. A package gives at
most 6 MB, so that no kind of text is more than a tenth. Paragraphs that are not prose, and
paragraphs that were there before, are left out.

apt gives the versions of your release. With other versions the text and so its hash differ; the
script prints the hash and says which packages differ from those of the published figures. Losses
of different corpora can't be compared. `--debs FOLDER` uses packages that are already there.
"""

import argparse
import gzip
import hashlib
import html.parser
import io
import json
import pathlib
import re
import subprocess
import sys
import tarfile

# Name and version in Debian 12 at the time of the published figures.
PACKAGES = """
apache2-doc 2.4.71-1~deb12u1
bash-doc 5.2.15-2
bind9-doc 1:9.18.49-1~deb12u3
cmake-data 3.25.1-1
debian-faq 11.1
debian-handbook 11.20220922
debian-history 2.28
debian-policy 4.6.2.0
debian-reference-en 2.100
developers-reference 12.18
dict-devil 1.0-13.1
dict-foldoc 20230119-1
dict-gcide 0.48.5+nmu2
dict-jargon 4.4.7-3.1
exim4-doc-html 4.96-1
fortunes 1:1.99.1-7.3
git-doc 1:2.39.5-0+deb12u3
gnome-user-docs 43.0-2
harden-doc 3.19+nmu1
installation-guide-amd64 20230508+deb12u1
libreoffice-help-en-us 4:7.4.7-1+deb12u14
linux-doc-6.1 6.1.192-3
llvm-14-doc 1:14.0.6-12
maint-guide 1.2.53
perl-doc 5.36.0-7+deb12u4
postfix-doc 3.7.11-0+deb12u1
postgresql-doc-15 15.20-0+deb12u1
python-django-doc 3:3.2.25-0+deb12u7
python3.11-doc 3.11.2-6+deb12u9
slurm-wlm-doc 22.05.8-4+deb12u3
sqlite3-doc 3.40.1-2+deb12u2
zsh-doc 5.9-4
"""
# SHA-256 of train.jsonl with these versions.
PUBLISHED = "5c7536ab65ab7221cb17a956d1a639c954132228b5959df49bd2992b2c2d45b8"

PACKAGE_BYTES = 6_000_000
DOCUMENT_BYTES = 16_000
SMALLEST_DOCUMENT = 400
# Of 100 documents one is held out.
HELD_OUT = 100

MARKUP = (".html", ".htm", ".xhtml", ".page")
PLAIN = (".txt", ".rst", ".pod", ".dict")
# The fortunes have names without an ending.
PLAIN_FOLDERS = ("usr/share/games/fortunes/",)
# Text of these elements is not prose.
SKIPPED = {"script", "style", "pre", "nav", "head", "svg", "code-block", "media", "info"}
BLOCKS = {"p", "li", "dd", "dt", "td", "th", "div", "section", "h1", "h2", "h3", "h4", "h5", "h6",
          "title", "item", "note", "br", "blockquote", "body", "table", "tr", "ul", "ol", "dl"}
COMMON = set("the of and to a in is that for it as with be on by this are or an from not".split())


class Paragraphs(html.parser.HTMLParser):
    """The text blocks of a page, without code and navigation."""

    def __init__(self):
        super().__init__()
        self.found, self.text, self.skipped = [], [], []

    def end(self):
        self.found.append(" ".join("".join(self.text).split()))
        self.text = []

    def handle_starttag(self, tag, attributes):
        if tag in SKIPPED:
            self.skipped.append(tag)
        if tag in BLOCKS:
            self.end()

    def handle_endtag(self, tag):
        if tag in self.skipped:
            while self.skipped.pop() != tag:
                pass
        if tag in BLOCKS:
            self.end()

    def handle_data(self, text):
        if not self.skipped:
            self.text.append(text)


def of_markup(text):
    parser = Paragraphs()
    parser.feed(text)
    parser.close()
    parser.end()
    return parser.found


def of_plain(text):
    """Blocks between blank lines, without the marks of Pod and reStructuredText."""
    text = re.sub(r"\b[A-Z]<+ ?([^<>]*?) ?>+", r"\1", text)
    text = re.sub(r":[\w:]+:`([^`<]*?)(?: *<[^>]*>)?`", r"\1", text)
    text = re.sub(r"^=\w+ *|^\.\. .*$|^%$", "", text, flags=re.MULTILINE).replace("`", "")
    return [" ".join(block.split()) for block in re.split(r"\n[ \t]*\n", text)]


def is_prose(paragraph):
    """Whether a paragraph is at least a sentence and has few signs that prose does not have."""
    if len(paragraph) < 60 or paragraph.count(" ") < 8:
        return False
    good = sum(c.isalpha() or c in " .,;'\"" for c in paragraph)
    return good >= 0.93 * len(paragraph) and paragraph.isascii()


def is_english(text):
    words = text.lower().split()
    return sum(word in COMMON for word in words) >= 0.12 * len(words)


def files(deb):
    """Names and contents of the documentation in a package, by name, and its copyright file."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, capture_output=True)
    found, licence = {}, b""
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if not member.isfile():
                continue
            if name.endswith("/copyright"):
                licence = archive.extractfile(member).read()
            plain = name.removesuffix(".gz").removesuffix(".dz")
            fortune = name.startswith(PLAIN_FOLDERS) and "." not in name
            if plain.endswith(MARKUP + PLAIN) or fortune:
                found[plain] = (name, archive.extractfile(member).read())
    return dict(sorted(found.items())), licence


def documents(deb, seen):
    """Documents of a package as (name, text), at most PACKAGE_BYTES, and its copyright file."""
    found, licence = files(deb)
    made = []
    for plain, (name, content) in found.items():
        if name != plain:
            content = gzip.decompress(content)
        text = content.decode("utf-8", "replace")
        parts, size = [[]], 0
        for paragraph in of_markup(text) if plain.endswith(MARKUP) else of_plain(text):
            key = hashlib.sha256(paragraph.encode()).digest()[:8]
            if not is_prose(paragraph) or key in seen:
                continue
            seen.add(key)
            if size > DOCUMENT_BYTES:
                parts, size = parts + [[]], 0
            parts[-1].append(paragraph)
            size += len(paragraph)
        for i, part in enumerate(parts):
            text = "\n\n".join(part)
            if len(text) >= SMALLEST_DOCUMENT and is_english(text):
                made.append((f"{plain}#{i}", text))
    # Too large a package gives the documents with the smallest hashes.
    total, kept = 0, set()
    for name, text in sorted(made, key=lambda d: hash_of(d[0])):
        total += len(text)
        if total <= PACKAGE_BYTES:
            kept.add(name)
    return [(name, text) for name, text in made if name in kept], licence


def hash_of(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path, help="the folder that is written")
    parser.add_argument("--debs", type=pathlib.Path, help="a folder with the packages")
    args = parser.parse_args()
    wanted = dict(line.split() for line in PACKAGES.split("\n") if line)
    debs = args.debs or args.out / "debs"
    (args.out / "licences").mkdir(parents=True, exist_ok=True)
    if not args.debs:
        debs.mkdir(exist_ok=True)
        subprocess.run(["apt-get", "download", *wanted], cwd=debs, check=True)

    seen, versions, held_out, size = set(), [], [], 0
    sha = hashlib.sha256()
    with open(args.out / "train.jsonl", "wb") as train:
        for package, published in wanted.items():
            deb = sorted(debs.glob(f"{package}_*.deb"))
            if len(deb) != 1:
                sys.exit(f"{debs} has {len(deb)} files {package}_*.deb; expected one. "
                         "Remove the old ones, or run without --debs")
            version = subprocess.run(["dpkg-deb", "-f", deb[0], "Version"], check=True,
                                     capture_output=True, text=True).stdout.strip()
            versions.append(f"{package} {version}\n")
            if version != published:
                print(f"{package} is {version}; the published figures have {published}")
            found, licence = documents(deb[0], seen)
            (args.out / "licences" / package).write_bytes(licence)
            for name, text in found:
                if hash_of(name) % HELD_OUT == 0:
                    held_out.append(text)
                    continue
                line = json.dumps({"text": text, "source": f"{package}/{name}"}) + "\n"
                train.write(line.encode())
                sha.update(line.encode())
                size += len(text)
            print(f"{package}: {len(found)} documents, {sum(len(d[1]) for d in found)} bytes")
    (args.out / "held-out.txt").write_text("\n\n".join(held_out) + "\n")
    (args.out / "packages.txt").write_text("".join(versions))
    same = "as published" if sha.hexdigest() == PUBLISHED else f"published is {PUBLISHED}"
    print(f"train.jsonl: {size} bytes of text, sha256 {sha.hexdigest()} ({same})")
    print(f"held-out.txt: {len(held_out)} documents, {sum(map(len, held_out))} bytes")


if __name__ == "__main__":
    main()
